"""Unary gRPC calls on sockets of asyncio: listens, bounds how many connections there are and for how long, and stops.

TLS is asyncio's ssl. What a connection does is in server.native.peer.
"""

import asyncio
import os
import socket
import ssl
import stat
import time
from collections.abc import Callable, Mapping

from server.calls import Handler, Queued
from server.native.deadlines import Deadlines
from server.native.peer import CLOSE_SECONDS, NOTICE_SECONDS, Limits, Peer

CONNECTIONS_MAX = 1024
HANDSHAKE_SECONDS = 10.0  # of TLS, to begin and to end
SWEEP_SECONDS = 1.0
BACKLOG = 1024


class Front:
    """Listens, and answers the calls of `handlers`, by path `/service/Method`; `queued` go before them."""

    def __init__(
        self, handlers: Mapping[str, Handler], limits: Limits | None = None, queued: Mapping[str, Queued] | None = None
    ) -> None:
        self.handlers = list(handlers.values())
        self.queued = [(queued or {}).get(path) for path in handlers]
        self.paths = {path.encode(): i for i, path in enumerate(handlers)}
        self.limits = limits or Limits()
        self.peers: set[Peer] = set()
        self.deadlines = Deadlines()
        self.draining = False
        self._servers: list[asyncio.Server] = []
        self._sweeper: asyncio.Task[None] | None = None

    async def listen(self, address: str, tls: ssl.SSLContext | None = None, *, reuse_port: bool = False) -> None:
        """`host:port` or `unix:PATH`; a socket file that nobody listens on is replaced."""
        loop = asyncio.get_running_loop()
        handshake = HANDSHAKE_SECONDS if tls else None
        if address.startswith("unix:"):
            path = address.removeprefix("unix:").removeprefix("//")
            _clear(path)
            server = await loop.create_unix_server(
                lambda: Peer(self), path, ssl=tls, backlog=BACKLOG,
                ssl_handshake_timeout=handshake, ssl_shutdown_timeout=handshake,
            )  # fmt: skip
        else:
            host, port = address.rsplit(":", 1)
            server = await loop.create_server(
                lambda: Peer(self), host.strip("[]"), int(port), ssl=tls, backlog=BACKLOG, reuse_port=reuse_port,
                ssl_handshake_timeout=handshake, ssl_shutdown_timeout=handshake,
            )  # fmt: skip
        self._servers.append(server)
        self._sweeper = self._sweeper or asyncio.create_task(self._sweep())

    def opened(self, peer: Peer) -> bool:
        """A connection is there; False where there are too many."""
        if len(self.peers) >= CONNECTIONS_MAX:
            return False
        self.peers.add(peer)
        if self.draining:
            peer.drain()
        return True

    def closed(self, peer: Peer) -> None:
        """A connection is gone."""
        self.peers.discard(peer)

    @property
    def ports(self) -> list[int]:
        """TCP ports listened on."""
        return [s.getsockname()[1] for server in self._servers for s in server.sockets if s.family != socket.AF_UNIX]

    async def stop(self, grace_seconds: float) -> None:
        """Take no new connection and no new request; return when all that was taken is answered, or the time is up."""
        self.draining = True
        for server in self._servers:
            server.close()
        for peer in list(self.peers):
            peer.drain()
        await asyncio.sleep(NOTICE_SECONDS if self.peers else 0)
        await _until(lambda: not any(peer.busy for peer in self.peers), grace_seconds)
        await self._until_gone()  # whoever reads the goodbye closes
        for peer in list(self.peers):
            peer.close()
        await self._until_gone()
        for peer in list(self.peers):  # reads nothing of what it was told: what is left to say is lost
            peer.abort()
        if self._sweeper is not None:
            self._sweeper.cancel()

    async def _until_gone(self) -> None:
        await _until(lambda: not self.peers, CLOSE_SECONDS)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            now = time.monotonic()
            for peer in list(self.peers):
                peer.sweep(now)


async def _until(holds: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not holds() and time.monotonic() < deadline:
        await asyncio.sleep(0.005)


def _clear(path: str) -> None:
    """Remove a socket that a dead process left behind."""
    if os.path.exists(path) and stat.S_ISSOCK(os.stat(path).st_mode):
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(path)
            except ConnectionRefusedError:
                os.unlink(path)

"""Unary gRPC calls on sockets of asyncio: http2.Connection under an asyncio.Protocol, TLS by asyncio's ssl.

One write a connection and turn of the event loop, however many replies there are; no thread. What a peer can make this
process hold is bounded: connections, requests of a connection, bytes of them, seconds that a request may take to
arrive and that a silent connection is kept.
"""

import asyncio
import base64
import os
import socket
import ssl
import time
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from server.errors import status_of
from server.native.http2 import Connection
from server.service import Handler, log_failure

CONNECTIONS_MAX = 1024
ARRIVAL_SECONDS = 20.0  # from a request's first header to its last byte
SILENT_SECONDS = 600.0  # a connection without an open request that says nothing
SWEEP_SECONDS = 1.0
CLOSE_SECONDS = 1.0  # for a peer to read the last of what it is told
BACKLOG = 1024


class _Call:
    __slots__ = ("_deadline", "trailers")

    def __init__(self, timeout_us: int, now: float) -> None:
        self._deadline = now + timeout_us / 1e6 if timeout_us >= 0 else None
        self.trailers: tuple[tuple[bytes, bytes], ...] | None = None

    def time_remaining(self) -> float | None:
        return None if self._deadline is None else max(self._deadline - time.monotonic(), 0.0)

    def set_trailing_metadata(self, trailing_metadata: Sequence[tuple[str, str | bytes]]) -> None:
        self.trailers = wire_pairs(trailing_metadata)


def wire_pairs(metadata: Sequence[tuple[str, str | bytes]]) -> tuple[tuple[bytes, bytes], ...]:
    """Metadata as HTTP/2 carries it: values of names in -bin are base64 without padding."""
    return tuple(
        (name.encode(), base64.b64encode(value).rstrip(b"=") if isinstance(value, bytes) else value.encode())
        for name, value in metadata
    )


@dataclass(frozen=True)
class Limits:
    """What one connection may hold."""

    message_max_bytes: int = 4 << 20
    budget_bytes: int = 16 << 20
    requests_max: int = 256


class Front:
    """Listens, and answers the calls of `handlers`, by path `/service/Method`."""

    def __init__(self, handlers: Mapping[str, Handler], limits: Limits = Limits()) -> None:
        self.handlers = list(handlers.values())
        self.paths = {path.encode(): i for i, path in enumerate(handlers)}
        self.limits = limits
        self.peers: set[_Peer] = set()
        self.draining = False
        self._servers: list[asyncio.Server] = []
        self._sweeper: asyncio.Task[None] | None = None

    async def listen(self, address: str, tls: ssl.SSLContext | None = None, *, reuse_port: bool = False) -> None:
        """`host:port` or `unix:PATH`; a socket file that nobody listens on is replaced."""
        loop = asyncio.get_running_loop()
        if address.startswith("unix:"):
            path = address.removeprefix("unix:").removeprefix("//")
            _clear(path)
            self._servers.append(await loop.create_unix_server(lambda: _Peer(self), path, ssl=tls, backlog=BACKLOG))
        else:
            host, port = address.rsplit(":", 1)
            self._servers.append(
                await loop.create_server(
                    lambda: _Peer(self), host.strip("[]"), int(port), ssl=tls, backlog=BACKLOG, reuse_port=reuse_port
                )
            )
        self._sweeper = self._sweeper or asyncio.create_task(self._sweep())

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
        deadline = time.monotonic() + grace_seconds
        while any(peer.busy for peer in self.peers) and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
        for peer in list(self.peers):
            peer.close()
        deadline = time.monotonic() + CLOSE_SECONDS
        while self.peers and time.monotonic() < deadline:
            await asyncio.sleep(0.005)
        for peer in list(self.peers):  # reads nothing of what it was told: what is left to say is lost
            peer.abort()
        if self._sweeper is not None:
            self._sweeper.cancel()

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            now = time.monotonic()
            for peer in list(self.peers):
                peer.sweep(now)


def _clear(path: str) -> None:
    """Remove a socket that a dead process left behind."""
    if os.path.exists(path):
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(path)
            except ConnectionRefusedError:
                os.unlink(path)


class _Peer(asyncio.Protocol):
    """One connection. Replies of a turn of the loop are written together; nothing is written while the peer reads
    too slowly: nghttp2 keeps it, bounded by the requests it may have open.
    """

    def __init__(self, front: Front) -> None:
        self._front = front
        limits = front.limits
        self._connection = Connection(
            front.paths, streams_max=limits.requests_max, message_max=limits.message_max_bytes,
            budget=limits.budget_bytes,
        )  # fmt: skip
        self._loop = asyncio.get_running_loop()
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._replies: list[tuple[int, bytes | None, int, str, tuple[tuple[bytes, bytes], ...] | None]] = []
        self._flushing = self._paused = self._failed = False
        self._heard = time.monotonic()

    @property
    def busy(self) -> bool:
        """Whether a request is open or a reply not yet handed over."""
        return bool(self._tasks or self._replies or self._connection.open)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance
        if len(self._front.peers) >= CONNECTIONS_MAX:
            self._transport.abort()
            return
        self._front.peers.add(self)
        if self._front.draining:
            self._connection.drain()
        self._flush_soon()

    def connection_lost(self, exc: Exception | None) -> None:
        self._front.peers.discard(self)
        self._failed = True
        for task in self._tasks.values():
            task.cancel()

    def data_received(self, data: bytes) -> None:
        self._heard = now = time.monotonic()
        try:
            self._connection.feed(data, now)
        except ConnectionError:
            self._fail()
            return
        for stream, method, message, timeout_us, _ in self._connection.take():
            call = _Call(timeout_us, now)
            task = self._loop.create_task(self._answer(stream, self._front.handlers[method](message, call), call))
            self._tasks[stream] = task
        for stream in self._connection.gone():
            if task_of := self._tasks.get(stream):
                task_of.cancel()
        self._flush_soon()

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._flush_soon()

    def drain(self) -> None:
        """GOAWAY; what is open is still answered."""
        if not self._failed:
            self._connection.drain()
            self._flush_soon()

    def close(self) -> None:
        """After what is written has been sent."""
        self._flush()
        self._transport.close()

    def abort(self) -> None:
        """At once, whatever is left to send."""
        self._transport.abort()

    def sweep(self, now: float) -> None:
        """Refuse what takes too long to arrive; close what says nothing."""
        if not self._failed and self._connection.expire(now - ARRIVAL_SECONDS):
            self._flush_soon()
        if not self.busy and now - self._heard > SILENT_SECONDS:
            self.close()

    async def _answer(self, stream: int, reply: Awaitable[bytes], call: _Call) -> None:
        try:
            message = await reply  # before the list is looked up: a flush meanwhile puts a new one in its place
            self._replies.append((stream, message, 0, "", call.trailers))
        except asyncio.CancelledError:
            raise
        except Exception as error:  # the one place where this transport's errors become statuses
            status = status_of(error)
            log_failure(error, status.code)
            self._replies.append((stream, None, status.number, status.message, wire_pairs(status.metadata())))
        finally:
            del self._tasks[stream]
        self._flush_soon()

    def _flush_soon(self) -> None:
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        if self._failed or self._transport.is_closing():
            return
        try:
            if self._replies:
                replies, self._replies = self._replies, []
                self._connection.reply(replies)
            while not self._paused and (data := self._connection.out()):
                self._transport.write(data)
        except ConnectionError:
            self._fail()
            return
        if self._connection.finished:
            self._transport.close()

    def _fail(self) -> None:
        """The peer broke the protocol: say so where nghttp2 has words for it, and close."""
        self._failed = True
        self._transport.close()

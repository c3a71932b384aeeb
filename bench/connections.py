"""Connections for load on one method of a server: gRPC on bench/client.c, HTTP/1.1 for servers that know no gRPC."""

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, cast

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


@dataclass(frozen=True)
class Target:
    """What is called: `host:port` or `unix:PATH`, and the path of the method; http: in HTTP/1.1 in place of gRPC."""

    address: str
    path: str
    http: bool = False


class Connection(Protocol):
    """What carries calls: `open` of them are not answered."""

    @property
    def open(self) -> int: ...

    def ask(self, message: bytes, due: float) -> None: ...

    def close(self) -> None: ...


Answered = Callable[[Connection, float, int, bytes], None]  # connection, when it was due, status, reply


class _Grpc(asyncio.Protocol):
    """Calls on one HTTP/2 connection; what is asked in one turn of the loop is written together."""

    def __init__(self, target: Target, answered: Answered) -> None:
        from bench.client import Client  # built by `make native`

        self._client = Client(target.path.encode(), b"localhost")
        self._due: dict[int, float] = {}  # by stream
        self._answered = answered
        self._loop = asyncio.get_running_loop()
        self._flushing = False

    @property
    def open(self) -> int:
        return self._client.open

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._flush_soon()

    def data_received(self, data: bytes) -> None:
        for stream, status, reply in self._client.feed(data):
            self._answered(self, self._due.pop(stream), status, reply)
        self._flush_soon()

    def ask(self, message: bytes, due: float) -> None:
        self._due[self._client.ask(message)] = due
        self._flush_soon()

    def close(self) -> None:
        self._transport.close()

    def _flush_soon(self) -> None:
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        if data := self._client.out():
            self._transport.write(data)


class _Http(asyncio.Protocol):
    """Posts to one path on one kept connection, a call at a time, no pipelining."""

    def __init__(self, target: Target, answered: Answered) -> None:
        self._head = (
            f"POST {target.path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/octet-stream\r\n"
            "Content-Length: "
        ).encode()
        self._answered = answered
        self._received = b""
        self._due = 0.0
        self.open = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        received = self._received = self._received + data
        head = received.find(b"\r\n\r\n")
        if head < 0:
            return
        told = _LENGTH.search(received, 0, head)
        if told is None:
            raise ConnectionError("a reply without a length")
        end = head + 4 + int(told[1])
        if len(received) < end:
            return
        status = int(received[9:12])
        self._received = received[end:]
        self.open = 0
        self._answered(self, self._due, 0 if status == 200 else status, received[head + 4 : end])

    def ask(self, message: bytes, due: float) -> None:
        if self.open:
            raise ConnectionError("a call is open")
        self._due, self.open = due, 1
        self._transport.write(b"%b%d\r\n\r\n%b" % (self._head, len(message), message))

    def close(self) -> None:
        self._transport.close()


async def connect(target: Target, connections: int, answered: Answered) -> list[Connection]:
    """So many connections; `answered` is called for each answer, several before anything is written."""
    loop, made = asyncio.get_running_loop(), list[Connection]()
    make = _Http if target.http else _Grpc
    for _ in range(connections):
        if target.address.startswith("unix:"):
            path = target.address.removeprefix("unix:")
            _, connection = await loop.create_unix_connection(lambda: make(target, answered), path)
        else:
            host, port = target.address.rsplit(":", 1)
            _, connection = await loop.create_connection(lambda: make(target, answered), host, int(port))
        made.append(cast(Connection, connection))
    return made

"""A client for the tests: h2, another implementation of HTTP/2, connected to http2.Connection by calls; raw frames."""

import asyncio
import resource
import ssl
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import h2.config
import h2.connection
import h2.events
import h2.settings

from server.native.http2 import Connection

PATHS = {b"/s/Echo": 0, b"/s/Other": 1}
HEADERS = [
    (":method", "POST"), (":scheme", "http"), (":path", "/s/Echo"), (":authority", "x"), ("te", "trailers"),
    ("content-type", "application/grpc"),
]  # fmt: skip


def framed(message: bytes, compressed: int = 0) -> bytes:
    return bytes([compressed]) + len(message).to_bytes(4, "big") + message


def text(headers: Iterable[tuple[str | bytes, str | bytes]]) -> dict[str, str]:
    return {str(name): str(value) for name, value in headers}


class Peer:
    """A client by another implementation of HTTP/2, connected to a Connection by calls instead of a socket."""

    def __init__(self, server: Connection | None = None, **limits: int) -> None:
        self.server = server or Connection(PATHS, **limits)
        self.client = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding="utf-8"))
        self.client.initiate_connection()
        self.now = 0.0
        self.events: list[h2.events.Event] = []
        self.turn()

    def turn(self) -> None:
        """Everything both sides have to say, until neither has more."""
        while sent := self.client.data_to_send():
            self.server.feed(sent, self.now)
            while got := self.server.out():
                self.events += self.client.receive_data(got)
        while got := self.server.out():
            self.events += self.client.receive_data(got)
            if sent := self.client.data_to_send():
                self.server.feed(sent, self.now)

    def ask(self, body: bytes, headers: list[tuple[str, str]] = HEADERS, end: bool = True) -> int:
        stream: int = self.client.get_next_available_stream_id()
        self.client.send_headers(stream, headers)
        self.turn()
        while body and not self.reset(stream):
            room = min(self.client.local_flow_control_window(stream), self.client.max_outbound_frame_size, len(body))
            assert room > 0, "the server takes no more"
            self.client.send_data(stream, body[:room])
            body = body[room:]
            self.turn()
        if end and not self.reset(stream):
            self.client.end_stream(stream)
        self.turn()
        return stream

    def reset(self, stream: int) -> list[int]:
        """The codes with which the server broke a stream off, or asked for no more of it (0)."""
        return [
            int(e.error_code or 0)
            for e in self.events
            if isinstance(e, h2.events.StreamReset) and e.stream_id == stream
        ]

    def of(self, stream: int) -> tuple[dict[str, str], bytes, dict[str, str]]:
        """Headers, data and trailers that came for a stream; trailers alone count as trailers."""
        headers: dict[str, str] = {}
        trailers: dict[str, str] = {}
        data = b""
        for event in self.events:
            if getattr(event, "stream_id", None) != stream:
                continue
            if isinstance(event, h2.events.ResponseReceived):
                headers = text(event.headers)
            elif isinstance(event, h2.events.TrailersReceived):
                trailers = text(event.headers)
            elif isinstance(event, h2.events.DataReceived):
                data += event.data
        return headers, data, trailers or headers


def with_header(name: str, value: str) -> list[tuple[str, str]]:
    changed = {**dict(HEADERS), name: value}
    return list(changed.items())


WINDOW = 1 << 28


class Raw:
    """A client that reads when it is told to. Its windows are as wide as it likes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, window: int = WINDOW) -> None:
        self.reader, self.writer = reader, writer
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding="utf-8"))
        self.h2.initiate_connection()
        self.h2.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: window})
        self.h2.increment_flow_control_window(WINDOW)
        self.events: list[h2.events.Event] = []

    async def ask(self, path: str, message: bytes = b"", timeout: str = "1H") -> int:
        stream: int = self.h2.get_next_available_stream_id()
        headers = with_header(":path", path)
        self.h2.send_headers(stream, [*headers, ("grpc-timeout", timeout)])
        self.h2.send_data(stream, framed(message), end_stream=True)
        await self.send()
        return stream

    async def send(self) -> None:
        self.writer.write(self.h2.data_to_send())
        await self.writer.drain()

    async def read(self) -> bool:
        """What has come; False at the end."""
        data = await self.reader.read(1 << 20)
        self.events += self.h2.receive_data(data)
        await self.send()
        return bool(data)

    def of(self, kind: type[h2.events.Event], stream: int | None = None) -> list[h2.events.Event]:
        return [e for e in self.events if isinstance(e, kind) and stream in (None, getattr(e, "stream_id", None))]


@asynccontextmanager
async def raw(address: str, window: int = WINDOW, tls: ssl.SSLContext | None = None) -> AsyncIterator[Raw]:
    client = Raw(*await asyncio.open_connection(*address.split(":"), ssl=tls), window)
    await client.send()
    try:
        yield client
    finally:
        client.writer.close()
        with suppress(ConnectionError, ssl.SSLError):
            await client.writer.wait_closed()


PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


SETTINGS = frame(4, 0, 0)


def resident_kb() -> int:
    """Memory of this process, KiB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() // 1024

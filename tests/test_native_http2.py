"""The sans-IO HTTP/2 extension: whole gRPC requests out, framing and limits kept, nothing that arrives breaks it."""

import random
from collections.abc import Iterable, Iterator
from typing import Any

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.settings
import pytest

native = pytest.importorskip("server.native.http2", reason="the native front end is not built: make native")

PATHS = {b"/s/Echo": 0, b"/s/Other": 1}
HEADERS = [
    (":method", "POST"), (":scheme", "http"), (":path", "/s/Echo"), (":authority", "x"), ("te", "trailers"),
    ("content-type", "application/grpc"),
]  # fmt: skip


def framed(message: bytes, compressed: int = 0) -> bytes:
    return bytes([compressed]) + len(message).to_bytes(4, "big") + message


def _text(headers: Iterable[tuple[str | bytes, str | bytes]]) -> dict[str, str]:
    return {str(name): str(value) for name, value in headers}


class Peer:
    """A client by another implementation of HTTP/2, connected to a Connection by calls instead of a socket."""

    def __init__(self, **limits: int) -> None:
        self.server = native.Connection(PATHS, **limits)
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
        while body:
            room = min(self.client.local_flow_control_window(stream), self.client.max_outbound_frame_size, len(body))
            assert room > 0, "the server takes no more"
            self.client.send_data(stream, body[:room])
            body = body[room:]
            self.turn()
        if end:
            self.client.end_stream(stream)
        self.turn()
        return stream

    def of(self, stream: int) -> tuple[dict[str, str], bytes, dict[str, str]]:
        """Headers, data and trailers that came for a stream; trailers alone count as trailers."""
        headers: dict[str, str] = {}
        trailers: dict[str, str] = {}
        data = b""
        for event in self.events:
            if getattr(event, "stream_id", None) != stream:
                continue
            if isinstance(event, h2.events.ResponseReceived):
                headers = _text(event.headers)
            elif isinstance(event, h2.events.TrailersReceived):
                trailers = _text(event.headers)
            elif isinstance(event, h2.events.DataReceived):
                data += event.data
        return headers, data, trailers or headers


def with_header(name: str, value: str) -> list[tuple[str, str]]:
    changed = {**dict(HEADERS), name: value}
    return list(changed.items())


def test_a_request_and_its_reply() -> None:
    peer = Peer()
    stream = peer.ask(framed(b"hello"), [*HEADERS, ("grpc-timeout", "250m"), ("x-id", "7")])
    assert peer.server.take() == [(stream, 0, b"hello", 250_000, [(b"x-id", b"7")])]
    assert peer.server.take() == []
    peer.server.reply([(stream, b"answer", 0, "", ((b"stage-us", b"a=1"),))])
    peer.turn()
    headers, data, trailers = peer.of(stream)
    assert (headers[":status"], headers["content-type"]) == ("200", "application/grpc")
    assert data == framed(b"answer")
    assert trailers == {"grpc-status": "0", "stage-us": "a=1"}
    assert (peer.server.open, peer.server.buffered, peer.server.finished) == (0, 0, False)


@pytest.mark.parametrize("size", [0, 1, 16_379, 16_384, 100_000, 3_000_000])
def test_messages_of_any_size_go_through_flow_control(size: int) -> None:
    peer = Peer()
    body = random.Random(size).randbytes(size)
    stream = peer.ask(framed(body))
    ((_, _, message, _, _),) = peer.server.take()
    assert message == body
    peer.server.reply([(stream, body, 0, "", None)])
    peer.turn()
    seen = 0
    while seen < len(peer.events):
        fresh, seen = peer.events[seen:], len(peer.events)
        for event in fresh:
            if isinstance(event, h2.events.DataReceived):
                peer.client.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        peer.turn()
    assert peer.of(stream)[1] == framed(body) and peer.of(stream)[2]["grpc-status"] == "0"


def test_streams_are_answered_in_any_order_and_together() -> None:
    peer = Peer()
    streams = [peer.ask(framed(bytes([i]))) for i in range(20)]
    taken = peer.server.take()
    assert [t[0] for t in taken] == streams
    random.Random(1).shuffle(taken)
    peer.server.reply([(stream, message * 3, 0, "", None) for stream, _, message, _, _ in taken])
    peer.turn()
    assert all(peer.of(s)[1] == framed(bytes([i]) * 3) for i, s in enumerate(streams))


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        (with_header(":path", "/s/None"), framed(b""), "12"),
        (with_header("grpc-encoding", "gzip"), framed(b"x", 1), "12"),
        (HEADERS, framed(b"x", 1), "12"),
        (HEADERS, framed(b"x", 2), "13"),
        (HEADERS, b"", "13"),
        (HEADERS, framed(b"abc")[:-1], "13"),
        (HEADERS, framed(b"a") + framed(b"b"), "13"),
        (with_header("grpc-timeout", "1y"), framed(b""), "13"),
        (with_header("grpc-timeout", "123456789S"), framed(b""), "13"),
        (with_header("grpc-timeout", "S"), framed(b""), "13"),
        ([*HEADERS, ("long", "x" * 20_000)], framed(b""), "8"),
        (HEADERS + [(f"x{i}", "1") for i in range(65)], framed(b""), "8"),
        (HEADERS, framed(b"x" * 5_000_000), "8"),
    ],
)  # fmt: skip
def test_what_cannot_be_served_has_a_status(headers: list[tuple[str, str]], body: bytes, status: str) -> None:
    peer = Peer()
    stream = peer.ask(body, headers)
    assert peer.of(stream)[2]["grpc-status"] == status and peer.of(stream)[2]["grpc-message"]
    assert peer.server.take() == [] and peer.server.buffered == 0
    served = peer.ask(framed(b"next"))
    assert [t[0] for t in peer.server.take()] == [served]


@pytest.mark.parametrize(
    ("headers", "status"),
    [(with_header(":method", "GET"), "405"), (with_header("content-type", "application/json"), "415"),
     (with_header("content-type", "application/grpcx"), "415")],
)  # fmt: skip
def test_what_is_not_grpc_has_a_status_of_http(headers: list[tuple[str, str]], status: str) -> None:
    peer = Peer()
    assert peer.of(peer.ask(framed(b""), headers))[0][":status"] == status


def test_grpc_message_is_percent_encoded() -> None:
    peer = Peer()
    stream = peer.ask(framed(b""))
    peer.server.take()
    peer.server.reply([(stream, None, 3, "100 % 错\n", None)])
    peer.turn()
    assert peer.of(stream)[2] == {
        ":status": "200", "content-type": "application/grpc", "grpc-status": "3",
        "grpc-message": "100 %25 %E9%94%99%0A",
    }  # fmt: skip


def test_a_request_given_up_is_told_once_and_its_reply_passed_over() -> None:
    peer = Peer()
    stream = peer.ask(framed(b"x"))
    peer.server.take()
    peer.client.reset_stream(stream, h2.errors.ErrorCodes.CANCEL)
    peer.turn()
    assert peer.server.gone() == [stream] and peer.server.gone() == []
    peer.server.reply([(stream, b"late", 0, "", None)])
    assert peer.server.open == 0 and peer.of(stream)[1] == b""


def test_one_given_up_before_it_was_whole_is_never_taken() -> None:
    peer = Peer()
    stream = peer.ask(framed(b"x" * 100)[:50], end=False)
    assert peer.server.buffered > 0
    peer.client.reset_stream(stream, h2.errors.ErrorCodes.CANCEL)
    peer.turn()
    assert (peer.server.take(), peer.server.gone(), peer.server.buffered, peer.server.open) == ([], [], 0, 0)


def test_the_budget_of_a_connection_holds() -> None:
    peer = Peer(budget=100_000)
    for _ in range(3):
        peer.ask(framed(b"x" * 40_000)[:-1], end=False)
    refused = peer.ask(framed(b"x" * 40_000), end=False)
    assert peer.of(refused)[2]["grpc-status"] == "8"
    assert peer.server.buffered <= 200_000  # rooms are powers of two


def test_slow_senders_are_refused() -> None:
    peer = Peer()
    whole = peer.ask(framed(b"x"))
    slow = peer.ask(framed(b"xyz")[:3], end=False)
    peer.now = 100.0
    later = peer.ask(framed(b"xyz")[:3], end=False)
    assert peer.server.expire(50.0) == 1
    peer.turn()
    assert [t[0] for t in peer.server.take()] == [whole]
    assert any(isinstance(e, h2.events.StreamReset) and e.stream_id == slow for e in peer.events)
    assert not any(getattr(e, "stream_id", 0) == later for e in peer.events)


def test_more_streams_than_allowed_are_refused() -> None:
    peer = Peer(streams_max=4)
    settings = [e for e in peer.events if isinstance(e, h2.events.RemoteSettingsChanged)]
    allowed = settings[0].changed_settings[h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS].new_value
    assert allowed == 4
    for _ in range(4):
        peer.ask(framed(b"x"), end=False)
    with pytest.raises(h2.exceptions.TooManyStreamsError):
        peer.ask(framed(b"x"))


def test_draining_answers_what_is_open() -> None:
    peer = Peer()
    stream = peer.ask(framed(b"x"))
    peer.server.take()
    peer.server.drain()
    peer.turn()
    assert any(isinstance(e, h2.events.ConnectionTerminated) and e.last_stream_id == stream for e in peer.events)
    assert not peer.server.finished
    peer.server.reply([(stream, b"y", 0, "", None)])
    peer.server.out()
    assert peer.server.finished


PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


SETTINGS = frame(4, 0, 0)
MALFORMED = {
    "another protocol": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "tls": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64),
    "half a preface": PREFACE[:10] + b"x" * 20,
    "data on stream 0": PREFACE + SETTINGS + frame(0, 0, 0, b"x"),
    "data on an idle stream": PREFACE + SETTINGS + frame(0, 0, 5, b"x"),
    "headers on an even stream": PREFACE + SETTINGS + frame(1, 5, 2, b"\x82"),
    "broken hpack": PREFACE + SETTINGS + frame(1, 5, 1, b"\xff\xff\xff\xff\xff\xff"),
    "continuation without headers": PREFACE + SETTINGS + frame(9, 4, 1, b"\x82"),
    "a frame inside a header block": PREFACE + SETTINGS + frame(1, 0, 1, b"\x82") + frame(6, 0, 0, bytes(8)),
    "settings of a wrong size": PREFACE + frame(4, 0, 0, b"xxxxx"),
    "ping of a wrong size": PREFACE + SETTINGS + frame(6, 0, 0, b"x"),
    "window of nothing": PREFACE + SETTINGS + frame(8, 0, 0, bytes(4)),
    "a frame too large": PREFACE + SETTINGS + frame(0, 0, 1, b"x" * 20_000),
    "push promise": PREFACE + SETTINGS + frame(5, 4, 1, bytes(8)),
    "goaway too short": PREFACE + SETTINGS + frame(7, 0, 0, b"x"),
}


@pytest.mark.parametrize("data", MALFORMED.values(), ids=MALFORMED.keys())
@pytest.mark.parametrize("step", [1, 7, 100_000])
def test_what_is_malformed_ends_the_connection(data: bytes, step: int) -> None:
    """With ConnectionError or GOAWAY, whatever pieces it comes in; never a request."""
    server = native.Connection(PATHS)
    try:
        for at in range(0, len(data), step):
            server.feed(data[at : at + step], 0.0)
        said = server.out()
        assert server.finished and b"\x07" in said
    except ConnectionError:
        with pytest.raises(ConnectionError):
            server.feed(SETTINGS, 0.0)
    assert server.take() == []


def _floods() -> Iterator[tuple[str, bytes]]:
    hpack = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
    hpack.initiate_connection()
    hpack.data_to_send()
    resets = b""
    for stream in range(1, 8001, 2):
        hpack.send_headers(stream, HEADERS)
        hpack.reset_stream(stream)
        resets += hpack.data_to_send()
    yield "resets", PREFACE + SETTINGS + resets
    yield "pings", PREFACE + SETTINGS + frame(6, 0, 0, bytes(8)) * 2000
    yield "settings", PREFACE + SETTINGS * 2000
    yield "continuations", PREFACE + SETTINGS + frame(1, 0, 1, b"\x82") + frame(9, 0, 1) * 2000


@pytest.mark.parametrize(("name", "data"), list(_floods()), ids=lambda v: v if isinstance(v, str) else "")
def test_floods_end_the_connection(name: str, data: bytes) -> None:
    server = native.Connection(PATHS)
    try:
        server.feed(data, 0.0)
        server.out()
        assert server.finished, name
    except ConnectionError:
        pass
    assert server.open <= 256


def test_random_bytes_after_a_good_start_break_nothing() -> None:
    good = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
    good.initiate_connection()
    good.send_headers(1, HEADERS)
    good.send_data(1, framed(b"hello"), end_stream=True)
    start = good.data_to_send()
    rng = random.Random(7)
    for _ in range(3000):
        data = bytearray(start)
        for _ in range(rng.choice([1, 1, 2, 5, 20])):
            data[rng.randrange(24, len(data))] = rng.randrange(256)
        server = native.Connection(PATHS)
        try:
            server.feed(bytes(data) + rng.randbytes(rng.choice([0, 9, 60])), 0.0)
            server.reply([(t[0], t[2], 0, "", None) for t in server.take()])
            server.out()
        except ConnectionError:
            pass


def test_wrong_use_from_python_is_an_error() -> None:
    server = native.Connection(PATHS)
    wrong: list[Any] = [7, [7], [(1, "text", 0, "", None)], [(1, b"", 0, "", [])], [(1, b"", 0, "", ((b"a", "b"),))]]
    for replies in wrong:
        with pytest.raises(TypeError):
            server.reply(replies)
    with pytest.raises(TypeError):
        native.Connection([b"/s/Echo"])
    with pytest.raises(RuntimeError):
        server.__init__(PATHS)

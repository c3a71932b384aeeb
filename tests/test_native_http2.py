"""The sans-IO HTTP/2 extension: whole gRPC requests out, and gRPC's words for what cannot be served."""

import random
from typing import Any, cast
from urllib.parse import unquote

import h2.errors
import h2.events
import pytest

pytest.importorskip("server.native.http2", reason="the native front end is not built: make native")

from server.native.http2 import Connection
from tests.http2_client import HEADERS, PATHS, Peer, framed, with_header


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
    assert (peer.server.open, peer.server.held, peer.server.finished) == (0, 0, False)


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
        (HEADERS, b"", "12"),
        (HEADERS, framed(b"abc")[:4], "13"),
        (HEADERS, framed(b"abc")[:-1], "13"),
        (HEADERS, framed(b"a") + framed(b"b"), "12"),
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
    assert peer.server.take() == [] and peer.server.held == 0
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


@pytest.mark.parametrize(
    ("text", "timeout_us"),
    [
        ("0n", 0), ("1n", 0), ("1500n", 1), ("7u", 7), ("12m", 12_000), ("3S", 3_000_000), ("2M", 120_000_000),
        ("1H", 3_600_000_000), ("99999999H", 99_999_999 * 3_600_000_000), ("00000001S", 1_000_000),
    ],
)  # fmt: skip
def test_a_deadline_in_every_unit(text: str, timeout_us: int) -> None:
    peer = Peer()
    peer.ask(framed(b""), with_header("grpc-timeout", text))
    assert peer.server.take()[0][3] == timeout_us


@pytest.mark.parametrize("text", ["", "S", "-1S", "+1S", "1", "1s", "1 S", "1.5S", "100000000S", "1S1S", "0x1S"])
def test_a_deadline_that_is_none_is_refused(text: str) -> None:
    peer = Peer()
    stream = peer.ask(framed(b""), with_header("grpc-timeout", text))
    assert peer.of(stream)[2]["grpc-status"] == "13" and peer.server.take() == []


def test_trailers_of_a_request_end_it_and_say_nothing() -> None:
    peer = Peer()
    stream = peer.ask(framed(b"x"), end=False)
    peer.client.send_headers(stream, [("grpc-timeout", "1S"), (":path"[1:], "/s/None")], end_stream=True)
    peer.turn()
    assert peer.server.take() == [(stream, 0, b"x", -1, None)]


def test_metadata_comes_as_it_was_sent() -> None:
    peer = Peer()
    peer.ask(framed(b""), [*HEADERS, ("x-bin", "AP8"), ("x-bin", "AQ,Ag=="), ("x-name", "é错"), ("x-empty", "")])
    assert peer.server.take()[0][4] == [
        (b"x-bin", b"AP8"), (b"x-bin", b"AQ,Ag=="), (b"x-name", "é错".encode()), (b"x-empty", b""),
    ]  # fmt: skip


def test_who_is_answered_before_its_request_ended_is_asked_to_stop() -> None:
    """RST_STREAM(NO_ERROR) after the trailers: without it an upload that was refused would be sent to its end."""
    peer = Peer()
    unknown = peer.ask(framed(b"x" * 100)[:50], with_header(":path", "/s/None"), end=False)
    assert peer.of(unknown)[2]["grpc-status"] == "12" and peer.reset(unknown) == [0]
    large = peer.ask(framed(b"x" * 5_000_000), end=False)
    assert peer.of(large)[2]["grpc-status"] == "8" and peer.reset(large) == [0]
    whole = peer.client.get_next_available_stream_id()
    peer.client.send_headers(whole, with_header(":path", "/s/None"), end_stream=True)
    peer.turn()
    assert peer.of(whole)[2]["grpc-status"] == "12" and peer.reset(whole) == []
    assert (peer.server.open, peer.server.held) == (0, 0)


def test_what_is_compressed_hears_what_is_accepted() -> None:
    peer = Peer()
    stream = peer.ask(framed(b"x", 1), with_header("grpc-encoding", "gzip"))
    assert peer.of(stream)[2]["grpc-accept-encoding"] == "identity"
    assert peer.of(peer.ask(b"", with_header(":method", "GET")))[0]["allow"] == "POST"


def test_a_message_too_long_for_a_header_ends_early() -> None:
    """nghttp2 sends no header of 64 KiB, and without one the caller would wait for ever."""
    peer = Peer()
    stream = peer.ask(framed(b""))
    peer.server.take()
    peer.server.reply([(stream, None, 3, "x" + "错" * 30_000, None)])
    peer.turn()
    assert unquote(peer.of(stream)[2]["grpc-message"]) == "x" + "错" * 682


def test_trailers_too_long_to_send_break_the_call_off() -> None:
    peer = Peer()
    for message in (None, b"reply"):
        stream = peer.ask(framed(b""))
        peer.server.take()
        peer.server.reply([(stream, message, 0, "", ((b"long", b"x" * 70_000),))])
        peer.turn()
        assert peer.reset(stream) == [h2.errors.ErrorCodes.INTERNAL_ERROR] and peer.server.open == 0


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
    assert peer.server.held > 0
    peer.client.reset_stream(stream, h2.errors.ErrorCodes.CANCEL)
    peer.turn()
    assert (peer.server.take(), peer.server.gone(), peer.server.held, peer.server.open) == ([], [], 0, 0)


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


def test_wrong_use_from_python_is_an_error() -> None:
    server = Connection(PATHS)
    wrong: list[Any] = [7, [7], [(1, "text", 0, "", None)], [(1, b"", 0, "", [])], [(1, b"", 0, "", ((b"a", "b"),))]]
    for replies in wrong:
        with pytest.raises(TypeError):
            server.reply(replies)
    with pytest.raises(TypeError):
        Connection(cast(Any, [b"/s/Echo"]))
    with pytest.raises(RuntimeError):
        cast(Any, server).__init__(PATHS)
    for limits in (
        {"window": 1 << 30},
        {"message_max": -1},
        {"message_max": 1 << 32},
        {"header_max": -1},
        {"budget": -1},
    ):
        with pytest.raises(ValueError, match="out of range"):
            Connection(PATHS, **limits)
    unmade = Connection.__new__(Connection)
    assert unmade.finished and unmade.out() == b"" and unmade.take() == [] and unmade.gone() is not None
    for use in (lambda: unmade.feed(b"", 0.0), lambda: unmade.reply([]), unmade.drain, lambda: unmade.expire(0, 0, 0)):
        with pytest.raises(ConnectionError):
            use()


def test_a_path_without_a_number_is_an_error() -> None:
    """And is told as one, not left behind for whatever Python runs next."""
    server = Connection(cast(Any, {b"/s/Echo": "none"}))
    with pytest.raises(TypeError):
        Peer(server).ask(framed(b""))

"""Hostile peers of the sans-IO extension: malformed, flooding, slow, greedy. Nothing breaks, memory is bounded."""

import gc
import random
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.settings
import hpack
import pytest

pytest.importorskip("server.native.http2", reason="the native front end is not built: make native")

from server.native.http2 import Connection, held
from tests.http2_client import HEADERS, PATHS, PREFACE, SETTINGS, Peer, frame, framed, resident_kb, with_header


def test_the_budget_of_a_connection_holds() -> None:
    peer = Peer(budget=100_000)
    for _ in range(3):
        peer.ask(framed(b"x" * 40_000)[:-1], end=False)
    refused = peer.ask(framed(b"x" * 40_000), end=False)
    assert peer.of(refused)[2]["grpc-status"] == "8"
    assert peer.server.held <= 200_000  # rooms are powers of two


def test_the_budget_counts_what_is_not_answered_and_what_is_not_read() -> None:
    peer = Peer(budget=100_000)
    first = [peer.ask(framed(b"x" * 30_000)) for _ in range(3)]
    assert len(peer.server.take()) == 3 and peer.server.held == 90_000
    assert peer.of(peer.ask(framed(b"x" * 30_000)))[2]["grpc-status"] == "8"
    peer.server.reply([(stream, b"y" * 60_000, 0, "", None) for stream in first])
    peer.turn()  # the connection's window ends before any of them
    assert peer.server.held == 180_000
    assert peer.of(peer.ask(framed(b"")))[2]["grpc-status"] == "8"
    for stream in first:
        peer.client.reset_stream(stream)
    peer.turn()
    assert peer.server.held == 0


def test_the_budget_of_all_connections_holds() -> None:
    before = held()
    peers = [Peer(budget_all=before + 100_000) for _ in range(3)]
    for peer, size in zip(peers[:2], (40_000, 20_000), strict=True):
        peer.ask(framed(b"x" * size)[:-1], end=False)
    assert peers[2].of(peers[2].ask(framed(b"x" * 5000), end=False))[2]["grpc-status"] == "8"
    assert before < held() <= before + 200_000
    del peer
    peers.clear()
    gc.collect()
    assert held() == before


def test_headers_are_counted() -> None:
    peer = Peer(budget=50_000)
    streams = [peer.ask(b"", [*HEADERS, ("x", "y" * 10_000)], end=False) for _ in range(5)]
    assert 40_000 < peer.server.held < 50_000
    assert peer.of(streams[4])[2]["grpc-status"] == "8"


def test_slow_senders_are_refused() -> None:
    peer = Peer()
    whole = peer.ask(framed(b"x"))
    slow = peer.ask(framed(b"xyz")[:3], end=False)
    peer.now = 100.0
    later = peer.ask(framed(b"xyz")[:3], end=False)
    assert peer.server.expire(peer.now, 50.0, 60.0) == 1
    peer.turn()
    assert [t[0] for t in peer.server.take()] == [whole]
    assert peer.of(slow)[2]["grpc-status"] == "1" and peer.reset(slow) == [0]
    assert not any(getattr(e, "stream_id", 0) == later for e in peer.events)


def test_half_a_header_block_is_slow_too() -> None:
    server = Connection(PATHS)
    block = hpack.Encoder().encode(HEADERS)
    server.feed(PREFACE + SETTINGS + frame(1, 0, 1, block[:10]), 0.0)
    server.out()
    assert server.open == 1 and server.expire(21.0, 20.0, 60.0) == 1
    server.out()
    assert server.open == 0
    server.feed(frame(9, 4, 1, block[10:]), 22.0)
    assert server.take() == [] and not server.finished


def test_slow_readers_are_dropped() -> None:
    """A window that is never opened keeps a reply and its stream for so long and no longer."""
    peer = Peer()
    stream = peer.ask(framed(b"x"))
    peer.server.take()
    peer.server.reply([(stream, b"y" * 100_000, 0, "", None)])
    peer.turn()
    assert [peer.server.expire(now, 20.0, 60.0) for now in (100.0, 159.0, 161.0)] == [0, 0, 1]
    peer.turn()
    assert peer.reset(stream) == [h2.errors.ErrorCodes.CANCEL]
    assert (peer.server.open, peer.server.held, peer.server.gone()) == (0, 0, [])


def test_more_streams_than_allowed_are_refused() -> None:
    peer = Peer(streams_max=4)
    settings = [e for e in peer.events if isinstance(e, h2.events.RemoteSettingsChanged)]
    allowed = settings[0].changed_settings[h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS].new_value
    assert allowed == 4
    for _ in range(4):
        peer.ask(framed(b"x"), end=False)
    with pytest.raises(h2.exceptions.TooManyStreamsError):
        peer.ask(framed(b"x"))


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
    server = Connection(PATHS)
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
    server = Connection(PATHS)
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
        server = Connection(PATHS)
        try:
            server.feed(bytes(data) + rng.randbytes(rng.choice([0, 9, 60])), 0.0)
            server.reply([(t[0], t[2], 0, "", None) for t in server.take()])
            server.out()
        except ConnectionError:
            pass


def requests(streams: range) -> bytes:
    """Whole requests."""
    encoder = hpack.Encoder()
    first, again = encoder.encode(HEADERS), encoder.encode(HEADERS)
    return b"".join(frame(1, 4, n, first if n == 1 else again) + frame(0, 1, n, framed(b"x")) for n in streams)


@pytest.mark.parametrize("end", ["given up", "made to be broken off"])
@pytest.mark.parametrize("reads", [True, False])
def test_requests_that_end_unanswered_are_bounded(end: str, reads: bool) -> None:
    """Rapid reset (CVE-2023-44487), and its sister where our side sends the reset (CVE-2025-8671), read or not."""
    kind, payload = (3, (8).to_bytes(4, "big")) if end == "given up" else (8, (2**31 - 1).to_bytes(4, "big"))
    server, taken, gone = Connection(PATHS, resets=500), 0, 0
    server.feed(PREFACE + SETTINGS, 0.0)
    for at in range(1, 8000, 200):
        streams = range(at, at + 200, 2)
        server.feed(requests(streams), 0.0)
        taken += len(server.take())
        server.feed(b"".join(frame(kind, 0, n, payload) for n in streams), 0.0)
        if reads:
            server.out()
        gone += len(server.gone())
    server.out()
    assert taken <= 700 and gone + len(server.gone()) >= taken - 256
    assert server.finished or taken == 256


def test_requests_given_up_now_and_then_are_forgiven() -> None:
    peer = Peer(resets=10, resets_rate=5)
    for n in range(200):
        peer.now = n / 4  # 4 a second
        stream = peer.ask(framed(b"x"))
        peer.server.take()
        peer.client.reset_stream(stream, h2.errors.ErrorCodes.CANCEL)
        peer.turn()
        assert peer.server.gone() == [stream]
    assert not peer.server.finished


def test_refusals_that_nobody_reads_end_the_connection() -> None:
    """Each stream above the limit is refused by a frame of 13 bytes that costs more to keep than to provoke."""
    server = Connection(PATHS)
    server.feed(PREFACE + SETTINGS, 0.0)
    with pytest.raises(ConnectionError):
        for at in range(1, 40_001, 200):
            server.feed(requests(range(at, at + 200, 2)), 0.0)
    assert server.finished and server.open == 256


def talks() -> list[bytes]:
    """Conversations that end in every way: answered, refused, given up, cut off in a header, a body, a frame."""
    encoder = hpack.Encoder()
    block, other = encoder.encode([*HEADERS, ("x-bin", "AAAA" * 100)]), encoder.encode(with_header(":path", "/s/None"))
    body = framed(b"x" * 3000)
    whole = frame(1, 4, 1, block) + frame(0, 1, 1, body)
    return [
        PREFACE + SETTINGS + said
        for said in (
            whole, whole + frame(3, 0, 1, bytes(4)), whole + frame(1, 4, 3, other) + frame(0, 0, 3, body),
            frame(1, 4, 1, block) + frame(0, 0, 1, body[:100]), frame(1, 0, 1, block[:20]), frame(1, 4, 1, block)[:15],
            frame(1, 4, 1, block) + frame(0, 0, 1, body) + frame(3, 0, 1, bytes(4)), whole + frame(7, 0, 0, bytes(8)),
            whole + frame(8, 0, 1, b"\x7f\xff\xff\xff"), whole + frame(6, 0, 0, b"x"), b"\xff" * 20,
        )
    ]  # fmt: skip


def leaked(connections: int) -> tuple[int, int]:
    """What ending so many connections leaves behind: resident kB, and references."""

    def some(count: int) -> None:
        for n in range(count):
            server = Connection(PATHS)
            try:
                server.feed(said[n % len(said)], float(n))
                for stream, _, message, _, _ in server.take():
                    reply = (message, 0, "", ((b"a", b"%d" % n),)) if n % 2 else (None, 3, "wrong: 错", None)
                    if n % 7:
                        server.reply([(stream, *reply)])
                if n % 5 == 0:
                    server.drain()
                if n % 3:
                    server.out(100 if n % 4 else 1 << 20)
                server.expire(n + 100.0, 10.0, 10.0)
                if n % 11:
                    server.out()
                server.gone()
                server.feed(b"\xff", 0.0)
            except ConnectionError:
                pass

    said = talks()
    some(connections // 4)
    gc.collect()
    kb, references = resident_kb(), sum(sys.getrefcount(o) for o in (PATHS, None, *PATHS))
    some(connections)
    gc.collect()
    return resident_kb() - kb, sum(sys.getrefcount(o) for o in (PATHS, None, *PATHS)) - references


def test_nothing_is_leaked_however_a_connection_ends() -> None:
    """What one leaked would show 80,000 times. A process of its own: other tests' memory comes and goes."""
    with ProcessPoolExecutor(1, get_context("spawn")) as alone:
        kb, references = alone.submit(leaked, 80_000).result()
    assert kb < 1000 and abs(references) < 1000

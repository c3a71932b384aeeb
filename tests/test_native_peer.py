"""Peers of the native front end that are slow, silent, greedy or gone: each is bounded in bytes and in seconds."""

import asyncio
import gc
import ssl
import time
from contextlib import suppress
from pathlib import Path

import grpc
import h2.events
import pytest
import trustme

pytest.importorskip("server.native.http2", reason="the native front end is not built: make native")

from server.calls import Call
from server.native import front as fronts
from server.native import peer as peers
from server.native.deadlines import Deadlines
from server.native.front import Front
from server.native.http2 import held
from server.native.peer import Peer
from tests.http2_client import Raw, framed, raw, resident_kb, text, with_header
from tests.test_native_front import (
    ECHO,
    LARGE,
    SLOW,
    eventually,
    failing,
    served,
    unary,
)

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits in seconds become fractions of a second."""
    monkeypatch.setattr(peers, "ARRIVAL_SECONDS", 0.2)
    monkeypatch.setattr(peers, "READING_SECONDS", 0.6)
    monkeypatch.setattr(fronts, "HANDSHAKE_SECONDS", 1.0)
    monkeypatch.setattr(fronts, "SWEEP_SECONDS", 0.02)


def tls_pair(secure: bool) -> tuple[ssl.SSLContext | None, ssl.SSLContext | None]:
    """The server's and a client's; None for plain text."""
    if not secure:
        return None, None
    authority, server = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    return server, client


def _held() -> int:
    gc.collect()
    return held()


def only(front: Front) -> Peer:
    (peer,) = front.peers
    return peer


async def test_a_call_given_up_before_it_began_never_begins() -> None:
    """Both come in one turn of the loop, as several reads of a socket do in uvloop."""
    async with served() as (address, handlers, front), raw(address) as client:
        await client.read()
        peer = only(front)
        stream = client.h2.get_next_available_stream_id()
        client.h2.send_headers(stream, with_header(":path", SLOW))
        client.h2.send_data(stream, framed(b""), end_stream=True)
        peer.data_received(client.h2.data_to_send())
        client.h2.reset_stream(stream)
        peer.data_received(client.h2.data_to_send())
        await asyncio.sleep(0.05)
        assert (handlers.begun, peer.busy) == (0, False)


async def test_a_deadline_is_kept_by_the_server_too() -> None:
    """A caller that is cut off cannot give its call up; grpc.aio drops it at its deadline, and so do we."""
    async with served() as (address, handlers, front), raw(address) as client:
        streams = [await client.ask(SLOW, timeout=timeout) for timeout in ("1H", "300m", "100m", "0m")]
        begun = time.monotonic()
        while len(client.of(h2.events.StreamEnded)) < 3:
            assert await client.read()
        assert 0.25 < time.monotonic() - begun < 2
        for stream in streams[1:]:
            (said,) = client.of(h2.events.ResponseReceived, stream)
            assert isinstance(said, h2.events.ResponseReceived) and text(said.headers)["grpc-status"] == "4"
        await eventually(lambda: handlers.cancelled == handlers.begun - 1)
        assert len(front.deadlines) == 1 and not client.of(h2.events.StreamEnded, streams[0])


async def test_deadlines_of_calls_that_ended_are_not_kept() -> None:
    async with served() as (address, _, front), grpc.aio.insecure_channel(address) as channel:
        echo = unary(channel, ECHO)
        await asyncio.gather(*(echo(b"x", timeout=3600) for _ in range(500)))
        assert len(front.deadlines) == 0


async def test_deadlines_pass_in_any_order() -> None:
    class Owner:
        def __init__(self) -> None:
            self.late_at: dict[int, float] = {}

        def late(self, stream: int) -> None:
            self.late_at[stream] = time.monotonic()

    deadlines, owner, now = Deadlines(), Owner(), time.monotonic()
    due = {1: 0.3, 2: 0.05, 3: 0.2, 4: -1.0, 5: 0.05, 6: 0.1}
    for stream, after in due.items():
        deadlines.add((owner, stream), now + after)
    deadlines.discard((owner, 6))
    deadlines.discard((owner, 7))
    await eventually(lambda: len(owner.late_at) == 5)
    assert all(0 <= owner.late_at[s] - now - max(due[s], 0) < 0.2 for s in owner.late_at) and len(deadlines) == 0


@pytest.mark.usefixtures("hurried")
@pytest.mark.parametrize("secure", [False, True])
async def test_who_reads_nothing_is_not_read_and_then_dropped(secure: bool) -> None:
    before, (server, trusting) = _held(), tls_pair(secure)
    async with served(tls=server) as (address, _, front), raw(address, tls=trusting) as client:
        for _ in range(50):
            await client.ask(LARGE)
        await eventually(lambda: len(front.peers) == 1)
        peer = only(front)
        await eventually(lambda: peer._paused_at < float("inf"))
        assert not peer._transport.is_reading() and not peer._transport.is_closing()
        assert peer._transport.get_write_buffer_size() < 1 << 20 and 1 << 20 < held() <= 50 << 20
        async with raw(address, tls=trusting) as other:
            stream = await other.ask(ECHO, b"others")
            while not other.of(h2.events.StreamEnded, stream):
                assert await other.read()
        await eventually(lambda: peer not in front.peers)
        assert held() == before


@pytest.mark.usefixtures("hurried")
async def test_who_never_opens_its_window_is_dropped() -> None:
    before = _held()
    async with served() as (address, _, front), raw(address, window=0) as client:
        stream = await client.ask(ECHO, b"x" * 10_000)
        await eventually(lambda: held() > before)
        while not client.of(h2.events.StreamReset, stream):
            assert await client.read()
        await eventually(lambda: held() == before and not only(front).busy)


@pytest.mark.parametrize("secure", [False, True])
async def test_who_reads_late_has_everything(secure: bool) -> None:
    server, trusting = tls_pair(secure)
    async with served(tls=server) as (address, _, front), raw(address, tls=trusting) as client:
        await client.read()
        bodies = {await client.ask(ECHO, bytes([n]) * 16_000): bytes([n]) * 16_000 for n in range(3)}
        for n in range(3, 250):
            while client.h2.outbound_flow_control_window < 20_000:
                await client.read()
            bodies[await client.ask(ECHO, bytes([n]) * 16_000)] = bytes([n]) * 16_000
        await asyncio.sleep(0.2)
        while len(client.of(h2.events.StreamEnded)) < len(bodies):
            assert await client.read()
        for stream, body in bodies.items():
            parts = client.of(h2.events.DataReceived, stream)
            assert b"".join(p.data for p in parts if isinstance(p, h2.events.DataReceived)) == framed(body)
        assert not only(front).busy


@pytest.mark.usefixtures("hurried")
@pytest.mark.parametrize("said", [b"", b"PRI * HTTP/2.0\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0"])
@pytest.mark.parametrize("tls", [False, True])
async def test_who_never_says_that_it_speaks_http2_is_dropped(said: bytes, tls: bool) -> None:
    async with served(tls=tls_pair(tls)[0]) as (address, _, front):
        reader, writer = await asyncio.open_connection(*address.split(":"))
        writer.write(b"" if tls else said)
        begun = time.monotonic()
        with suppress(ConnectionError):
            while await reader.read(1000):
                pass
        assert time.monotonic() - begun < 3 and not front.peers
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


async def test_who_says_nothing_for_long_is_told_goodbye(monkeypatch: pytest.MonkeyPatch) -> None:
    """By GOAWAY, so that a request under way is known not to have been taken."""
    monkeypatch.setattr(peers, "SILENT_SECONDS", 0.2)
    monkeypatch.setattr(fronts, "SWEEP_SECONDS", 0.01)
    async with served() as (address, _, front), raw(address) as client:
        stream = await client.ask(ECHO)
        while len(client.of(h2.events.ConnectionTerminated)) < 2:
            assert await client.read()
        client.writer.close()  # the server waits for that a while
        told = [e for e in client.events if isinstance(e, h2.events.ConnectionTerminated)]
        assert [(e.error_code, e.last_stream_id) for e in told] == [(0, 2**31 - 1), (0, stream)]
        await eventually(lambda: not front.peers)


async def test_too_many_connections_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fronts, "CONNECTIONS_MAX", 2)
    async with served() as (address, _, front), raw(address) as one:
        async with raw(address) as two:
            assert await one.read() and await two.read()
            reader, writer = await asyncio.open_connection(*address.split(":"))
            with suppress(ConnectionError):
                assert await reader.read() == b""
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()
        await eventually(lambda: len(front.peers) == 1)
        async with raw(address) as next_one:
            assert await next_one.read()


async def test_a_handler_whose_reply_is_none_keeps_nobody_waiting(caplog: pytest.LogCaptureFixture) -> None:
    async def wrong(body: bytes, call: Call) -> bytes:
        return "text"  # type: ignore[return-value]

    front = Front({ECHO: wrong})
    await front.listen("127.0.0.1:0")
    async with grpc.aio.insecure_channel(f"localhost:{front.ports[0]}") as channel:
        failed = await failing(unary(channel, ECHO)(b"x", timeout=20))
        assert failed.code() == grpc.StatusCode.UNAVAILABLE and "bytes" in caplog.text
    await front.stop(5)


async def test_a_file_in_the_place_of_the_socket_stays(tmp_path: Path) -> None:
    place = tmp_path / "socket"
    place.write_text("mine")
    with pytest.raises(OSError, match="socket"):
        await Front({}).listen(f"unix:{place}")
    assert place.read_text() == "mine"


async def test_connections_leave_nothing_behind() -> None:
    """Whole, cut off in the middle of calls, failed: memory after 600 connections is what it was after 300."""

    async def some(address: str, front: Front, count: int) -> None:
        for n in range(count):
            client = Raw(*await asyncio.open_connection(*address.split(":")))
            for path in (ECHO, SLOW, "/s/None", ECHO):
                await client.ask(path, b"x" * 10_000)
            if n % 3 == 0:
                while len(client.of(h2.events.StreamEnded)) < 3:
                    assert await client.read()
            if n % 3 == 1:
                client.writer.write(b"\xff" * 100)
            client.writer.close()
            with suppress(ConnectionError):
                await client.writer.wait_closed()
        await eventually(lambda: not front.peers)

    before = _held()
    async with served() as (address, handlers, front):
        await some(address, front, 300)
        gc.collect()
        kb = resident_kb()
        await some(address, front, 300)
        gc.collect()
        assert resident_kb() - kb < 2900 and held() == before and len(front.deadlines) == 0
        assert sum(type(o) is Peer for o in gc.get_objects()) <= 1
        assert handlers.begun == handlers.cancelled

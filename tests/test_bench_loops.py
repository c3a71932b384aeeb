"""The client of the load benchmarks, against real servers: it counts what it should and leaves nothing out."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count, islice, repeat
from pathlib import Path
from typing import Any, cast

import pytest

pytest.importorskip("bench.client", reason="the load client is not built: make native")
pytest.importorskip("server.native.http2", reason="the native front end is not built: make native")

from bench import echo, machine, third_party
from bench.client import Client
from bench.connections import Target
from bench.contestants import free_address
from bench.loops import closed_loop, open_loop
from bench.serving import listening
from features.application import InvalidFieldError
from server.calls import Call, Handler
from server.native.front import Front

pytestmark = pytest.mark.alone
STALL_SECONDS = 0.3


@asynccontextmanager
async def served(handler: Handler, folder: Path) -> AsyncIterator[Target]:
    front = Front({"/s/Method": handler})
    await front.listen(f"unix:{folder}/s.sock")
    yield Target(f"unix:{folder}/s.sock", "/s/Method")
    await front.stop(1)


async def test_a_closed_loop_counts_each_call_by_its_status(tmp_path: Path) -> None:
    seen: list[bytes] = []

    async def picky(body: bytes, call: Call) -> bytes:
        seen.append(body)
        if int(body) % 5 == 0:
            raise InvalidFieldError("body", "is a multiple of five")
        return body * 2

    async with served(picky, tmp_path) as target:
        result = await closed_loop(target, (b"%d" % n for n in range(1000)), in_flight=16)
    assert result.statuses == {0: 800, 3: 200} and result.failed == 200
    assert sorted(map(int, seen)) == list(range(1000))  # each message once
    assert b"1414" in result.replies and result.answered <= 800
    assert len(result.latency_ms) == len(result.latency_ms[result.latency_ms > 0])


async def test_a_closed_loop_ends_in_time_and_leaves_out_its_warm_up(tmp_path: Path) -> None:
    started = time.perf_counter()
    first: list[float] = []

    async def slow(body: bytes, call: Call) -> bytes:
        first.append(time.perf_counter())
        await asyncio.sleep(0.02)
        return body

    async with served(slow, tmp_path) as target:
        result = await closed_loop(target, repeat(b"x"), in_flight=4, seconds=1.0, warm_up_seconds=0.2)
    assert 1.2 <= time.perf_counter() - started < 5 and result.seconds == pytest.approx(1.0)
    assert 0 < result.answered <= len(first) - 4
    assert result.percentile_ms(0)[0] >= 20


async def test_an_open_loop_counts_from_when_a_call_was_due(tmp_path: Path) -> None:
    numbers = count()

    async def stalls(body: bytes, call: Call) -> bytes:
        if next(numbers) == 100:
            time.sleep(STALL_SECONDS)  # a server that stops; the client is in the same process and stops too
        return body

    async with served(stalls, tmp_path) as target:
        result = await open_loop(target, repeat(b"x"), per_second=500, seconds=1, warm_up_seconds=0)
    assert result.statuses[0] == len(result.latency_ms) == len(result.late_ms) == 500
    # 150 calls were due while nothing was sent or answered: a client that waits for its turn would count one slow call
    assert (result.latency_ms > 1e3 * STALL_SECONDS / 2).sum() >= 40
    assert result.percentile_ms(100)[0] >= 1e3 * STALL_SECONDS * 0.9
    assert result.late_percentile_ms(50) < result.percentile_ms(100)[0]
    assert result.latency_ms.min() > 0 and result.late_ms.min() >= 0  # none is sent, nor answered, before it is due


@pytest.mark.parametrize("per_second", [0.0, 200.0])
async def test_a_load_begins_when_garbage_is_collected(
    per_second: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.loops.gc.collect", lambda: time.sleep(3 * STALL_SECONDS))

    async def echoes(body: bytes, call: Call) -> bytes:
        return body

    async with served(echoes, tmp_path) as target:
        if per_second:
            result = await open_loop(target, repeat(b"x"), per_second, STALL_SECONDS, warm_up_seconds=0)
        else:
            result = await closed_loop(target, repeat(b"x"), in_flight=4, seconds=STALL_SECONDS)
    assert result.answered > 0 and result.seconds > STALL_SECONDS / 2
    assert result.percentile_ms(0)[0] < 1e3 * STALL_SECONDS > result.late_percentile_ms(0)


async def test_calls_never_answered_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.loops.DRAIN_SECONDS", 0.1)

    async def never(body: bytes, call: Call) -> bytes:
        await asyncio.sleep(3600)
        return body

    async with served(never, tmp_path) as target:
        result = await closed_loop(target, repeat(b"x"), in_flight=3, seconds=0.1)
    assert result.statuses == {-1: 3} and result.per_second == 0


@pytest.mark.parametrize("kind", ["grpc", "native", "http"])
async def test_the_echoes(kind: str) -> None:
    address = free_address()
    with listening(echo.command(kind, address, 500), address, machine.SERVER_CORE):
        target = Target(address, "/miaopi.v1.DecisionService/Decide", http=kind == "http")
        result = await closed_loop(target, (b"x" * n for n in range(2000)), in_flight=16)
    assert result.statuses == {0: 2000} and set(result.replies) == {bytes(500)}


async def test_over_http_a_code_is_a_status() -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(65536):
            writer.write(b"HTTP/1.1 503 Busy\r\nContent-Length: 2\r\n\r")
            await writer.drain()
            await asyncio.sleep(0.01)
            writer.write(b"\nno")
        writer.close()
        await writer.wait_closed()
        closed.set()

    closed = asyncio.Event()
    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    result = await closed_loop(Target(f"127.0.0.1:{port}", "/", http=True), iter([b"a", b"b"]), in_flight=1)
    await closed.wait()
    server.close()
    assert result.statuses == {503: 2} and result.replies == [b"no", b"no"]


@pytest.mark.skipif(not third_party.installed(), reason="no h2load here")
async def test_h2load_and_ours_count_the_same(tmp_path: Path) -> None:
    async def fails_often(body: bytes, call: Call) -> bytes:
        if next(numbers) % 4 == 0:
            raise InvalidFieldError("body", "is not wanted now")
        return b"reply"

    front = Front({"/s/Method": fails_often})
    await front.listen("127.0.0.1:0")
    target = Target(f"127.0.0.1:{front.ports[0]}", "/s/Method")
    numbers = count(1)
    found = await third_party.both(target, b"message", calls=2000)
    await front.stop(1)
    assert found["calls"] == found["http_200"] == 2000  # it does not know that a quarter failed
    assert found["grpc_ok"] == 1500 and found["ours_failed"] == 500


def test_a_core_is_kept() -> None:
    import os

    before = os.sched_getaffinity(0)
    with machine.on_load_core():
        assert os.sched_getaffinity(0) == {machine.LOAD_CORE}
    assert os.sched_getaffinity(0) == before
    assert list(islice(machine.on_core(machine.SERVER_CORE), 2)) == ["taskset", "-c"]


def test_a_client_wrongly_made_is_an_error() -> None:
    for _ in range(1000):  # a reference too few each time would take the path's memory away
        with pytest.raises(TypeError):
            Client(b"/s/" + b"Echo" * 3, cast(Any, "text"))
    client = Client(b"/s/Echo", b"x")
    with pytest.raises(RuntimeError):
        cast(Any, client).__init__(b"/s/Echo", b"x")
    unmade: Any = Client.__new__(Client)
    for use in (lambda: unmade.ask(b"x"), lambda: unmade.feed(b"x"), unmade.out):
        with pytest.raises(RuntimeError):
            use()

"""The queue: what is waiting goes together, too many are refused, nobody waits for who is gone."""

import asyncio
from collections.abc import Callable, Sequence

import pytest

from features.application import Application
from features.schema import Schema
from server.batcher import Batcher, Reply
from server.errors import DeadlineError, OverloadedError, UnavailableError
from tests.conftest import application


class Engine:
    """Decides when it is told to; `batches` are the ids it was given."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.go = asyncio.Event()
        self.turn = asyncio.Lock()

    async def decide(self, take: Callable[[], Sequence[Application]]) -> list[Reply | Exception]:
        async with self.turn:
            batch = take()
        if batch:
            self.batches.append([a.application_id for a in batch])
        await self.go.wait()
        return [
            ValueError(a.application_id) if a.application_id.startswith("bad") else Reply(a.application_id.encode(), "")
            for a in batch
        ]


def queued(engine: Engine, **limits: float) -> Batcher:
    return Batcher(engine.decide, int(limits.get("batch", 4)), int(limits.get("queue", 100)), limits.get("least_ms", 2))


async def test_waiting_ones_go_together(consumer: Schema) -> None:
    engine = Engine()
    batcher = queued(engine)
    tasks = []
    for i in range(12):
        tasks.append(asyncio.create_task(batcher.submit(application(consumer, f"a{i}"), None)))
        if i < 2:
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.01)
    assert engine.batches == [["a0"], ["a1"]]  # two in flight, the rest waits
    engine.go.set()
    replies = await asyncio.gather(*tasks)
    assert [r.body for r in replies] == [f"a{i}".encode() for i in range(12)]
    assert [len(b) for b in engine.batches] == [1, 1, 4, 4, 2]
    assert "queue" in replies[5].stage_us


async def test_those_that_come_one_by_one_go_together_under_load(consumer: Schema) -> None:
    """As grpc.aio brings them: a call a turn of the loop. The first of all waits for nobody."""
    engine = Engine()
    batcher = queued(engine, batch=64)
    tasks = []
    for i in range(9):
        tasks.append(asyncio.create_task(batcher.submit(application(consumer, f"a{i}"), None, one_by_one=True)))
        for _ in range(3):
            await asyncio.sleep(0)
        if i == 0:
            assert engine.batches == [["a0"]]
    await asyncio.sleep(0.05)
    assert engine.batches[0] == ["a0"] and len(engine.batches[1]) > 1
    engine.go.set()
    assert [r.body for r in await asyncio.gather(*tasks)] == [f"a{i}".encode() for i in range(9)]
    assert sum(map(len, engine.batches)) == 9


async def test_who_comes_alone_waits_for_nobody_for_long(consumer: Schema) -> None:
    engine = Engine()
    engine.go.set()
    batcher = queued(engine)
    for i in range(3):
        reply = await batcher.submit(application(consumer, f"a{i}"), None, one_by_one=True)
        assert int(reply.stage_us.split(",")[0].removeprefix("queue=")) < 50_000
    assert engine.batches == [["a0"], ["a1"], ["a2"]]


async def test_each_gets_its_own_error(consumer: Schema) -> None:
    engine = Engine()
    engine.go.set()
    batcher = queued(engine)
    names = ["good", "bad", "fine"]
    results = await asyncio.gather(
        *(batcher.submit(application(consumer, n), None) for n in names), return_exceptions=True
    )
    assert isinstance(results[1], ValueError) and isinstance(results[0], Reply) and isinstance(results[2], Reply)


async def test_a_failed_batch_tells_every_caller(consumer: Schema) -> None:
    async def fail(_: Callable[[], Sequence[Application]]) -> list[Reply | Exception]:
        raise UnavailableError("no store")

    batcher = Batcher(fail, 4, 100, 2)
    results = await asyncio.gather(
        *(batcher.submit(application(consumer, f"a{i}"), None) for i in range(3)), return_exceptions=True
    )
    assert all(isinstance(r, UnavailableError) for r in results)


async def test_full_queue_is_refused(consumer: Schema) -> None:
    engine = Engine()
    batcher = queued(engine, batch=1, queue=2)
    tasks = []
    for i in range(4):
        tasks.append(asyncio.create_task(batcher.submit(application(consumer, f"a{i}"), None)))
        await asyncio.sleep(0.005)
    with pytest.raises(OverloadedError):
        await batcher.submit(application(consumer, "one too many"), None)
    engine.go.set()
    assert len(await asyncio.gather(*tasks)) == 4


async def test_too_late_and_gone_are_not_begun(consumer: Schema) -> None:
    engine = Engine()
    batcher = queued(engine)
    busy = [asyncio.create_task(batcher.submit(application(consumer, f"busy{i}"), None)) for i in range(1)]
    await asyncio.sleep(0.005)
    busy.append(asyncio.create_task(batcher.submit(application(consumer, "busy1"), None)))
    await asyncio.sleep(0.005)
    late = asyncio.create_task(batcher.submit(application(consumer, "late"), 0.01))
    gone = asyncio.create_task(batcher.submit(application(consumer, "gone"), None))
    await asyncio.sleep(0.05)
    gone.cancel()
    await asyncio.sleep(0)
    engine.go.set()
    with pytest.raises(DeadlineError):
        await late
    await asyncio.gather(*busy)
    await batcher.drain()
    assert engine.batches == [["busy0"], ["busy1"]]


async def test_a_caller_gone_after_begin_cancels_nothing(consumer: Schema) -> None:
    engine = Engine()
    batcher = queued(engine)
    one = asyncio.create_task(batcher.submit(application(consumer, "gone"), None))
    other = asyncio.create_task(batcher.submit(application(consumer, "stays"), None))
    await asyncio.sleep(0.01)
    one.cancel()
    engine.go.set()
    assert (await other).body == b"stays" and engine.batches == [["gone", "stays"]]


async def test_drain_answers_what_was_taken(consumer: Schema) -> None:
    engine = Engine()
    batcher = queued(engine, batch=1)
    tasks = [asyncio.create_task(batcher.submit(application(consumer, f"a{i}"), None)) for i in range(5)]
    await asyncio.sleep(0.01)
    draining = asyncio.create_task(batcher.drain())
    await asyncio.sleep(0)
    with pytest.raises(UnavailableError):
        await batcher.submit(application(consumer, "after"), None)
    engine.go.set()
    assert len(await asyncio.gather(*tasks)) == 5
    await draining


async def test_who_gave_up_before_the_turn_came_is_not_begun(consumer: Schema) -> None:
    """While the sequencer is held up (a slow store), a batch is not fixed: the late and the gone drop out of it."""
    engine = Engine()
    engine.go.set()
    batcher = queued(engine)
    await engine.turn.acquire()
    late = asyncio.create_task(batcher.submit(application(consumer, "late"), 0.02))
    gone = asyncio.create_task(batcher.submit(application(consumer, "gone"), None))
    stays = asyncio.create_task(batcher.submit(application(consumer, "stays"), None))
    await asyncio.sleep(0.05)
    gone.cancel()
    await asyncio.sleep(0)
    engine.turn.release()
    assert (await stays).body == b"stays" and engine.batches == [["stays"]]
    with pytest.raises(DeadlineError):
        await late


async def test_one_who_cannot_be_told_keeps_nobody_from_hearing(consumer: Schema) -> None:
    """Whatever a caller's transport raises: in a batch as among those who are too late for one."""
    engine = Engine()
    batcher = queued(engine, batch=8)
    await engine.turn.acquire()
    heard: list[str] = []

    def deaf(_: Reply | Exception) -> None:
        raise RuntimeError("no such connection")

    def ask(name: str, seconds_left: float | None, hears: bool) -> None:
        batcher.put(application(consumer, name), seconds_left, (lambda _: heard.append(name)) if hears else deaf)

    for name, seconds_left in (("first", None), ("late", 0.005), ("second", None)):
        ask(name, seconds_left, True)
        ask(f"deaf {name}", seconds_left, False)
        ask(f"after {name}", seconds_left, True)
    await asyncio.sleep(0.02)
    engine.turn.release()
    engine.go.set()
    await batcher.drain()
    assert heard == ["late", "after late", "first", "after first", "second", "after second"]
    assert engine.batches == [["first", "deaf first", "after first", "second", "deaf second", "after second"]]

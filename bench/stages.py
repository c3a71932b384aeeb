"""Where a decision's CPU goes: microseconds of this process by stage, without a transport, at several batch sizes.

The real service, engine and queue over an embedded store; one batch at a time, so that what is counted is its own. The
stages sum to the whole: `rest` is what no stage has, the way back to the callers above all. The store's CPU is told
apart. It is CPU and not time: what waits for the store or another process costs nothing here.
"""

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Any

import uvloop
from redis.asyncio import Redis
from rich.table import Table

from bench import load, machine, payloads
from bench.inside import NoTransport, engines
from bench.load import outcomes, share_not_approved
from bench.payloads import Payloads
from bench.serving import SECRET
from features.application import Application
from features.embedded import embedded_store
from server.batcher import Batcher, Reply, Waiting
from server.calls import Handler
from server.clock import Clock
from server.service import Service
from server.settings import Settings

SIZES = (1, 8, 32, 64)
ROUNDS = 5
WARM_UP = 10  # batches of each size
TENANT = "demo"
CHECK, QUEUE, REST, WHOLE = "parse and check", "queue", "rest", "whole"

Decide = Callable[[Callable[[], Sequence[Application]]], Awaitable[list[Reply | Exception]]]


@dataclass
class Spent:
    """CPU seconds of a batch, by stage; `asked`: when the call that runs now began."""

    by_stage: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    asked: float = 0.0
    started: float = 0.0


class TimedBatcher(Batcher):
    """Notes what was spent before an application is queued, and until its batch is taken."""

    def __init__(self, spent: Spent, decide: Decide, settings: Settings) -> None:
        super().__init__(self._timed(decide), settings.batch_max, settings.queue_max, settings.deadline_min_ms)
        self._spent = spent

    def put(
        self, application: Application, seconds_left: float | None, done: Callable[[Reply | Exception], None],
        one_by_one: bool = False,
    ) -> Waiting:  # fmt: skip
        self._spent.by_stage[CHECK] += _cpu() - self._spent.asked
        return super().put(application, seconds_left, done, one_by_one)

    def _timed(self, decide: Decide) -> Decide:
        async def timed(take: Callable[[], Sequence[Application]]) -> list[Reply | Exception]:
            def taken() -> Sequence[Application]:
                batch, spent = take(), self._spent
                spent.by_stage[QUEUE] += _cpu() - spent.started - spent.by_stage[CHECK]
                return batch

            replies = await decide(taken)
            if isinstance(first := replies[0], Exception):
                raise first
            for stage, us in (pair.split("=") for pair in first.stage_us.split(",")):
                self._spent.by_stage[stage] += float(us) / 1e6
            return replies

        return timed


def run(decisions: int, product: str, applications: int) -> dict[str, Any]:
    """Figures of the last line; decisions: of each size and round."""
    people = payloads.firsts(applications, product)
    with machine.on_load_core(), embedded_store() as url:
        # this process is what is measured, the store is not
        machine.move_here(machine.SERVER_CORE)
        found, store_us, mix = uvloop.run(measure(url, people, decisions))
    _show(found)
    by_size = {str(size): {name: round(us, 2) for name, us in stages.items()} for size, stages in found.items()}
    return {
        "us_per_decision": by_size, "store_us_per_decision": store_us, "outcomes": mix,
        "not_approved": share_not_approved(mix), "product": product or "all",
    } | machine.facts()  # fmt: skip


async def measure(
    url: str, people: Sequence[payloads.First], decisions: int
) -> tuple[dict[int, dict[str, float]], dict[str, float], dict[str, int]]:
    """By batch size µs a decision of each stage; by batch size the store's; decisions by outcome."""
    settings = Settings(REDIS_URL=url, token_secrets={TENANT: SECRET})
    async with Redis.from_url(url) as redis, engines(settings) as (tenants, products):
        stream, spent = Payloads(people, TENANT, payloads.direct(redis, TENANT)), Spent()
        tenant = tenants[TENANT]
        timed = replace(tenant, batcher=TimedBatcher(spent, tenant.engine.decide, settings))
        call = Service({TENANT: timed}, products, replaying=False).unary()["Decide"]
        seen: dict[int, list[dict[str, float]]] = defaultdict(list)
        store: dict[int, list[float]] = defaultdict(list)
        mix: Counter[str] = Counter()
        Clock.now = staticmethod(_cpu)
        try:
            for number in range(ROUNDS + 1):  # the first warms up
                for size in SIZES:
                    batches = WARM_UP if number == 0 else max(decisions // size, 1)
                    requests = await stream.take(batches * size)
                    before = await load.store_seconds(redis)
                    stages, replies = await _round(call, spent, requests, size)
                    if number:
                        seen[size].append(stages)
                        store[size].append((await load.store_seconds(redis) - before) / len(requests) * 1e6)
                        mix.update(outcomes(replies))
        finally:
            Clock.now = staticmethod(time.perf_counter)
    medians = {size: _medians(rounds) for size, rounds in seen.items()}
    return medians, {str(size): round(median(us), 2) for size, us in store.items()}, dict(sorted(mix.items()))


async def _round(
    call: Handler, spent: Spent, requests: Sequence[bytes], size: int
) -> tuple[dict[str, float], list[bytes]]:
    """Microseconds a decision by stage, and the replies."""
    total: dict[str, float] = defaultdict(float)
    replies: list[bytes] = []

    async def one(body: bytes) -> bytes:
        spent.asked = _cpu()
        return await call(body, NoTransport())

    for at in range(0, len(requests), size):
        spent.by_stage.clear()
        spent.started = _cpu()
        replies += await asyncio.gather(*(one(body) for body in requests[at : at + size]))
        whole = _cpu() - spent.started
        for stage, seconds in spent.by_stage.items():
            total[stage] += seconds
        total[REST] += whole - sum(spent.by_stage.values())
        total[WHOLE] += whole
    return {stage: seconds / len(requests) * 1e6 for stage, seconds in total.items()}, replies


def _medians(rounds: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Of each stage over the rounds, and what is left so that they sum to the median of the whole."""
    stages = {name: median(one[name] for one in rounds) for name in rounds[0] if name not in (REST, WHOLE)}
    whole = median(one[WHOLE] for one in rounds)
    return stages | {REST: whole - sum(stages.values()), WHOLE: whole}


def _cpu() -> float:
    """CPU seconds of this process, all threads."""
    return time.process_time()


def _show(found: Mapping[int, Mapping[str, float]]) -> None:
    table = Table("µs of CPU a decision", *(f"batch {size}" for size in found))
    for stage in next(iter(found.values())):
        table.add_row(stage, *(f"{stages[stage]:.1f}" for stages in found.values()))
    load.console.print(table)

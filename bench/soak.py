"""An hour at half of saturation: does the memory grow, the tail, do errors come?

A server keeps every entity it has met and a store every decision, so that an hour of ever new people fits in no memory.
Here a bounded population applies again and again, and between the minutes what was decided is removed from the store,
as no lender would. What then still grows is a leak. Most of these decisions are for a person to review: who applies
again and again is suspect. The steps are those of any other.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import count, cycle
from typing import Any

import numpy as np
import uvloop
from redis.asyncio import Redis
from rich.progress import track
from rich.table import Table

from bench import load, machine, payloads
from bench.connections import Target
from bench.latency import saturated
from bench.load import Server
from bench.loops import open_loop
from bench.payloads import SERVICE, First, Payloads
from features.log import prefix
from proto.miaopi.v1 import decision_pb2 as pb

SHARE = 0.5
TENANT = "demo"
POPULATION = 5000
MINUTE_SECONDS = 60.0
MINUTES_LEAST = 3  # a shorter soak has shorter ones: a slope needs points
SATURATION_SECONDS = 2.0
KEPT = 50_000  # events, and decisions, in the store
REMOVED_AT_ONCE = 1000
WARMING_SHARE = 6  # the first sixth of the minutes does not count for the slope


@dataclass(frozen=True)
class Minute:
    """What one minute showed; memory at its end."""

    rss_mb: float
    store_mb: float
    decisions: int
    p50_ms: float
    p99_ms: float
    failed: int


def run(minutes: float, transport: str, product: str, applications: int) -> dict[str, Any]:
    """Figures of the last line."""
    with load.own_server(transport) as server:
        people = payloads.firsts(applications, product)[:POPULATION]
        saturation, seen = uvloop.run(measure(server, people, minutes))
    _show(seen)
    rate = {"per_second": round(SHARE * saturation), "saturation_per_second": round(saturation)}
    return figures(seen, minutes) | rate | {"transport": transport} | machine.facts()


async def measure(server: Server, people: Sequence[First], minutes: float) -> tuple[float, list[Minute]]:
    """Saturation, decisions a second, and the minutes that followed."""
    async with Redis.from_url(server.redis_url) as redis:
        stream = Payloads(people, TENANT, payloads.direct(redis, TENANT))
        seconds = min(MINUTE_SECONDS, 60 * minutes / MINUTES_LEAST)
        saturation = await saturated(server, stream, redis, min(SATURATION_SECONDS, seconds))
        messages = _again(await stream.take(len(people)))
        target, seen = Target(server.address, f"{SERVICE}/Decide"), []
        for _ in track(range(max(round(60 * minutes / seconds), MINUTES_LEAST)), "soak"):
            result = await open_loop(target, messages, SHARE * saturation, seconds, 0)
            p50, p99 = result.percentile_ms(50, 99)
            store_mb = float((await redis.info("memory"))["used_memory"]) / 1e6
            seen.append(Minute(machine.rss_mb(server.pid), store_mb, result.answered, p50, p99, result.failed))
            await _clear(redis)
        return saturation, seen


def figures(seen: Sequence[Minute], minutes: float) -> dict[str, Any]:
    """Of the minutes: how memory and tail went, in MB an hour after warm-up."""
    settled = seen[len(seen) // WARMING_SHARE :]
    hours = np.arange(len(settled)) * minutes / len(seen) / 60
    return {
        "minutes": minutes, "decisions": sum(m.decisions for m in seen), "errors": sum(m.failed for m in seen),
        "rss_slope_mb_per_hour": round(float(np.polyfit(hours, [m.rss_mb for m in settled], 1)[0]), 2),
        "rss_first_mb": round(settled[0].rss_mb, 1), "rss_last_mb": round(settled[-1].rss_mb, 1),
        "p50_first_ms": settled[0].p50_ms, "p50_last_ms": settled[-1].p50_ms,
        "p99_first_ms": settled[0].p99_ms, "p99_last_ms": settled[-1].p99_ms,
        "p99_worst_ms": max(m.p99_ms for m in settled),
    }  # fmt: skip


def _again(requests: Sequence[bytes]) -> Iterator[bytes]:
    """The same applications without end, each time under another id."""
    bodies = []
    for request in map(pb.DecideRequest.FromString, requests):
        request.ClearField("application_id")
        bodies.append(request.SerializeToString())
    for number, body in zip(count(), cycle(bodies)):
        yield body + b"\n\x0c%012d" % number  # application_id is field 1; fields may come in any order


async def _clear(redis: Redis) -> None:
    """Remove all but the last of log, decisions and reviews."""
    log, decided, reviews = (f"{prefix(TENANT)}{name}" for name in ("log", "decisions", "reviews"))
    await redis.xtrim(log, maxlen=KEPT, approximate=False)
    while (left := await redis.xlen(decided) - KEPT) > 0:
        oldest: Any = await redis.xrange(decided, count=min(left, REMOVED_AT_ONCE))
        await redis.unlink(*(entry[b"k"] for _, entry in oldest))
        await redis.xtrim(decided, maxlen=KEPT + left - len(oldest), approximate=False)
    await redis.zremrangebyrank(reviews, 0, -KEPT - 1)


def _show(seen: Sequence[Minute]) -> None:
    table = Table("minute", *asdict(seen[0]))
    for number, minute in enumerate(seen, 1):
        table.add_row(str(number), *(f"{value:,.2f}" if isinstance(value, float) else f"{value:,}"
                                     for value in asdict(minute).values()))  # fmt: skip
    load.console.print(table)

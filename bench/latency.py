"""How long a decision takes, full path: at 45 % of the saturation found in the same run, and at an ordinary lender's
100 requests a second.

Open loop: a call's latency counts from when it was due. Saturation is the median of closed loops of 64 calls.
"""

from collections.abc import Sequence
from statistics import median
from typing import Any

import uvloop
from redis.asyncio import Redis

from bench import load, machine, payloads
from bench.load import Asked, Server
from bench.payloads import Payloads

SHARE = 0.45
ORDINARY_PER_SECOND = 100
CLOSED_ROUNDS, CLOSED_SECONDS, IN_FLIGHT = 3, 2.0, 64


def run(transport: str, product: str, applications: int, seconds: float) -> dict[str, Any]:
    """Figures of the last line; seconds: of each open loop."""
    with load.own_server(transport) as server:
        figures = uvloop.run(measure(server, payloads.firsts(applications, product), seconds))
    load.show(figures)
    return figures | {"transport": transport} | machine.facts()


async def measure(server: Server, people: Sequence[payloads.First], seconds: float) -> dict[str, Any]:
    """Of a server of our own."""
    async with Redis.from_url(server.redis_url) as redis:
        stream = Payloads(people, "demo", payloads.direct(redis, "demo"))
        saturation = await saturated(server, stream, redis, min(CLOSED_SECONDS, seconds))
        figures: dict[str, Any] = {"saturation_per_second": round(saturation)}
        for name, rate in (("at_45_percent", SHARE * saturation), ("ordinary", float(ORDINARY_PER_SECOND))):
            asked = Asked(IN_FLIGHT, rate, seconds, min(1.0, seconds))
            result, busy = await load.under_load(server, stream, asked, 0, redis)
            p50, p99, p999 = result.percentile_ms(50, 99, 99.9)
            figures |= {
                f"{name}_per_second": round(rate), f"{name}_calls": len(result.latency_ms),
                f"{name}_p50_ms": p50, f"{name}_p99_ms": p99, f"{name}_p999_ms": p999,
                f"{name}_sent_late_p99_ms": result.late_percentile_ms(99), f"{name}_failed": result.failed,
                f"{name}_client_and_store_busy": round(busy.client + busy.store, 2),
            }  # fmt: skip
        return figures


async def saturated(server: Server, stream: Payloads, redis: Redis, seconds: float) -> float:
    """Decisions a second that the server gives with IN_FLIGHT calls always open."""
    asked = Asked(IN_FLIGHT, 0, seconds, seconds / 4)
    _, expected = await load.rehearse(server, stream, asked)
    found: list[float] = []
    for _ in range(CLOSED_ROUNDS):
        result, _ = await load.under_load(server, stream, asked, expected, redis)
        found.append(expected := result.per_second)
    return median(found)

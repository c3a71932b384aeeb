"""Decisions a second, latency and memory as the log grows: the same load on servers that start with ever more in it.

The open loop has one rate for all, 45 % of what saturates the first, so that their latencies compare.
"""

import asyncio
import math
from collections.abc import Sequence
from typing import Any

import uvloop
from redis.asyncio import Redis
from rich.table import Table

from bench import load, machine, payloads, restart
from bench.latency import SHARE, saturated
from bench.load import Asked, Server
from bench.payloads import First, Payloads
from bench.serving import server_process
from features.embedded import embedded_store

FEWEST = 10_000
CLOSED_SECONDS, OPEN_SECONDS = 2.0, 10.0


def run(applications: int, transport: str, product: str) -> dict[str, Any]:
    """Figures of the last line, by applications in the log before: FEWEST, then ten times as many up to the last."""
    stored = [FEWEST * 10**n for n in range(max(round(math.log10(applications / FEWEST)), 0))] + [applications]
    people, found, rate = payloads.firsts(product=product), dict[str, dict[str, float]](), 0.0
    native = transport == "native"
    for before in stored:
        with machine.on_load_core(), embedded_store() as url:
            asyncio.run(restart.fill(url, before))
            with server_process(url, tenant=restart.TENANT, native=native, core=machine.SERVER_CORE) as (
                address,
                process,
            ):
                figures = uvloop.run(measure(Server(address, url, process.pid), people, rate, OPEN_SECONDS))
        rate = figures["per_second"]
        found[str(before)] = figures
    _show(found)
    return {"by_stored": found, "transport": transport, "product": product or "all"} | machine.facts()


async def measure(server: Server, people: Sequence[First], rate: float, seconds: float) -> dict[str, float]:
    """Of one server. rate: of the open loop, a second; 0 for SHARE of what saturates it."""
    async with Redis.from_url(server.redis_url) as redis:
        stream = Payloads(people, restart.TENANT, payloads.direct(redis, restart.TENANT))
        saturation = await saturated(server, stream, redis, min(CLOSED_SECONDS, seconds))
        rate = rate or round(SHARE * saturation)
        result, _ = await load.under_load(server, stream, Asked(0, rate, seconds, min(1.0, seconds)), 0, redis)
        p50, p99 = result.percentile_ms(50, 99)
        store_mb = float((await redis.info("memory"))["used_memory"]) / 1e6
    return {
        "saturation_per_second": round(saturation), "per_second": rate, "p50_ms": p50, "p99_ms": p99,
        "failed": result.failed, "rss_mb": round(machine.rss_mb(server.pid)), "store_mb": round(store_mb),
    }  # fmt: skip


def _show(found: dict[str, dict[str, float]]) -> None:
    table = Table("applications stored", *next(iter(found.values())))
    for before, figures in found.items():
        table.add_row(f"{int(before):,}", *(f"{value:,}" for value in figures.values()))
    load.console.print(table)

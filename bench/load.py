"""Load on a running server, or on one of its own beside an embedded store: closed loop for throughput, open loop for
latency. What the client itself can do is shown by an echo that does nothing, asked the same on the same cores.
"""

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import uvloop
from redis.asyncio import Redis
from rich.console import Console
from rich.table import Table

from bench import machine, payloads
from bench.connections import Target
from bench.echo import command as echo
from bench.loops import Result, closed_loop, open_loop
from bench.payloads import SERVICE, Payloads
from bench.serving import listening, server_process
from features.embedded import embedded_store
from proto.miaopi.v1 import decision_pb2 as pb

BATCH = 64  # applications of a BatchDecide
REHEARSED = 2000  # applications before anything is measured
SPARE = 1.5  # times what it needs: a load must not run out
COLD = 3.0  # times as fast as in its rehearsal a server may be; or as often again
LASTED = 0.99  # of the seconds asked for; a load that did not is put on again, with more
APPLICATIONS_MAX = 500_000  # of one load, by the memory of client and store
CEILING_SECONDS = 1.0

console = Console()


@dataclass(frozen=True)
class Server:
    """Whom load is put on: where it listens and, of one of our own, where its store is and which process it is."""

    address: str
    redis_url: str = ""
    pid: int = 0


@dataclass(frozen=True)
class Asked:
    """What is asked of it. per_second: of an open loop, 0 for a closed one. per_call: applications of a call."""

    in_flight: int
    per_second: float
    seconds: float
    warm_up_seconds: float
    per_call: int = 1

    @property
    def path(self) -> str:
        """Of the method."""
        return f"{SERVICE}/{'Decide' if self.per_call == 1 else 'BatchDecide'}"


@dataclass(frozen=True)
class Busy:
    """Shares of a core that client and store took during a load; together on one core, 1 is all there is."""

    client: float
    store: float


@contextmanager
def own_server(transport: str) -> Iterator[Server]:
    """A server pinned to its core, an embedded store and this process on the other."""
    native = transport == "native"
    with machine.on_load_core(), embedded_store() as url, ExitStack() as stack:
        address, process = stack.enter_context(server_process(url, native=native, core=machine.SERVER_CORE))
        yield Server(address, url, process.pid)


def run(address: str, tenant: str, transport: str, product: str, applications: int, asked: Asked) -> dict[str, Any]:
    """Figures of the last line; without an address a server is started."""
    with ExitStack() as stack:
        if address:
            stack.enter_context(machine.on_load_core())
            server = Server(address)
        else:
            server = stack.enter_context(own_server(transport))
        return uvloop.run(measure(server, tenant, payloads.firsts(applications, product), asked)) | {
            "transport": transport
        }


async def measure(server: Server, tenant: str, people: Sequence[payloads.First], asked: Asked) -> dict[str, Any]:
    """Of a server that runs; shows the table."""
    redis = Redis.from_url(server.redis_url) if server.redis_url else None
    put = payloads.direct(redis, tenant) if redis else payloads.by_rpc(server.address, tenant)
    stream = Payloads(people, tenant, put)
    rehearsed, expected = await rehearse(server, stream, asked)
    result, busy = await under_load(server, stream, asked, expected, redis)
    sizes = [len(reply) for reply in rehearsed.replies]
    ceiling = await _ceiling(asked, await messages(stream, asked.per_call, 256), round(sum(sizes) / len(sizes)))
    if redis:
        await redis.aclose()
    figures = figures_of(result, asked.per_call) | {
        "in_flight": 0 if asked.per_second else asked.in_flight, "asked_per_second": asked.per_second,
        "seconds": round(result.seconds, 2), "client_ceiling_per_second": round(ceiling * asked.per_call),
        "client_busy": round(busy.client, 2), "store_busy": round(busy.store, 2),
    }  # fmt: skip
    show(figures)
    return figures | machine.facts()


async def rehearse(server: Server, stream: Payloads, asked: Asked) -> tuple[Result, float]:
    """A first load, until it has loaded and compiled all that it needs, and how many applications a second may be
    expected from then on. Raises where it refuses.
    """
    some = await messages(stream, asked.per_call, REHEARSED)
    target = Target(server.address, asked.path)
    await closed_loop(target, iter(some[: len(some) // 2]), asked.in_flight)
    result = await closed_loop(target, iter(some[len(some) // 2 :]), asked.in_flight)
    if result.failed or (told := outcomes(result.replies, asked.per_call)).get("error"):
        raise RuntimeError(f"the server refuses: {dict(result.statuses)} by gRPC status, {told}")
    return result, COLD * result.per_second * asked.per_call


async def under_load(
    server: Server, stream: Payloads, asked: Asked, expected_per_second: float, redis: Redis | None
) -> tuple[Result, Busy]:
    """The load, and what client and store took of their core."""
    seconds = asked.seconds + asked.warm_up_seconds
    needed = min(round((asked.per_second or SPARE * expected_per_second) * seconds) + BATCH, APPLICATIONS_MAX)
    some = iter(await messages(stream, asked.per_call, needed))
    target, before = Target(server.address, asked.path), (time.process_time(), await store_seconds(redis))
    began = time.perf_counter()
    if asked.per_second:
        rate = asked.per_second / asked.per_call
        result = await open_loop(target, some, rate, asked.seconds, asked.warm_up_seconds)
    else:
        result = await closed_loop(target, some, asked.in_flight, asked.seconds, asked.warm_up_seconds)
    wall = time.perf_counter() - began
    client, store = time.process_time() - before[0], await store_seconds(redis) - before[1]
    if result.seconds < LASTED * asked.seconds and not asked.per_second and needed < APPLICATIONS_MAX:
        return await under_load(server, stream, asked, COLD * expected_per_second, redis)
    return result, Busy(client / wall, store / wall)


async def messages(stream: Payloads, per_call: int, applications: int) -> list[bytes]:
    """The calls for so many applications."""
    some = await stream.take(max(applications, per_call))
    return some if per_call == 1 else payloads.batches(some, per_call)


async def _ceiling(asked: Asked, some: Sequence[bytes], reply_bytes: int) -> float:
    """Calls a second that the client brings from an echo on the server's core."""
    with TemporaryDirectory(prefix="miaopi-") as folder:
        address = f"unix:{Path(folder) / 'echo.sock'}"
        with listening(echo("native", address, reply_bytes), address, machine.SERVER_CORE):
            in_flight = max(asked.in_flight, 1)
            return (await closed_loop(
                Target(address, asked.path), cycle(some), in_flight, CEILING_SECONDS, CEILING_SECONDS / 4
            )).per_second  # fmt: skip


async def store_seconds(redis: Redis | None) -> float:
    """CPU that a store has taken; 0 of none."""
    if redis is None:
        return 0.0
    told = await redis.info("cpu")
    return float(told["used_cpu_user"]) + float(told["used_cpu_sys"])


def outcomes(replies: Sequence[bytes], per_call: int = 1) -> dict[str, int]:
    """Decisions by outcome; error: items of a batch that were refused."""
    found: Counter[str] = Counter()
    for reply in filter(None, replies):
        if per_call == 1:
            found[_name(pb.DecideResponse.FromString(reply).outcome)] += 1
        else:
            for item in pb.BatchDecideResponse.FromString(reply).results:
                found["error" if item.HasField("error") else _name(item.decision.outcome)] += 1
    return dict(sorted(found.items()))


def _name(outcome: pb.Outcome) -> str:
    return pb.Outcome.Name(outcome).removeprefix("OUTCOME_").lower()


def figures_of(result: Result, per_call: int = 1) -> dict[str, Any]:
    """Of one load."""
    mix = outcomes(result.replies, per_call)
    p50, p90, p99, p999, worst = result.percentile_ms(50, 90, 99, 99.9, 100)
    figures: dict[str, Any] = {
        "decisions_per_second": round(result.per_second * per_call), "calls": sum(result.statuses.values()),
        "p50_ms": p50, "p90_ms": p90, "p99_ms": p99, "p999_ms": p999, "max_ms": worst,
        "by_grpc_status": {str(status): n for status, n in sorted(result.statuses.items()) if n},
        "outcomes": mix, "not_approved": share_not_approved(mix),
    }  # fmt: skip
    if len(result.late_ms):
        figures["sent_late_p99_ms"] = result.late_percentile_ms(99)
    return figures


def share_not_approved(mix: dict[str, int]) -> float:
    """Of decisions by outcome."""
    return round(1 - (mix.get("approve", 0) + mix.get("limit", 0)) / max(sum(mix.values()), 1), 3)


def show(figures: dict[str, Any]) -> None:
    """A table of two columns."""
    table = Table("figure", "value")
    for name, value in figures.items():
        table.add_row(name, f"{value:,}" if isinstance(value, int) else str(value))
    console.print(table)

"""The service on each transport against a bare grpc.aio echo, and against peers that decide with the same engine.

One run: the same applications in the same store with the same bundles, every server on the same core, client and store
on the other, in turn, round by round; figures are medians, ratios are medians of each round's. Only who is measured is
awake. Over gRPC calls are multiplexed on four connections, over HTTP/1.1 each has its own.
"""

import asyncio
import importlib.util
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import cycle, islice
from statistics import mean, median
from typing import Any

import uvloop
from redis.asyncio import Redis
from rich.progress import track
from rich.table import Table

from bench import contestants, load, machine, payloads, third_party
from bench.contestants import BATCH_CALLS, LEVELS, PEERS, PEERS_PYTHON, Contestant
from bench.loops import Result, closed_loop
from bench.payloads import First
from bench.serving import START_SECONDS
from features.embedded import embedded_store

WARM_UP_SHARE = 0.25
REHEARSED = 1500  # decisions before anything is measured
CLIENT_CALLS = 20_000  # of each client, where ours is compared with h2load
ECHOED = 4096  # different messages of an echo
SPARE = 1.5  # times what the round before needed
RATIOS = {  # over whom, and with how many calls in flight
    "native_over_echo": ("native", "echo", 64), "default_over_echo": ("default", "echo", 64),
    "batch_over_echo": ("batch", "echo", 64),
    **{f"native_over_{peer}": ("native", peer, 32) for peer in PEERS},
    **{f"native_over_{peer}_64": ("native", peer, 64) for peer in PEERS},
}  # fmt: skip


def run(rounds: int, seconds: float, product: str, applications: int, peers: bool) -> dict[str, Any]:
    """Figures of the last line; seconds: of each round of each."""
    installed = PEERS_PYTHON.exists()
    if peers and not installed:
        load.console.print("peers are left out: .venv-peers is missing, make peers")
    native = importlib.util.find_spec("server.native.http2") is not None
    if not native:
        load.console.print("the native front end is left out: it is not built, make native")
    names = PEERS if peers and installed else ()
    people = payloads.firsts(applications, product)
    with machine.on_load_core(), embedded_store() as url:
        figures = uvloop.run(measure(url, people, names, native, rounds, seconds))
    return figures | {"product": product or "all"} | machine.facts() | {
        "peer_versions": contestants.peer_versions() if names else {}
    }  # fmt: skip


async def measure(
    url: str, people: Sequence[First], peers: Sequence[str], native: bool, rounds: int, seconds: float
) -> dict[str, Any]:
    """What was found, in a store at `url`; shows the table. peers: who of them takes part; native: is it built?"""
    async with Redis.from_url(url) as redis:
        with ExitStack() as stack:
            found = contestants.service(stack, url, redis, people, native)
            told = [await _rehearse(one) for one in found]
            reply_bytes = round(mean(map(len, told[0].replies)))
            same = [first.request.SerializeToString() for first in people[:ECHOED]]
            more = contestants.echoes(stack, same, native, reply_bytes)
            more += [one for name in peers for one in contestants.peer(stack, name, url, redis, people)]
            told += [await _rehearse(one) for one in more]
            found += more
            expected = [load.COLD * result.per_second * one.per_call for one, result in zip(found, told, strict=True)]
            seen = _Seen({id(one): rate for one, rate in zip(found, expected, strict=True)})
            turns = [(level, one) for level in LEVELS for one in found if level in one.levels]
            for number in track(range(rounds * len(turns)), "compare", console=load.console):
                # each round begins with another, so that nobody always comes first
                level, one = turns[(number + number // len(turns)) % len(turns)]
                await _turn(one, level, seconds, redis, seen)
            clients = await _clients(found)
    rates = _rates(found)
    _show(rates, seen)
    if not clients:
        load.console.print("h2load is not asked: it is not installed (nghttp2-client), or there is no native front end")
    return {
        **_ratios(rates),
        "per_second": {
            name: {str(level): round(median(some)) for level, some in by_level.items()}
            for name, by_level in rates.items()
        },
        "clients": clients, "rounds": rounds, "seconds": seconds,
        "failed": {name: n for name, n in seen.failed.items() if n},
        "not_approved": load.share_not_approved(seen.mix), "reply_bytes": reply_bytes,
    }  # fmt: skip


@dataclass
class _Seen:
    """expected: decisions a second of each contestant, by its id; busy: by name, the greatest share of their core that
    client and store took.
    """

    expected: dict[int, float]
    failed: Counter[str] = field(default_factory=Counter)
    mix: Counter[str] = field(default_factory=Counter)
    busy: dict[str, float] = field(default_factory=dict)


async def _turn(one: Contestant, level: int, seconds: float, redis: Redis, seen: _Seen) -> None:
    """One round of one contestant."""
    needed = round(SPARE * seen.expected[id(one)] * seconds * (1 + WARM_UP_SHARE))
    messages = cycle(one.same) if one.stream is None else await _messages(one, max(needed, REHEARSED))
    in_flight = BATCH_CALLS if one.per_call > 1 else level
    with one.awake():
        before, began = time.process_time() + await load.store_seconds(redis), time.perf_counter()
        result = await closed_loop(one.target, messages, in_flight, seconds, seconds * WARM_UP_SHARE)
        spent = time.process_time() + await load.store_seconds(redis) - before
        busy = spent / (time.perf_counter() - began)
    if one.stream and result.seconds < load.LASTED * seconds and needed < load.APPLICATIONS_MAX:
        seen.expected[id(one)] *= load.COLD
        await _turn(one, level, seconds, redis, seen)
        return
    rate = result.per_second * one.per_call
    seen.expected[id(one)] = max(rate, seen.expected[id(one)] / load.COLD)
    one.per_second.setdefault(level, []).append(rate)
    seen.busy[one.name] = max(busy, seen.busy.get(one.name, 0))
    seen.failed[one.name] += result.failed
    if one.stream:
        mix = load.outcomes(result.replies, one.per_call)
        seen.failed[one.name] += mix.pop("error", 0)
        seen.mix.update(mix)


async def _rehearse(one: Contestant) -> Result:
    """Its first load, as soon as it answers."""
    deadline = time.monotonic() + START_SECONDS
    with one.awake():
        while True:
            result = await closed_loop(one.target, await _messages(one, max(one.per_call, 1)), 1)
            if result.answered:
                break
            if time.monotonic() > deadline:
                raise RuntimeError(f"{one.name}: does not answer: {dict(result.statuses)}")
            await asyncio.sleep(0.5)
        return await closed_loop(one.target, await _messages(one, REHEARSED), LEVELS[0] // one.per_call)


async def _clients(found: Sequence[Contestant]) -> dict[str, dict[str, int]]:
    """h2load beside our client, by whom they asked."""
    told = {}
    for one in found if third_party.installed() else ():
        if one.name in ("native", "ceiling of gRPC"):
            with one.awake():
                told[one.name] = await third_party.both(one.target, next(await _messages(one, 1)), CLIENT_CALLS)
    return told


async def _messages(one: Contestant, decisions: int) -> Iterator[bytes]:
    """New applications for so many decisions; of an echo the same without end."""
    if one.stream is None:
        return islice(cycle(one.same), decisions)
    return iter(await load.messages(one.stream, one.per_call, decisions))


def _rates(found: Sequence[Contestant]) -> dict[str, dict[int, list[float]]]:
    """Of each round, by name and level."""
    rates: dict[str, dict[int, list[float]]] = {}
    for one in found:
        rates.setdefault(one.name, {}).update(one.per_second)
    return rates


def _ratios(rates: Mapping[str, Mapping[int, Sequence[float]]]) -> dict[str, float]:
    """The medians of each round's; of those who took part."""
    ratios = {}
    for name, (over, under, level) in RATIOS.items():
        above, below = rates.get(over, {}).get(level, ()), rates.get(under, {}).get(level, ())
        if above and below and all(below):
            ratios[name] = round(median(a / b for a, b in zip(above, below, strict=True)), 2)
    return ratios


def _show(rates: Mapping[str, Mapping[int, Sequence[float]]], seen: _Seen) -> None:
    table = Table(
        "a second", *(f"{level} in flight" for level in LEVELS), "least to most", "failed", "client and store busy"
    )
    for name, by_level in rates.items():
        every = [rate for some in by_level.values() for rate in some]
        table.add_row(
            name, *(f"{median(by_level[level]):,.0f}" if level in by_level else "" for level in LEVELS),
            f"{min(every):,.0f} to {max(every):,.0f}", str(seen.failed[name]), f"{seen.busy[name]:.2f}",
        )  # fmt: skip
    load.console.print(table)

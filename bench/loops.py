"""Load on one method of a server: closed loop for throughput, open loop for latency, each call with bytes of its own.

In the open loop calls are due at times drawn before (a Poisson process) and their latency counts from then, whether or
not the client came to send them: nothing is left out because the server was slow (coordinated omission). All latencies
are kept, so percentiles are exact. The client is bench/client.c under asyncio, faster than what it measures. A load
begins when garbage is collected and connections are made: in a large process that takes longer than a short load.
"""

import asyncio
import gc
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from bench.alarm import Alarm
from bench.connections import Connection, Target, connect

DRAIN_SECONDS = 10.0  # what is open when the load ends is waited for
REPLIES_KEPT = 4096


@dataclass(frozen=True)
class Result:
    """What came of a load. latency_ms: float64 [n] of the calls counted; statuses: how many by gRPC status number (of
    HTTP 0 for 200 and else the code), -1 broken off or never answered; answered: how many of them OK, in `seconds`;
    late_ms: float64, how long after they were due calls of an open loop were sent. replies: the first of them.
    """

    latency_ms: NDArray[np.float64]
    late_ms: NDArray[np.float64]
    statuses: Counter[int]
    answered: int
    seconds: float
    replies: list[bytes]

    @property
    def per_second(self) -> float:
        """Calls answered OK a second."""
        return self.answered / self.seconds if self.seconds > 0 else 0.0

    @property
    def failed(self) -> int:
        """Calls not answered OK."""
        return sum(n for status, n in self.statuses.items() if status)

    def percentile_ms(self, *percents: float) -> list[float]:
        """Exact percentiles of the latency."""
        return _percentiles(self.latency_ms, percents)

    def late_percentile_ms(self, percent: float) -> float:
        """Exact percentile of how late the calls of an open loop were sent."""
        return _percentiles(self.late_ms, [percent])[0]


def _percentiles(values: NDArray[np.float64], percents: Sequence[float]) -> list[float]:
    return [round(float(p), 3) for p in np.percentile(values if len(values) else np.zeros(1), percents)]


@dataclass
class _Seen:
    """What is written down while a load runs; calls due before `start` or answered after `end` have no latency."""

    start: float
    end: float
    latency: list[float] = field(default_factory=list)
    late: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    answered: int = 0
    replies: list[bytes] = field(default_factory=list)

    def note(self, counted: bool, seconds: float, status: int, reply: bytes) -> None:
        if counted:
            self.latency.append(seconds)
            self.answered += status == 0
        self.statuses[status] += 1
        if len(self.replies) < REPLIES_KEPT:
            self.replies.append(reply)

    def result(self, seconds: float) -> Result:
        latency, late = np.array(self.latency) * 1e3, np.array(self.late) * 1e3
        return Result(latency, late, self.statuses, self.answered, seconds, self.replies)


async def closed_loop(
    target: Target, messages: Iterator[bytes], in_flight: int, seconds: float = float("inf"),
    warm_up_seconds: float = 0.0, connections: int = 4,
) -> Result:  # fmt: skip
    """So many calls always open, for so long or until there are no more messages; what was answered while warming up
    is not counted. Over HTTP/1.1 there are as many connections as calls.
    """
    ended = asyncio.Event()

    def answered(connection: Connection, due: float, status: int, reply: bytes) -> None:
        now = time.perf_counter()
        if now >= seen.start:
            seen.note(now < seen.end, now - due, status, reply)
        if now < seen.end:
            ask(connection, now)

    def ask(connection: Connection, now: float) -> None:
        if (message := next(messages, None)) is not None:
            connection.ask(message, now)
        else:
            seen.end = min(seen.end, now)
            ended.set()

    with _no_collector():
        made = await connect(target, in_flight if target.http else min(connections, in_flight), answered)
        start = time.perf_counter() + warm_up_seconds
        seen = _Seen(start, start + seconds)
        for n in range(in_flight):
            ask(made[n % len(made)], time.perf_counter())
        with suppress(TimeoutError):
            await asyncio.wait_for(ended.wait(), None if seconds == float("inf") else warm_up_seconds + seconds)
        await _finish(made, seen)
    return seen.result(seen.end - seen.start)


async def open_loop(
    target: Target, messages: Iterator[bytes], per_second: float, seconds: float,
    warm_up_seconds: float = 1.0, connections: int = 4, seed: int = 1,
) -> Result:  # fmt: skip
    """Calls at random times, so many a second on average, whatever the server does; ends early without messages."""
    gaps = np.random.default_rng(seed).exponential(1 / per_second, round(per_second * (seconds + warm_up_seconds)))

    def answered(connection: Connection, due: float, status: int, reply: bytes) -> None:
        if due >= seen.start:
            seen.note(True, time.perf_counter() - due, status, reply)

    ended, alarm, sent = asyncio.Event(), Alarm(), 0

    def send() -> None:
        nonlocal sent
        while sent < len(times) and times[sent] <= (now := time.perf_counter()):
            if (message := next(messages, None)) is None:
                del times[sent:]
                break
            made[sent % connections].ask(message, times[sent])
            if times[sent] >= seen.start:
                seen.late.append(now - times[sent])
            sent += 1
        if sent == len(times):
            ended.set()
        else:
            alarm.at(times[sent])

    with _no_collector():
        made = await connect(target, connections, answered)
        first = time.perf_counter() + 0.1
        times = (first + np.cumsum(gaps)).tolist()
        seen = _Seen(first + warm_up_seconds, float("inf"))
        alarm.start(send)
        try:
            send()
            await ended.wait()
        finally:
            alarm.close()
        await _finish(made, seen)
    return seen.result(times[-1] - seen.start if times else 0.0)


async def _finish(made: list[Connection], seen: _Seen) -> None:
    """Wait for what is open; what is never answered counts as -1."""
    deadline = time.perf_counter() + DRAIN_SECONDS
    while any(c.open for c in made) and time.perf_counter() < deadline:
        await asyncio.sleep(0.01)
    if unanswered := sum(c.open for c in made):
        seen.statuses[-1] += unanswered
    for connection in made:
        connection.close()


@contextmanager
def _no_collector() -> Iterator[None]:
    """The client's own pauses are no latency of the server."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()

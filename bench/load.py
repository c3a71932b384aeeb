"""Load on one method of a server: closed loop for throughput, open loop for latency, each call with bytes of its own.

In the open loop calls are due at times drawn before (a Poisson process) and their latency counts from then, whether or
not the client came to send them: nothing is left out because the server was slow (coordinated omission). All latencies
are kept, so percentiles are exact. The client is bench/client.c under asyncio, faster than what it measures.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from bench.client import Client

DRAIN_SECONDS = 10.0  # what is open when the load ends is waited for


@dataclass(frozen=True)
class Result:
    """What came of a load. latency_ms: float64 [n] of the calls counted; statuses: how many by gRPC status number, -1
    broken off or never answered; seconds: from the first to the last answer counted.
    """

    latency_ms: NDArray[np.float64]
    statuses: Counter[int]
    seconds: float

    @property
    def per_second(self) -> float:
        """Calls answered OK a second."""
        return self.statuses[0] / self.seconds if self.seconds else 0.0

    def percentile_ms(self, *percents: float) -> list[float]:
        """Exact percentiles of the latency."""
        return [round(float(p), 3) for p in np.percentile(self.latency_ms, percents)]


class _Connection(asyncio.Protocol):
    """Calls one method; `answered(stream, status, reply)` for each answer, several before anything is written."""

    def __init__(
        self, path: bytes, authority: bytes, answered: Callable[["_Connection", int, int, bytes], None]
    ) -> None:
        self.client = Client(path, authority)
        self.due: dict[int, float] = {}  # by stream, when it was to be sent
        self._answered = answered
        self._loop = asyncio.get_running_loop()
        self._flushing = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.flush_soon()

    def data_received(self, data: bytes) -> None:
        for stream, status, reply in self.client.feed(data):
            self._answered(self, stream, status, reply)
        self.flush_soon()

    def ask(self, message: bytes, due: float) -> None:
        self.due[self.client.ask(message)] = due
        self.flush_soon()

    def flush_soon(self) -> None:
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        if data := self.client.out():
            self.transport.write(data)


async def _connect(
    address: str, path: str, connections: int, answered: Callable[[_Connection, int, int, bytes], None]
) -> list[_Connection]:
    loop, made = asyncio.get_running_loop(), []
    for _ in range(connections):
        connection = _Connection(path.encode(), b"localhost", answered)
        if address.startswith("unix:"):
            await loop.create_unix_connection(lambda c=connection: c, address.removeprefix("unix:"))  # type: ignore[misc]
        else:
            host, port = address.rsplit(":", 1)
            await loop.create_connection(lambda c=connection: c, host, int(port))  # type: ignore[misc]
        made.append(connection)
    return made


async def closed_loop(
    address: str, path: str, messages: Iterator[bytes], in_flight: int, seconds: float, warm_up_seconds: float = 1.0,
    connections: int = 4,
) -> Result:  # fmt: skip
    """So many calls always open, for so long; what was answered while warming up is not counted."""
    latency: list[float] = []
    statuses: Counter[int] = Counter()
    start = time.perf_counter() + warm_up_seconds
    end = start + seconds

    def answered(connection: _Connection, stream: int, status: int, reply: bytes) -> None:
        now, due = time.perf_counter(), connection.due.pop(stream)
        if start <= now < end:
            latency.append(now - due)
            statuses[status] += 1
        if now < end and (message := next(messages, None)) is not None:
            connection.ask(message, now)

    made = await _connect(address, path, connections, answered)
    for n in range(in_flight):
        made[n % connections].ask(next(messages), time.perf_counter())
    await asyncio.sleep(warm_up_seconds + seconds)
    await _finish(made, statuses)
    return Result(np.array(latency) * 1e3, statuses, seconds)


async def open_loop(
    address: str, path: str, messages: Iterator[bytes], per_second: float, seconds: float,
    warm_up_seconds: float = 1.0, connections: int = 4, seed: int = 1,
) -> Result:  # fmt: skip
    """Calls at random times, so many a second on average, whatever the server does."""
    latency: list[float] = []
    statuses: Counter[int] = Counter()
    gaps = np.random.default_rng(seed).exponential(1 / per_second, round(per_second * (seconds + warm_up_seconds)))
    first = time.perf_counter() + 0.1
    times, start = first + np.cumsum(gaps), first + warm_up_seconds

    def answered(connection: _Connection, stream: int, status: int, reply: bytes) -> None:
        due = connection.due.pop(stream)
        if due >= start:
            latency.append(time.perf_counter() - due)
            statuses[status] += 1

    made = await _connect(address, path, connections, answered)
    for n, due in enumerate(times.tolist()):
        while (wait := due - time.perf_counter()) > 0:  # uvloop's timers round to milliseconds: one may end too soon
            await asyncio.sleep(wait)
        made[n % connections].ask(next(messages), due)
    await _finish(made, statuses)
    return Result(np.array(latency) * 1e3, statuses, float(times[-1] - start))


async def _finish(made: list[_Connection], statuses: Counter[int]) -> None:
    """Wait for what is open; what is never answered counts as -1."""
    deadline = time.perf_counter() + DRAIN_SECONDS
    while any(c.client.open for c in made) and time.perf_counter() < deadline:
        await asyncio.sleep(0.01)
    statuses[-1] += sum(c.client.open for c in made)
    for connection in made:
        connection.transport.close()

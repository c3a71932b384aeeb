"""Applications become batches: whatever queued while the batches before were running, no timer (as mosec's get_batch).

But grpc.aio hands over one call a turn of the event loop, each on its way through a thread of its own: under load what
started at once would be batches of one or two, for which a batch costs too much. There a batch waits until no more
come, for a few milliseconds at most.

A bounded queue answers "too many" at once. A caller gone or out of time is dropped before the engine begins, never
after: the engine's work is a task of its own that no caller can cancel.
"""

import asyncio
import math
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

import structlog

from features.application import Application
from server.errors import DeadlineError, OverloadedError, UnavailableError

IN_FLIGHT = 2  # batches: while one waits for Redis the other computes
GAP_SECONDS = 0.001  # without a call: no more come (uvloop's clock knows no less)
WAIT_SECONDS = 0.006  # at most, for those that come one by one
BUSY_SECONDS = 0.002  # since the last batch, in which its callers come again

log = structlog.get_logger()


class Reply(NamedTuple):  # one a decision: see features.application.Reason
    """A decision as it goes on the wire, and the time of each stage of its batch, µs, as "begin=120,graph=80"."""

    body: bytes
    stage_us: str


class Waiting:
    """An application in the queue. `gone`: nobody waits any more; what has not begun is then dropped."""

    __slots__ = ("application", "deadline", "done", "gone", "since")

    def __init__(
        self, application: Application, since: float, deadline: float, done: Callable[[Reply | Exception], None]
    ) -> None:
        self.application, self.done, self.gone = application, done, False
        self.since, self.deadline = since, deadline  # time.monotonic() seconds

    def cancel(self) -> None:
        self.gone = True


class Batcher:
    """Queues one tenant's applications for `decide`.

    `decide` is given a function that takes the batch, to be called when its turn has come and no sooner, and returns a
    Reply or an error for each application taken.
    """

    def __init__(
        self,
        decide: Callable[[Callable[[], Sequence[Application]]], Awaitable[list[Reply | Exception]]],
        batch_max: int,
        queue_max: int,
        deadline_min_ms: float,
    ) -> None:
        self._decide = decide
        self._batch_max = batch_max
        self._queue_max = queue_max
        self._deadline_min = deadline_min_ms / 1000
        self._queue: deque[Waiting] = deque()
        self._running: set[asyncio.Task[None]] = set()
        self._forming = False  # whether a started batch has not taken its applications yet
        self._starting = False  # whether the loop is to call _start
        self._arrived, self._ended = 0, 0.0  # how many were queued so far; when the last batch ended
        self._one_by_one = False  # whether that is how the last one came
        self._closed = False

    async def submit(self, application: Application, seconds_left: float | None, one_by_one: bool = False) -> Reply:
        """Queue one application and wait for its reply. one_by_one: calls that come at once come in later turns of the
        loop. Raises what the engine or the queue has against it.
        """
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()

        def done(reply: Reply | Exception) -> None:
            if future.done():
                return
            if isinstance(reply, Exception):
                future.set_exception(reply)
            else:
                future.set_result(reply)

        waiting = self.put(application, seconds_left, done, one_by_one)
        try:
            return await future
        finally:
            waiting.cancel()

    def put(
        self, application: Application, seconds_left: float | None, done: Callable[[Reply | Exception], None],
        one_by_one: bool = False,
    ) -> Waiting:  # fmt: skip
        """As `submit`; `done` is called once with the reply or what the engine has against it, in a later turn of the
        loop. Raises UnavailableError, OverloadedError.
        """
        if self._closed:
            raise UnavailableError("the server is stopping")
        if len(self._queue) >= self._queue_max:
            raise OverloadedError(f"{self._queue_max} applications are waiting")
        now = time.monotonic()
        waiting = Waiting(application, now, math.inf if seconds_left is None else now + seconds_left, done)
        self._queue.append(waiting)
        self._arrived += 1
        self._one_by_one = one_by_one
        self._start_soon(now)
        return waiting

    async def drain(self) -> None:
        """Take no more; return when all that was taken is answered."""
        self._closed = True
        while self._queue or self._running:
            await asyncio.wait(self._running) if self._running else await asyncio.sleep(0)

    def _start_soon(self, now: float) -> None:
        if self._starting or not self._queue:
            return
        self._starting = True
        if self._one_by_one and (self._running or now - self._ended < BUSY_SECONDS):
            self._await_more(-1, now + WAIT_SECONDS)
        else:
            asyncio.get_running_loop().call_soon(self._start)  # what else arrives in this turn joins the batch

    def _await_more(self, arrived: int, until: float) -> None:
        """Start when none came in the last GAP_SECONDS; arrived: how many had until then."""
        if arrived != self._arrived and len(self._queue) < self._batch_max and time.monotonic() < until:
            asyncio.get_running_loop().call_later(GAP_SECONDS, self._await_more, self._arrived, until)
        else:
            self._start()

    def _start(self) -> None:
        """Start a batch if something is queued, a place is free and no batch is still waiting for its turn."""
        self._starting = False
        if self._queue and not self._forming and len(self._running) < IN_FLIGHT:
            self._forming = True
            task = asyncio.create_task(self._run())
            self._running.add(task)
            task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._ended = time.monotonic()
        self._start_soon(self._ended)

    def _take(self) -> list[Waiting]:
        """What is queued and still wanted, up to a batch."""
        batch: list[Waiting] = []
        least = time.monotonic() + self._deadline_min
        while self._queue and len(batch) < self._batch_max:
            waiting = self._queue.popleft()
            if waiting.gone:
                continue
            if waiting.deadline < least:
                _tell(waiting, DeadlineError("too little time left to decide"))
                continue
            batch.append(waiting)
        return batch

    async def _run(self) -> None:
        batch: list[Waiting] = []
        started = time.monotonic()

        def take() -> list[Application]:
            nonlocal batch, started
            batch, started = self._take(), time.monotonic()
            self._forming = False
            self._start_soon(started)
            return [waiting.application for waiting in batch]

        replies: Sequence[Reply | Exception]
        try:
            replies = await self._decide(take)
        except Exception as error:  # whatever failed, every caller hears of it; server.service maps and logs it
            batch = batch or self._take()
            self._forming = False
            replies = [error] * len(batch)
        for waiting, reply in zip(batch, replies, strict=True):
            if isinstance(reply, Exception):
                _tell(waiting, reply)
            else:
                queue_us = round((started - waiting.since) * 1e6)
                _tell(waiting, Reply(reply.body, f"queue={queue_us},{reply.stage_us}"))


def _tell(waiting: Waiting, reply: Reply | Exception) -> None:
    try:
        waiting.done(reply)
    except Exception as error:  # one caller's transport: all others still hear
        log.error("caller_not_told", exc_info=error)

"""Applications become batches: whatever queued while the batches before were running, no timer (as mosec's get_batch).

A bounded queue answers "too many" at once. A caller gone or out of time is dropped before the engine begins, never
after: the engine's work is a task of its own that no caller can cancel.
"""

import asyncio
import math
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from features.application import Application
from server.errors import DeadlineError, OverloadedError, UnavailableError

IN_FLIGHT = 2  # batches: while one waits for Redis the other computes


class Reply(NamedTuple):  # one a decision: see features.application.Reason
    """A decision as it goes on the wire, and the time of each stage of its batch, µs, as "begin=120,graph=80"."""

    body: bytes
    stage_us: str


class _Waiting(NamedTuple):
    application: Application
    since: float  # time.monotonic() seconds, as deadline
    deadline: float
    future: asyncio.Future[Reply]


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
        self._queue: deque[_Waiting] = deque()
        self._running: set[asyncio.Task[None]] = set()
        self._forming = False  # whether a started batch has not taken its applications yet
        self._starting = False  # whether the loop is to call _start
        self._closed = False

    async def submit(self, application: Application, seconds_left: float | None) -> Reply:
        """Queue one application and wait for its reply. Raises what the engine or the queue has against it."""
        if self._closed:
            raise UnavailableError("the server is stopping")
        if len(self._queue) >= self._queue_max:
            raise OverloadedError(f"{self._queue_max} applications are waiting")
        loop, now = asyncio.get_running_loop(), time.monotonic()
        future: asyncio.Future[Reply] = loop.create_future()
        self._queue.append(_Waiting(application, now, math.inf if seconds_left is None else now + seconds_left, future))
        if not self._starting:
            self._starting = True
            loop.call_soon(self._start)  # what else arrived in this turn of the loop joins the batch
        return await future

    async def drain(self) -> None:
        """Take no more; return when all that was taken is answered."""
        self._closed = True
        while self._queue or self._running:
            await asyncio.wait(self._running) if self._running else await asyncio.sleep(0)

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
        self._start()

    def _take(self) -> list[_Waiting]:
        """What is queued and still wanted, up to a batch."""
        batch: list[_Waiting] = []
        while self._queue and len(batch) < self._batch_max:
            waiting = self._queue.popleft()
            if waiting.future.cancelled():
                continue
            if waiting.deadline - time.monotonic() < self._deadline_min:
                waiting.future.set_exception(DeadlineError("too little time left to decide"))
                continue
            batch.append(waiting)
        return batch

    async def _run(self) -> None:
        batch: list[_Waiting] = []
        started = time.monotonic()

        def take() -> list[Application]:
            nonlocal batch, started
            batch, started = self._take(), time.monotonic()
            self._forming = False
            self._start()
            return [waiting.application for waiting in batch]

        replies: Sequence[Reply | Exception]
        try:
            replies = await self._decide(take)
        except Exception as error:  # whatever failed, every caller hears of it; server.service maps and logs it
            batch = batch or self._take()
            self._forming = False
            replies = [error] * len(batch)
        for waiting, reply in zip(batch, replies, strict=True):
            if waiting.future.done():
                continue
            if isinstance(reply, Exception):
                waiting.future.set_exception(reply)
            else:
                queue_us = round((started - waiting.since) * 1e6)
                waiting.future.set_result(Reply(reply.body, f"queue={queue_us},{reply.stage_us}"))

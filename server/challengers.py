"""Scores challengers behind the replies, for champion against challenger on the very same rows (R18).

A batch that was decided is offered after its decisions are stored. It is scored in one thread of its own, begun only
while no batch is being decided in this process, and recorded beside the decisions. What cannot wait is dropped, the
oldest first, and counted: a challenger never delays a reply, nor fails one.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace

import structlog

from features.application import Snapshot
from features.store import Store
from models.scorer import Scorer

ROWS_MAX = 1024  # applications that wait
BATCH_ROWS = 64
REPORT_SECONDS = 60.0

log = structlog.get_logger()


@dataclass(frozen=True)
class _Decided:
    """Decided applications of one product: their store, ids and rows, and who is to score them."""

    store: Store
    challengers: Mapping[str, Scorer]
    application_ids: Sequence[str]
    snapshot: Snapshot

    def with_same(self, other: "_Decided") -> bool:
        """Whether the same challengers score both for the same tenant."""
        return self.store is other.store and self.challengers is other.challengers


class Challengers:
    """One for the process. `waiting`: applications; `counts`: recorded, skipped and failed, each by challenger."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._queue: deque[_Decided] = deque()
        self.waiting = 0
        self._deciding = 0
        self._changed = asyncio.Event()

    @contextmanager
    def held(self) -> Iterator[None]:
        """No challenger starts while this is entered."""
        self._deciding += 1
        try:
            yield
        finally:
            self._deciding -= 1
            if self._queue:
                self._changed.set()

    def offer(
        self, store: Store, challengers: Mapping[str, Scorer], application_ids: Sequence[str], snapshot: Snapshot
    ) -> None:
        """Queue decided applications, rows of `snapshot` in their order."""
        self._queue.append(_Decided(store, challengers, application_ids, snapshot))
        self.waiting += len(application_ids)
        while self.waiting > ROWS_MAX:
            dropped = self._queue.popleft()
            self.waiting -= len(dropped.application_ids)
            self.counts["skipped"] += len(dropped.application_ids) * len(dropped.challengers)

    async def run(self) -> None:
        """Score what is offered. Runs until cancelled."""
        loop, reported = asyncio.get_running_loop(), self.counts.copy()
        due = loop.time() + REPORT_SECONDS
        with ThreadPoolExecutor(1, "challengers") as thread:
            while True:
                await self._changed.wait()
                self._changed.clear()
                while self._queue and not self._deciding:
                    await self._score(self._taken(), thread)
                if loop.time() >= due and self.counts != reported:
                    log.info("challengers", **self.counts)
                    due, reported = loop.time() + REPORT_SECONDS, self.counts.copy()

    async def _score(self, decided: _Decided, thread: ThreadPoolExecutor) -> None:
        for version, scorer in decided.challengers.items():
            try:
                scores = await asyncio.get_running_loop().run_in_executor(thread, scorer.score, decided.snapshot)
                said = zip(
                    decided.application_ids, scores.fraud_probability.tolist(), scores.default_probability.tolist(),
                    strict=True,
                )  # fmt: skip
                self.counts["recorded"] += await decided.store.put_challenger(version, list(said))
            except Exception as error:  # whatever fails, the decisions were sent and the next batch is scored
                self.counts["failed"] += len(decided.application_ids)
                log.error("challenger_failed", version=version, exc_info=error)
            if (task := asyncio.current_task()) and task.cancelling():  # swallowed inside: wait_for of Python 3.11
                raise asyncio.CancelledError

    def _taken(self) -> _Decided:
        """The oldest that wait for the same challengers, as one batch."""
        parts = [self._queue.popleft()]
        rows = len(parts[0].application_ids)
        while self._queue and rows < BATCH_ROWS and self._queue[0].with_same(parts[0]):
            parts.append(self._queue.popleft())
            rows += len(parts[-1].application_ids)
        self.waiting -= rows
        ids = [name for part in parts for name in part.application_ids]
        return replace(parts[0], application_ids=ids, snapshot=Snapshot.join([part.snapshot for part in parts]))

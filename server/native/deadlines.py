"""The deadlines of all calls under one timer, which looks when the earliest may be due and at most every TICK_SECONDS.

A timer for each call would cost more than the call's other bookkeeping, and nearly every call ends long before.
"""

import asyncio
import time
from typing import Protocol

TICK_SECONDS = 0.01


class Owner(Protocol):
    """Who is told."""

    def late(self, stream: int) -> None:
        """The deadline of a stream's call has passed."""


class Deadlines:
    """Tells a call's owner when its time (time.monotonic(), seconds) has passed, TICK_SECONDS after at most."""

    def __init__(self) -> None:
        self._due: dict[tuple[Owner, int], float] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._next = float("inf")

    def __len__(self) -> int:
        return len(self._due)

    def add(self, call: tuple[Owner, int], due: float) -> None:
        self._due[call] = due
        if due < self._next:
            self._arm(due)

    def discard(self, call: tuple[Owner, int]) -> None:
        self._due.pop(call, None)

    def _arm(self, due: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        now = time.monotonic()
        self._next = max(due, now + TICK_SECONDS)
        self._timer = asyncio.get_running_loop().call_later(self._next - now, self._look)

    def _look(self) -> None:
        self._timer, self._next = None, float("inf")
        now = time.monotonic()
        for owner, stream in [call for call, due in self._due.items() if due <= now]:
            del self._due[owner, stream]
            owner.late(stream)
        if self._due:
            self._arm(min(self._due.values()))

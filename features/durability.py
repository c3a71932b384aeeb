"""What a store failure is, and what must have happened to a write before its reply goes out (R24).

By default nothing: the store's own persistence keeps what it keeps. WAIT asks for replicas, WAITAOF for the local log
on disk; both hold the connection that wrote, so they travel behind the write in one pipeline.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from redis.exceptions import RedisError

from features.events import EventFormatError


class StoreError(RuntimeError):
    """Redis cannot be reached or cannot do what was asked; nothing is known to be recorded."""


class EpochError(StoreError):
    """The log is another one than this process has read: its graph must be rebuilt."""


class NotDurableError(StoreError):
    """It is recorded, and too few have confirmed that in time."""


@contextmanager
def redis_errors() -> Iterator[None]:
    """Errors of Redis and of its events' format as StoreError."""
    try:
        yield
    except (RedisError, EventFormatError) as error:
        raise (EpochError if "EPOCH the log" in str(error) else StoreError)(str(error)) from error


@dataclass(frozen=True)
class Durability:
    """replicas: how many must have it; aof: whether this store's log on disk must; wait_ms: for how long at most."""

    replicas: int = 0
    aof: bool = False
    wait_ms: int = 100

    @property
    def waits(self) -> tuple[tuple[str | int, ...], ...]:
        """The commands to send behind a write."""
        waits: list[tuple[str | int, ...]] = []
        if self.replicas:
            waits.append(("WAIT", self.replicas, self.wait_ms))
        if self.aof:
            waits.append(("WAITAOF", 1, 0, self.wait_ms))
        return tuple(waits)

    def check(self, replies: Sequence[int | Sequence[int]]) -> None:
        """Raises NotDurableError where the replies to `waits` confirm too little."""
        for (command, needed, *_), reply in zip(self.waits, replies, strict=True):
            confirmed = reply if isinstance(reply, int) else reply[0]
            if confirmed < int(needed):
                raise NotDurableError(f"{command}: {confirmed} of {needed} confirmed within {self.wait_ms} ms")


AT_ONCE = Durability()

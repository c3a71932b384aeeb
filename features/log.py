"""A tenant's log in Redis, read in order from its beginning or from a place where a reader stopped (R11).

Reading on starts with the last entry read: a store that went back to an older state no longer has it, whatever was
written since, and the log must be read again.
"""

from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from redis.asyncio import Redis

from features.durability import EpochError, redis_errors
from features.events import Events, unpack
from features.round_trip import Command, round_trip

PAGE = 4096  # events read in one XRANGE


@dataclass(frozen=True)
class Place:
    """Up to where a log was read. owner: hash of tenant and secret; cursor: stream id of the event numbered `sequence`;
    rewritten: up to which event features.unlink had changed the log when it was read.
    """

    owner: str
    epoch: str
    cursor: str
    sequence: int
    rewritten: int


async def position(redis: Redis, meta: str) -> tuple[str, int]:
    """Epoch and last sequence number of the log that the key `meta` is of; an empty epoch where there is none."""
    epoch, sequence = await cast(Awaitable[list[bytes | None]], redis.hmget(meta, ["epoch", "sequence"]))
    return (epoch or b"").decode(), int(sequence or 0)


async def rewritten(redis: Redis, meta: str) -> int:
    """Up to which event features.unlink has changed the log that the key `meta` is of, 0 for none."""
    return int(await cast(Awaitable[bytes | None], redis.hget(meta, "rewritten")) or 0)


def prefix(tenant: str) -> str:
    """What every key of a tenant begins with; the braces keep them together in a cluster."""
    return f"{{{tenant}}}:"


class LogReader:
    """Reads one tenant's log. `cursor` is the stream id up to which events were returned, of the log of `epoch`. owner:
    hash of tenant and secret.
    """

    def __init__(self, redis: Redis, tenant: str, owner: str) -> None:
        self._redis, self._prefix, self._owner = redis, prefix(tenant), owner
        self._log, self._meta = f"{self._prefix}log", f"{self._prefix}meta"
        self.cursor = "0-0"
        self._cursor_sequence = 0
        self._rewritten = 0  # up to which event features.unlink had changed the log that is read
        self.epoch = ""

    @property
    def place(self) -> Place:
        """Up to where the log was read."""
        owner = self._owner
        return Place(owner, self.epoch, self.cursor, self._cursor_sequence, self._rewritten)

    async def resume(self, place: Place) -> None:
        """Read on from a place instead of the beginning of the log, which was opened.

        Raises EpochError where the place is not of this log; it must then be opened again.
        """
        here = self.place
        for name in ("owner", "epoch", "rewritten"):
            if getattr(place, name) != getattr(here, name):
                raise EpochError(f"{name}: {getattr(here, name)} expected, {getattr(place, name)} found")
        self.cursor, self._cursor_sequence = place.cursor, place.sequence
        page, rewritten = self._page()
        with redis_errors():
            self._advance(*await round_trip(self._redis, ((*page[:-1], 1), rewritten)))

    async def tail(self) -> Events:
        """The next events of the log, at most PAGE; none when all were read."""
        with redis_errors():
            return self._advance(*await round_trip(self._redis, self._page()))

    def _page(self) -> tuple[Command, Command]:
        """Ask for the next page, and behind it whether the log was changed before: then the page may be of either."""
        return ("XRANGE", self._log, self.cursor, "+", "COUNT", PAGE), ("HGET", self._meta, "rewritten")

    async def position(self) -> int:
        """Sequence number of the log's last event. Raises EpochError if the log is another one."""
        with redis_errors():
            epoch, sequence = await position(self._redis, self._meta)
        if not epoch or epoch != self.epoch:
            raise EpochError("the log has another epoch")
        return sequence

    async def _events(self, read: Sequence[Any], last: int) -> Events:
        """Events of a first page, and of further pages until the event numbered `last` is among them."""
        with redis_errors():
            pages = [self._advance(*read)]
        while len(pages[-1]) and self._cursor_sequence < last:
            pages.append(await self.tail())
        if len(pages) == 1:
            return pages[0]
        return Events(np.concatenate([p.fields for p in pages]), np.concatenate([p.time_ms for p in pages]))

    def _advance(self, entries: Sequence["_Entry"], rewritten: bytes | None) -> Events:
        """Events after the cursor. The page starts with the cursor's own entry: a store that went back to an older
        state (a failover) no longer has it, whatever was written since. Who has read only a part of what was changed
        would not know again whom the rest names.
        """
        if self._rewritten < int(rewritten or 0):
            if self._cursor_sequence < int(rewritten or 0):
                raise EpochError("events that were not read are changed")
            self._rewritten = int(rewritten or 0)
        events = unpack([fields[1] for _, fields in entries], [time_ms(i) for i, _ in entries])
        if self._cursor_sequence:
            first = entries and (entries[0][0].decode(), int(events.fields["sequence"][0]))
            if first != (self.cursor, self._cursor_sequence):
                raise EpochError(f"the log no longer holds event {self._cursor_sequence}")
            events = Events(events.fields[1:], events.time_ms[1:])
        if len(events):
            self.cursor, self._cursor_sequence = entries[-1][0].decode(), int(events.fields["sequence"][-1])
        return events


_Entry = tuple[bytes, tuple[bytes, bytes]]  # stream id, and the one field of an event with its name


def time_ms(stream_id: bytes) -> int:
    """When the event of a stream id came."""
    return int(stream_id.split(b"-")[0] or 0)

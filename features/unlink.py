"""Takes forgotten people's identifiers out of a tenant's log (R20): their tokens become random numbers.

A token goes where nothing that the log is replayed for needs it: every application that named it, up to the last
request that emptied it, is emptied of it, and no list names it. It becomes one number throughout, so each count and
link of before stays what it was, and every decision can be recomputed. Tokens that others had named by then stay.
Servers go on: stream ids, sequence numbers and epoch stay, and the new log takes the old one's place at once. One that
had not yet read all that changed reads it from its beginning.
"""

import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from redis.asyncio import Redis

from features.durability import EpochError, redis_errors
from features.events import APPLICATION, FORGETTING, FORGOTTEN, LISTED, LISTING, unpack
from features.log import PAGE, position, rewritten
from features.schema import SLOTS_MAX
from features.store import Store

_SLOTS = np.arange(SLOTS_MAX, dtype=np.uint64)
_NEVER = np.iinfo(np.int64).max


@dataclass(frozen=True)
class Unlinked:
    """tokens: how many became random numbers; kept: how many stay, since others had named them or a list does; events:
    how many the log has.
    """

    tokens: int
    kept: int
    events: int


@dataclass(frozen=True)
class Replacements:
    """tokens: uint64 [T], ascending; numbers: uint64 [T], what each becomes in events before `until`, int64 [T]."""

    tokens: NDArray[np.uint64]
    numbers: NDArray[np.uint64]
    until: NDArray[np.int64]

    def apply(self, fields: NDArray[np.void]) -> NDArray[np.void]:
        """EVENT [n] with the numbers in place of the tokens."""
        if not len(self.tokens):
            return fields
        fields = fields.copy()
        named = (fields["kind"] == APPLICATION)[:, None] | ((fields["kind"] == FORGOTTEN)[:, None] & (_SLOTS == 0))
        place = np.searchsorted(self.tokens, fields["tokens"]).clip(max=len(self.tokens) - 1)
        goes = named & (self.tokens[place] == fields["tokens"]) & (fields["sequence"][:, None] < self.until[place])
        fields["tokens"][goes] = self.numbers[place][goes]
        return fields


class _Scan:
    """What a log says of its tokens, page by page: first its requests, then who else named what they emptied."""

    def __init__(self) -> None:
        self._requests: list[NDArray[np.void]] = []  # FORGETTING [n], page by page
        self._emptied: dict[int, int] = {}  # by token, the last number of a request that emptied it
        self._kept: dict[int, int] = {}  # by token of these, where it is first named and not emptied
        self._listed: set[int] = set()

    def requests(self, fields: NDArray[np.void]) -> None:
        """The requests of a page. Who is forgotten altogether is emptied by the request itself."""
        asked = fields[fields["kind"] == FORGOTTEN].view(FORGETTING)
        self._requests.append(asked)
        for request in asked[asked["slots"] & np.uint64(1) != 0]:
            self._empty(int(request["applicant"]), int(request["sequence"]))
        self._listed.update(fields[fields["kind"] == LISTED].view(LISTING)["token"].tolist())

    def emptied(self, fields: NDArray[np.void]) -> None:
        """The tokens of a page that a request empties."""
        first = self._first(fields)
        for row, slot in np.argwhere(first < _NEVER).tolist():
            self._empty(int(fields["tokens"][row, slot]), int(first[row, slot]))

    def kept(self, fields: NDArray[np.void]) -> None:
        """The tokens of a page that are of these and that no request empties."""
        tokens = fields["tokens"]
        stays = (fields["kind"] == APPLICATION)[:, None] & (self._first(fields) == _NEVER)
        stays &= np.isin(tokens, np.array(list(self._emptied), dtype=np.uint64))
        for row, slot in np.argwhere(stays).tolist():
            self._kept.setdefault(int(tokens[row, slot]), int(fields["sequence"][row]))

    def replacements(self, last: int) -> Replacements:
        """The numbers of the tokens that may go, in the events up to the number `last`, which the scan has seen."""
        until = {token: self._kept.get(token, last + 1) for token in self._emptied}
        gone = sorted(t for t, request in self._emptied.items() if request < until[t] and t not in self._listed)
        numbers = [secrets.randbits(64) or 1 for _ in gone]
        tokens, places = np.array(gone, dtype=np.uint64), np.array([until[t] for t in gone], dtype=np.int64)
        return Replacements(tokens, np.array(numbers, dtype=np.uint64), places)

    def people(self, made: Replacements) -> dict[str, tuple[str, int]]:
        """By token of every applicant who became a number, as the store writes tokens, that number and until where."""
        theirs = np.flatnonzero(np.isin(made.tokens, np.concatenate(self._requests)["applicant"]))
        some = (of[theirs].tolist() for of in (made.tokens, made.numbers, made.until))
        return {f"{token:016x}": (f"{number:016x}", until) for token, number, until in zip(*some, strict=True)}

    @property
    def found(self) -> int:
        """How many tokens a request emptied."""
        return len(self._emptied)

    def _empty(self, token: int, request: int) -> None:
        self._emptied[token] = max(request, self._emptied.get(token, 0))

    def _first(self, fields: NDArray[np.void]) -> NDArray[np.int64]:
        """int64 [n, 16]: the number of the first request that empties a slot, _NEVER where none does or it is empty."""
        first = np.full((len(fields), SLOTS_MAX), _NEVER)
        asked = np.concatenate(self._requests)
        applicant = fields["tokens"][:, 0]
        for i in np.flatnonzero((fields["kind"] == APPLICATION) & np.isin(applicant, asked["applicant"])):
            mine = (asked["applicant"] == applicant[i]) & (asked["sequence"] > fields["sequence"][i])
            mine &= (asked["schema"] == 0) | (asked["schema"] == fields["schema"][i])
            for request in asked[mine][::-1]:
                first[i, request["slots"] >> _SLOTS & np.uint64(1) != 0] = request["sequence"]
        first[fields["tokens"] == 0] = _NEVER
        return first


async def unlink(redis: Redis, tenant: str, store: Store) -> Unlinked:
    """Put a log without the forgotten people's tokens in the place of a tenant's. Raises StoreError."""
    log, meta, withdrawn, forgotten = store.keys("log", "meta", "withdrawn", "forgotten")
    copy, *others = store.keys("log:new", "log:old", "forgotten:new")
    with redis_errors():
        epoch, last = await position(redis, meta)
        if not epoch:
            raise EpochError(f"tenant {tenant} has no log")
        if (before := await rewritten(redis, meta)) == last:
            return Unlinked(0, 0, last)
        scan = _Scan()
        for look in (scan.requests, scan.emptied, scan.kept):
            async for _, fields in _pages(redis, log, "-", last):
                look(fields)
        replacements, cursor = scan.replacements(last), "-"
        people, times = scan.people(replacements), dict[int, int]()
        await redis.unlink(copy)
        try:
            async for ids, fields in _pages(redis, log, "-", None):
                pipeline = redis.pipeline(transaction=False)
                for stream_id, event in zip(ids, replacements.apply(fields), strict=True):
                    pipeline.xadd(copy, {"e": event.tobytes()}, id=stream_id)
                await pipeline.execute()
                cursor = ids[-1]
                of_page = dict(zip(fields["sequence"].tolist(), ids, strict=True))
                asked = of_page.keys() & {last, *(until for _, until in people.values())}
                times |= {sequence: int(of_page[sequence].split("-")[0]) for sequence in asked}
            arguments = [epoch, str(before), str(last), cursor, str(len(people))]
            for token, (number, until) in people.items():
                # their own time would tell which request was theirs; that of who applied again is just before they did
                since_ms = times[last] if until > last else times[until] - 1
                arguments += [token, number, str(until), str(since_ms)]
            async for field, _ in redis.hscan_iter(withdrawn):
                token, _, purpose = field.decode().partition(":")
                arguments += [field.decode()] if purpose and token in people else []
            keys = [log, meta, withdrawn, forgotten, copy, *others]
            events = await store.call("replace_log", keys, arguments, durable=True)
        finally:
            await redis.unlink(copy)
    return Unlinked(len(replacements.tokens), scan.found - len(replacements.tokens), int(events))


async def _pages(
    redis: Redis, log: str, cursor: str, last: int | None
) -> AsyncIterator[tuple[list[str], NDArray[np.void]]]:
    """Stream ids and EVENT [n] of a log's pages, up to the event numbered `last` or to its end."""
    while True:
        page: Any = await redis.xrange(log, cursor, "+", PAGE)
        if not page:
            return
        ids = [name.decode() for name, _ in page]
        fields = unpack([entry[b"e"] for _, entry in page], [0] * len(page)).fields
        yield ids, fields if last is None else fields[fields["sequence"] <= last]
        if last is not None and int(fields["sequence"][-1]) >= last:
            return
        cursor = f"({ids[-1]}"

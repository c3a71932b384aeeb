"""Applications that wait for a person, and what people decided, in the store (R22).

`commit` queues a decision in {t}:reviews; `resolve` (functions.lua) stores what a person decided beside it, once, and
takes it off the queue. An application is known by its key, a token: its id is stored nowhere.
"""

import json
from collections.abc import Awaitable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray
from redis.asyncio import Redis

from features.durability import StoreError, redis_errors
from features.events import unpack
from features.reservations import Reservation
from features.schema import Schema, SchemaError
from features.store import Store, prefix

FORGOTTEN = ""  # among purposes withdrawn: all of them, since the applicant was forgotten


@dataclass(frozen=True)
class Case:
    """A decided application. tokens: uint64 [16], its identifiers as it entered the log; None where the log no longer
    has it. since_ms: when it came to wait, 0 where that was not asked. resolution: what a person decided at
    resolved_at_ms, empty before; asked_hash: of what was asked then. ended: whether a report ended it before.
    """

    review_id: str
    product: str
    stream_id: str
    decision: bytes
    evidence: bytes
    tokens: NDArray[np.uint64] | None
    since_ms: int = 0
    resolution: bytes = b""
    asked_hash: bytes = b""
    resolved_at_ms: int = 0
    ended: bool = False

    @property
    def applicant(self) -> str:
        """The applicant's token as the store writes it; empty where the log no longer has it."""
        return "" if self.tokens is None else f"{int(self.tokens[0]):016x}"


@dataclass(frozen=True)
class Resolved:
    """status: NEW, KNOWN, CONFLICT, UNDECIDED, ENDED, FORGOTTEN or REFUSED, then with what the borrower has and each
    funder has lent.
    """

    status: str
    resolution: bytes
    resolved_at_ms: int
    exposure_minor: int = 0
    lent: Mapping[str, int] | None = None


class ReviewQueue:
    """One tenant's queue over its store."""

    def __init__(self, redis: Redis, tenant: str, store: Store) -> None:
        self._redis, self._store = redis, store
        self._prefix = prefix(tenant)
        self._queue, self._withdrawn = f"{self._prefix}reviews", f"{self._prefix}withdrawn"

    async def page(self, after: tuple[int, str], size: int) -> tuple[list[Case], tuple[int, str] | None]:
        """At most `size` cases that wait, the longest waiting first, after that of a time (ms) and review id; and after
        which the next page goes on, None where there is none.
        """
        since, name = after
        with redis_errors():
            both = self._redis.pipeline()  # all of the same millisecond, then what came later, as of one moment
            both.zrangebyscore(self._queue, since, since, withscores=True)
            both.zrangebyscore(self._queue, f"({since}", "+inf", start=0, num=size + 1, withscores=True)
            same, later = await both.execute()
        waiting = [(int(ms), found.decode()) for found, ms in [*same, *later]]
        places = [place for place in waiting if place > (since, name)]
        cases = await self._cases(places[:size])
        return [case for case in cases if case is not None], places[size - 1] if len(places) > size else None

    async def case(self, review_id: str) -> Case | None:
        """The application of a review id; None where none was decided under it."""
        return (await self._cases([(0, review_id)]))[0]

    async def _cases(self, places: Sequence[tuple[int, str]]) -> list[Case | None]:
        """For each time (ms) and review id the case; None where none was decided under it."""
        fields = ["p", "i", "d", "e", "v", "vh", "vt", "z"]
        with redis_errors():
            hashes, events = self._redis.pipeline(transaction=False), self._redis.pipeline(transaction=False)
            for _, review_id in places:
                hashes.hmget(f"{self._prefix}a:{review_id}", fields)
            known = [[part or b"" for part in parts] for parts in await hashes.execute()]
            for _, stream_id, *_ in known:
                events.xrange(f"{self._prefix}log", stream_id or "0-1", stream_id or "0-1")
            logged = await events.execute()
        cases: list[Case | None] = []
        for (since, name), parts, found in zip(places, known, logged, strict=True):
            product, stream_id, decision, evidence, resolution, asked_hash, at, ended = parts
            tokens = unpack([found[0][1][b"e"]], [0]).fields["tokens"][0] if found else None
            case = Case(
                name, product.decode(), stream_id.decode(), decision, evidence, tokens, since, resolution, asked_hash,
                int(at or 0), bool(ended),
            )  # fmt: skip
            cases.append(case if decision else None)
        return cases

    async def withdrawn(self, asked: Sequence[tuple[Case, Collection[str]]]) -> list[set[str]]:
        """For each case those of some purposes that its applicant withdrew consent for since, FORGOTTEN among them."""
        fields = [f"{case.applicant}:{purpose}" for case, purposes in asked for purpose in (FORGOTTEN, *purposes)]
        if not fields:
            return []
        with redis_errors():
            times = iter(await cast(Awaitable[list[bytes | None]], self._redis.hmget(self._withdrawn, fields)))
        return [
            {p for p, since in zip((FORGOTTEN, *purposes), times, strict=False) if int(since or 0) >= _time_ms(case)}
            for case, purposes in asked
        ]

    async def drop(self, cases: Sequence[Case]) -> None:
        """Take cases off the queue that nobody may decide on any more."""
        if cases:
            with redis_errors():
                await self._redis.zrem(self._queue, *(case.review_id for case in cases))

    async def lent(self, funders: Sequence[str]) -> dict[str, int]:
        """Minor units that each funder has lent."""
        if not funders:
            return {}
        with redis_errors():
            totals = await self._redis.mget([f"{self._prefix}f:{funder}" for funder in funders])
        return {funder: int(total or 0) for funder, total in zip(funders, totals, strict=True)}

    async def schema(self, fingerprint: str) -> Schema | None:
        """The schema that a decision was made under; None where its document cannot be read any more."""
        with redis_errors():
            found = await cast(Awaitable[bytes | None], self._redis.hget(f"{self._prefix}schemas", fingerprint))
        if found is None:
            return None
        try:
            return Schema(json.loads(found)[0], fingerprint)
        except SchemaError:
            return None

    async def confirm(self) -> None:
        """Return when as many copies as asked for have what was resolved. Raises NotDurableError, StoreError."""
        await self._store.confirm()

    async def resolve(
        self, case: Case, asked_hash: bytes, resolution: bytes, reservation: Reservation | None, funders: Sequence[str]
    ) -> Resolved:
        """Store a resolution where none is, with its reservation or not at all."""
        arguments: list[bytes | str] = [asked_hash, resolution, "" if reservation is None else reservation.packed()]
        arguments += [json.dumps(funders, ensure_ascii=False), case.applicant]
        keys = [self._queue, f"{self._prefix}a:{case.review_id}", self._withdrawn]
        status, stored, at, *now = await self._store.call("resolve", keys, arguments, durable=True)
        if status == b"UNDECIDED":
            raise StoreError("an application that was decided is gone")
        lent = dict(zip(funders, now[1], strict=True)) if now else None
        return Resolved(status.decode(), stored, int(at), int(now[0]) if now else 0, lent)


def _time_ms(case: Case) -> int:
    """When it applied, by the log."""
    return int(case.stream_id.split("-")[0])

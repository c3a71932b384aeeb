"""Applications that wait for a person, and what people decided, in the store (R22).

`commit` queues a decision in {t}:reviews; `resolve` (functions.lua) stores what a person decided beside it, once, and
takes it off the queue. An application is known by its key, a token: its id is stored nowhere.
"""

import json
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from redis.asyncio import Redis

from features.durability import EpochError, StoreError, redis_errors
from features.events import unpack
from features.reservations import Reservation
from features.schema import Schema, SchemaError
from features.store import Store, prefix


@dataclass(frozen=True)
class Case:
    """A decided application. since_ms: when it came to wait, 0 where that was not asked. resolution: what a person
    decided at resolved_at_ms, empty before; asked_hash: of what was asked then.
    """

    review_id: str
    product: str
    stream_id: str
    decision: bytes
    evidence: bytes
    since_ms: int = 0
    resolution: bytes = b""
    asked_hash: bytes = b""
    resolved_at_ms: int = 0


@dataclass(frozen=True)
class Resolved:
    """status: NEW, KNOWN, CONFLICT, UNDECIDED or REFUSED, then with what the borrower has and each funder has lent."""

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
        self._queue = f"{self._prefix}reviews"

    async def page(self, after: tuple[int, str], size: int) -> list[Case]:
        """At most `size` cases that wait, the longest waiting first, after that of a time (ms) and review id."""
        found: list[tuple[int, str]] = []
        offset = 0
        with redis_errors():
            while len(found) < size:
                read: Any = await self._redis.zrange(
                    self._queue, after[0], cast(Any, "+inf"), byscore=True, withscores=True, offset=offset, num=size
                )
                waiting = [(int(since), name.decode()) for name, since in read]
                found += [place for place in waiting if place > after]
                offset += size
                if len(read) < size:
                    break
        return [case for since, name in found[:size] if (case := await self.case(name, since)) is not None]

    async def case(self, review_id: str, since_ms: int = 0) -> Case | None:
        """The application of a review id; None where none was decided under it."""
        fields = ["p", "i", "d", "e", "v", "vh", "vt"]
        with redis_errors():
            asked = self._redis.hmget(f"{self._prefix}a:{review_id}", fields)
            known = [part or b"" for part in await cast(Awaitable[list[bytes | None]], asked)]
        product, stream_id, decision, evidence, resolution, asked_hash, at = known
        if not decision:
            return None
        return Case(
            review_id, product.decode(), stream_id.decode(), decision, evidence, since_ms, resolution, asked_hash,
            int(at or 0),
        )  # fmt: skip

    async def applicant(self, case: Case) -> int:
        """Token of who applied, from the application's event. Raises EpochError where the log no longer has it."""
        with redis_errors():
            found: Any = await self._redis.xrange(f"{self._prefix}log", case.stream_id, case.stream_id)
            if not found:
                raise EpochError("the log no longer holds the application")
            return int(unpack([found[0][1][b"e"]], [0]).fields["tokens"][0, 0])

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
        arguments.append(json.dumps(funders, ensure_ascii=False))
        keys = [self._queue, f"{self._prefix}a:{case.review_id}"]
        status, stored, at, *now = await self._store.call("resolve", keys, arguments, durable=True)
        if status == b"UNDECIDED":
            raise StoreError("an application that was decided is gone")
        lent = dict(zip(funders, now[1], strict=True)) if now else None
        return Resolved(status.decode(), stored, int(at), int(now[0]) if now else 0, lent)

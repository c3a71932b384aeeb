"""One tenant's keys in Redis ≥ 7 or Valkey: the event log, decisions, outcomes and profiles.

One command per stage per batch (see functions.lua for the verbs). `begin` appends a batch and, in the same round trip,
reads the profiles and every event up to the batch's own: that is what makes a decision see all that was accepted
before it, on every replica (R11). Keys hold tokens only (R21). Every failure of Redis is a StoreError.
"""

import json
import secrets
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray
from redis.asyncio import Redis

from features.application import Application, Profile, Report
from features.challenged import FIELD, PROBABILITIES, challengers_said
from features.consent import presented
from features.durability import AT_ONCE, Durability, redis_errors
from features.durability import EpochError as EpochError
from features.durability import StoreError as StoreError
from features.events import Events, pack_application, pack_report
from features.functions import Functions, named
from features.log import LogReader, prefix, time_ms
from features.profiles import Layouts, Profiles
from features.reservations import Committed, Proposal, commit_arguments, committed, given_back
from features.round_trip import round_trip
from features.schema import Schema
from features.statistics import STATISTICS
from features.tokens import Tokenizer

DAY_MS = 86_400_000


class Begun(NamedTuple):
    """What `begin` says of one application: NEW, PENDING, DECIDED (with the decision), CONFLICT or PAST."""

    status: str
    time_ms: int
    sequence: int
    decision: bytes


@dataclass(frozen=True)
class Started:
    """A begun batch: one Begun for each application, and the events not read before.

    profiles: by schema name those of its applications, of which int64 [B] `place` says the row; unreadable: what is
    wrong with profiles that could not be read, which are missing there. borrowers: for each application's whose
    exposure it adds to, and exposure_minor what that one has been approved for and not repaid; lent: by funder. Both
    minor units.
    """

    begun: list[Begun]
    profiles: dict[str, Profiles]
    place: NDArray[np.int64]
    events: Events
    unreadable: list[str]
    borrowers: list[str]
    exposure_minor: list[int]
    lent: dict[str, int]


class Store(LogReader):
    """One tenant's store. `open` first. profile_days: how long after it was fetched a profile is kept, 0 for good."""

    def __init__(
        self, redis: Redis, tenant: str, tokenizer: Tokenizer, schemas: Sequence[Schema],
        durability: Durability = AT_ONCE, profile_days: int = 0,
    ) -> None:  # fmt: skip
        super().__init__(redis, tenant, tokenizer.body_hash(prefix(tenant).encode()).hex())
        self._profile_days = profile_days
        self._functions = Functions(redis, f"{self._prefix}confirmed", durability)
        self._tokenizer = tokenizer
        self._layouts = Layouts(schemas)
        self._schemas: dict[Any, Any] = {
            s.hash: json.dumps([s.document, *STATISTICS], ensure_ascii=False) for s in schemas
        }

    async def prepare(self) -> None:
        """Load the functions where the store lacks them, register schemas, and exchange profile layouts."""
        await self._functions.prepare()
        with redis_errors():
            if self._schemas:
                await cast(Awaitable[Any], self._redis.hset(f"{self._prefix}schemas", mapping=self._schemas))
            if self._layouts.own:
                own = cast("dict[Any, Any]", self._layouts.own)
                await cast(Awaitable[Any], self._redis.hset(f"{self._prefix}layouts", mapping=own))
            await self._learn_layouts()

    async def open(self) -> int:
        """Name the log if it is new and start reading from its beginning; the number of its last event."""
        await self.prepare()
        epoch, sequence, self._rewritten = await self.call("open", [self._meta], [secrets.token_hex(8)])
        self.epoch, self.cursor, self._cursor_sequence = epoch.decode(), "0-0", 0
        return int(sequence)

    async def begin(self, applications: Sequence[Application], funders: Sequence[str] = ()) -> Started:
        """Append what is new of a batch; return it with profiles, totals and all events up to the batch's last.

        Raises StoreError (nothing known to be recorded), EpochError (rebuild).
        """
        keys = [self._log, self._meta, *(self._application_key(a.application_id) for a in applications)]
        keys.append(f"{self._prefix}withdrawn")
        arguments: list[bytes | str] = [self.epoch]
        for a in applications:
            arguments += (a.body_hash, pack_application(a), str(a.event_time_ms or ""), a.product)
        arguments += presented(applications, range(3, len(arguments) + 1, 4))
        by_schema: dict[str, list[int]] = {}
        for i, a in enumerate(applications):
            by_schema.setdefault(a.schema.name, []).append(i)
        read = [key for rows in by_schema.values() for key in self._profile_keys([applications[i] for i in rows])]
        profiles_end = len(read)
        borrowers = [a.borrower for a in applications]
        read += [f"{self._prefix}x:{borrower}" for borrower in borrowers]
        read += [f"{self._prefix}f:{funder}" for funder in funders]
        begin = ("FCALL", named("begin"), len(keys), *keys, *arguments)
        with redis_errors():
            replies, blobs, entries, rewritten = await round_trip(self._redis, (begin, ("MGET", *read), *self._page()))
        begun = [Begun(status.decode(), time_ms(i), sequence, body) for status, i, sequence, body in replies]
        last = max((b.sequence for b in begun if b.status in ("NEW", "PENDING")), default=0)
        events = await self._events((entries, rewritten), last)
        totals = [int(total or 0) for total in blobs[profiles_end:]]
        exposure, lent = totals[: len(applications)], dict(zip(funders, totals[len(applications) :], strict=True))
        profiles, place, unreadable, at = {}, np.zeros(len(applications), dtype=np.int64), list[str](), 0
        for name, rows in by_schema.items():
            schema, end = applications[rows[0]].schema, at + len(rows) * len(applications[rows[0]].schema.sources)
            place[rows] = np.arange(len(rows))
            profiles[name], wrong = await self._profiles(schema, blobs[at:end], len(rows))
            unreadable, at = unreadable + wrong, end
        return Started(begun, profiles, place, events, unreadable, borrowers, exposure, lent)

    async def commit(self, proposals: Sequence[Proposal], funders: Sequence[str] = ()) -> Committed:
        """Store decisions where none is stored, each with its reservation or not at all; what is stored then.

        Raises NotDurableError where they are stored and too few have confirmed it.
        """
        keys = self.keys("decisions", "reviews", "meta")
        keys += [self._application_key(p.application_id) for p in proposals]
        stored, lent = await self.call("commit", keys, commit_arguments(proposals, funders), durable=True)
        if None in stored:
            raise EpochError("an application that was begun is gone, or stands elsewhere in another log")
        return committed(stored, lent, funders)

    async def decision(self, application_id: str) -> tuple[bytes, bytes] | None:
        """The stored decision and its evidence; None where there is none."""
        decision, evidence = await self._application(application_id, "d", "e")
        return None if decision is None else (decision, evidence or b"")

    async def put_challenger(self, version: str, scored: Sequence[tuple[str, float, float]]) -> int:
        """Record once, beside decisions, (application_id, fraud, default probability); how many are new."""
        keys = [self._application_key(application_id) for application_id, _, _ in scored]
        packed = [PROBABILITIES.pack(fraud, default) for _, fraud, default in scored]
        return int(await self.call("put_challenger", keys, [f"{FIELD}{version}", *packed]))

    async def challengers(self, application_id: str) -> dict[str, tuple[float, float]]:
        """By version of each challenger recorded for an application, its fraud and default probability."""
        with redis_errors():
            fields: Any = await self._redis.hgetall(self._application_key(application_id))
        return challengers_said(fields)

    async def product(self, application_id: str) -> str | None:
        """The product that an application was made for; None where there is no such application."""
        (product,) = await self._application(application_id, "p")
        return None if product is None else product.decode()

    async def _application(self, application_id: str, *fields: str) -> list[bytes | None]:
        with redis_errors():
            known = self._redis.hmget(self._application_key(application_id), list(fields))
            return await cast(Awaitable[list[bytes | None]], known)

    async def report(self, reports: Sequence[tuple[Report, Schema]]) -> list[tuple[str, int]]:
        """Append outcomes; for each the status NEW, KNOWN, CONFLICT, NOT_FOUND or PAST, and its sequence number.

        Raises NotDurableError where they are recorded and too few have confirmed it.
        """
        keys, arguments = [self._log, self._meta], cast("list[bytes | str]", [self.epoch])
        for item, schema in reports:
            outcome = f"{self._prefix}o:{self._tokenizer.key(item.outcome_id)}"
            keys += [self._application_key(item.application_id), outcome]
            told = f"{item.application_id}\0{item.kind}" + (f"\0{item.amount_minor}" if item.amount_minor else "")
            arguments += [self._tokenizer.body_hash(told.encode()), pack_report(item, schema)]
            arguments += [str(item.event_time_ms or ""), given_back(item)]
        replies = await self.call("report", keys, arguments, durable=True)
        return [(status.decode(), int(sequence)) for status, sequence in replies]

    async def put_profiles(self, profiles: Sequence[tuple[int, Schema, Profile]]) -> list[bool]:
        """Store (token of whom it knows, schema, profile); False where a newer one was there, whom it knows was
        forgotten since it was fetched, or that is longer ago than profiles are kept.
        """
        keys = [f"{self._prefix}withdrawn"]
        keys += [self._profile_key(profile.source, token) for token, _, profile in profiles]
        arguments: list[bytes | str] = [str(self._profile_days * DAY_MS)]
        arguments += [self._layouts.pack(schema, profile) for _, schema, profile in profiles]
        return [reply == 1 for reply in await self.call("put_profiles", keys, arguments)]

    async def schemas(self) -> dict[str, Any]:
        """By hash the document of every schema that a server of this tenant has had."""
        with redis_errors():
            known: Any = await self._redis.hgetall(f"{self._prefix}schemas")
        return {name.decode(): json.loads(text)[0] for name, text in known.items()}

    async def _profiles(
        self, schema: Schema, blobs: Sequence[bytes | None], applications: int
    ) -> tuple[Profiles, list[str]]:
        """As Layouts.read, of each source's blobs in turn; a layout that a newer server registered is learned first."""
        of_source = [blobs[i : i + applications] for i in range(0, len(blobs), applications)]
        profiles, unreadable = self._layouts.read(schema, of_source, applications)
        if unreadable:
            with redis_errors():
                await self._learn_layouts()
            profiles, unreadable = self._layouts.read(schema, of_source, applications)
        return profiles, unreadable

    async def _learn_layouts(self) -> None:
        known = await cast(Awaitable[dict[bytes, bytes]], self._redis.hgetall(f"{self._prefix}layouts"))
        self._layouts.learn(known)

    async def call(
        self, verb: str, keys: Sequence[str], arguments: Sequence[bytes | str], durable: bool = False
    ) -> Any:
        """The reply of a verb; a `durable` one when as many as asked for have confirmed it. Raises StoreError."""
        return await self._functions.call(verb, keys, arguments, durable)

    async def confirm(self) -> None:
        """Return when as many as asked for have all that was written so far. Raises NotDurableError, StoreError."""
        await self._functions.confirm()

    def keys(self, *names: str) -> list[str]:
        """Keys of the tenant, named without its prefix."""
        return [self._prefix + name for name in names]

    def _application_key(self, application_id: str) -> str:
        return f"{self._prefix}a:{self._tokenizer.key(application_id)}"

    def _profile_keys(self, applications: Sequence[Application]) -> list[str]:
        """Of applications of one schema, those of each source in turn."""
        subjects = {
            slot: [f"{a.tokens.item(slot):016x}" for a in applications]
            for slot in {source.slot for source in applications[0].schema.sources.values()}
        }
        return [
            f"{self._prefix}p:{name}:{subject}"
            for name, source in applications[0].schema.sources.items()
            for subject in subjects[source.slot]
        ]

    def _profile_key(self, source: str, subject: int) -> str:
        return f"{self._prefix}p:{source}:{subject:016x}"

"""The five steps of a decision, on a batch, for one tenant; knows nothing of gRPC.

1 begin and read (one round trip) · 2 graph · 3 assemble and score · 4 policy · 5 commit (one round trip).
Steps 1 and 2 run strictly in order under one lock, which is the tenant's sequencer; 3 to 5 of two batches may overlap.
After begin nothing is dropped: a decision that is not committed is taken again when the application is sent again,
with its own marks masked out of the graph.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import structlog
from numpy.typing import NDArray

from features.application import Application, Profile, Report, tokens_of
from features.assemble import assemble
from features.consent import as_logged, logged
from features.events import LABEL_BAD
from features.forget import Forgetting, Forgotten, forget
from features.graph import SequenceGapError
from features.graph_snapshot import folder_of
from features.list_entries import ListEntries
from features.lists import Lists
from features.neighborhood import Neighborhood, join
from features.rebuild import read_to, rebuild
from features.schema import SLOTS_MAX, Schema
from features.specs import LISTS
from features.store import Begun, EpochError, Started, Store, StoreError
from features.tokens import Tokenizer
from policy.inputs import Asked, input_values
from server import wire
from server.batcher import Reply
from server.challengers import Challengers
from server.clock import Clock
from server.errors import ConflictError, NotFoundError, UnavailableError
from server.placement import Placement, Told, links_of
from server.products import Product
from server.replies import Place, addressed
from server.reservations import Scored, Totals, settle

TAIL_SECONDS = 0.5  # how far an idle replica may lag behind the log

log = structlog.get_logger()


class _Seen(NamedTuple):
    """What the log tells of a batch: int64 [B], the row of each application in what follows, -1 where none is needed;
    the view; of each row of it how many tokens are on each list, int64 [rows, 3]; and, by product, what a device has
    scored already.
    """

    rows: NDArray[np.int64]
    view: Neighborhood
    listed: NDArray[np.int64]
    scored: Mapping[str, Told]


class Engine:
    """Decides for one tenant. `ready` is False until the log was read, and while it must be read again."""

    def __init__(
        self, tenant: str, store: Store, products: Mapping[str, Product], challengers: Challengers,
        entries: ListEntries | None = None, snapshots: Path | None = None, placement: Placement | None = None,
    ) -> None:  # fmt: skip
        self.tenant = tenant
        self.ready = False
        self._store = store
        self._products = products
        self._challengers = challengers
        self._entries = entries
        self._snapshots = None if snapshots is None else folder_of(snapshots, tenant)
        self.graph, self._lists = placement or Placement(), Lists()
        self._complete = False  # whether the graph holds the log up to the store's cursor
        self._sequencer = asyncio.Lock()
        self._problem = ""  # what was logged of a store that is lost, once

    async def follow(self) -> None:
        """Read the log, from a snapshot or from its beginning, then keep up with it; recovers. Runs until cancelled."""
        while True:
            try:
                async with self._sequencer:
                    if not self._complete:
                        await self._rebuild()
                    elif not self.ready:
                        await self._store.prepare()
                    if self._entries is not None:
                        await self._entries.share()
                    await self._catch_up()
                    self.ready, self._problem = True, ""
                if await self.graph.return_to(self._sequencer):
                    log.info("graph_on_device", tenant=self.tenant, events=self.graph.sequence)
            except (StoreError, SequenceGapError) as error:
                self._lost(error)
            if (task := asyncio.current_task()) and task.cancelling():  # swallowed inside: wait_for of Python 3.11
                raise asyncio.CancelledError
            await asyncio.sleep(TAIL_SECONDS)

    async def decide(self, take: Callable[[], Sequence[Application]]) -> list[Reply | Exception]:
        """A Reply or an error for each application that `take` gives when the sequencer is free.

        Raises UnavailableError or StoreError for the whole batch.
        """
        with self._challengers.held():
            return await self._decide(take)

    async def _decide(self, take: Callable[[], Sequence[Application]]) -> list[Reply | Exception]:
        self._check_ready()
        async with self._sequencer:
            self._check_ready()
            batch, clock = take(), Clock()
            if not batch:
                return []
            products = dict(self._products)  # as they are now: others may come before the store answers
            funders = dict.fromkeys(f for product in products.values() for f in product.policy.funders)
            try:
                started = await self._store.begin(batch, list(funders))
                clock.mark("begin")
                seen = self._observe(batch, started, products)
            except (StoreError, SequenceGapError) as error:
                self._lost(error)
                raise UnavailableError("the event log is being read again; send the same request again") from error
            epoch = self._store.epoch
            clock.mark("graph")
        borrowers = [a.borrower for a in batch]  # whoever is forgotten owes what they owe
        for problem in started.unreadable:
            log.error("profile_unreadable", tenant=self.tenant, problem=problem)
        replies = [_settled(a, begun) for a, begun in zip(batch, started.begun, strict=True)]
        waits = [i for i, reply in enumerate(replies) if reply is None]
        # one that stands in the batch twice is decided, and takes its room, once
        first_of = {started.begun[i].sequence: i for i in reversed(waits)}
        scored = []
        for name in dict.fromkeys(batch[i].product for i in waits):
            mine, product = sorted(i for i in first_of.values() if batch[i].product == name), products[name]
            of_mine = [borrowers[i] for i in mine]
            scored.append(self._score(product, batch, of_mine, started, mine, seen, epoch, clock))
        if scored:
            exposure = dict(zip(borrowers, started.exposure_minor, strict=True))
            stored, own = await settle(self._store, scored, Totals(exposure, started.lent), clock)
            stage_us = str(clock)
            for i in waits:
                body = stored[first_of[started.begun[i].sequence]]
                replies[i] = Reply(addressed(batch[i].application_id, body), stage_us)
            for some in scored if own else ():  # else another replica decided, on other rows
                if challengers := some.product.challengers:
                    ids = [application.application_id for application in some.applications]
                    self._challengers.offer(self._store, challengers, ids, some.snapshot)
        elif any(isinstance(reply, Reply) for reply in replies):
            await self._store.confirm()  # what is said again is as safe as when it is said first
        return [reply for reply in replies if reply is not None]

    async def decision(self, application_id: str) -> bytes:
        """The decision stored for an application, as first sent. Raises NotFoundError."""
        stored = await self._store.decision(application_id)
        if stored is None:
            raise NotFoundError("application_id: no decision is stored for it")
        return addressed(application_id, stored[0])

    async def report(self, report: Report) -> int:
        """Append an outcome; its sequence number. Raises NotFoundError, ConflictError."""
        product = await self._store.product(report.application_id)
        if product is None:
            raise NotFoundError("application_id: no such application")
        if product not in self._products:
            raise UnavailableError(f"its product {product} is not served here")
        status, sequence = (await self._store.report([(report, self._products[product].schema)]))[0]
        if status == "CONFLICT":
            raise ConflictError("outcome_id: known with another application or kind")
        if status == "PAST":
            raise wire.past_event()
        return sequence

    async def put_profile(self, subject: int, schema: Schema, profile: Profile) -> bool:
        """Store a profile of whom or what the token stands for; False where a newer one was there."""
        return (await self._store.put_profiles([(subject, schema, profile)]))[0]

    async def standing(self, sequence: int, tokens: NDArray[np.uint64]) -> tuple[bool, int]:
        """Whether fraud is known by now of the application of a number, and how many of its tokens, uint64 [16], are on
        the tenant's own black list now. Raises UnavailableError.
        """
        async with self._sequencer:
            self._check_ready()
            try:
                await self._catch_up()
            except (StoreError, SequenceGapError) as error:
                self._lost(error)
                raise UnavailableError("the event log is being read again; send the same request again") from error
            fraud = self.graph.host.labels(np.array([sequence]))["fraud"][0] == LABEL_BAD
            now_ms = np.array([round(time.time() * 1000)])
            return bool(fraud), int(self._lists.count(tokens[None], _NO_TOKENS, now_ms)[0, LISTS.index("black")])

    async def forget(self, tokenizer: Tokenizer, asked: Forgetting) -> Forgotten:
        """Record a request to forget. Raises InvalidFieldError, UnavailableError, StoreError."""
        self._check_ready()
        return await forget(self._store, tokenizer, asked)

    def _check_ready(self) -> None:
        if not self.ready:
            raise UnavailableError("the event log is being read; try again")

    async def _rebuild(self) -> None:
        warn = partial(log.warning, "snapshot_unfit", tenant=self.tenant)
        graph, self._lists = await rebuild(self._store, self._snapshots, lambda problem: warn(problem=problem))
        self.graph.hold(graph)
        if self._entries is not None:
            await self._entries.take_again()
        self._complete = True
        log.info("log_read", tenant=self.tenant, events=graph.sequence, entities=graph.nodes)

    async def _catch_up(self) -> None:
        await read_to(self._store, self.graph, self._lists, await self._store.position())

    def _lost(self, error: Exception) -> None:
        if (problem := str(error)) != self._problem:
            log.error("log_lost", tenant=self.tenant, problem=problem)
        self._problem = problem
        self.ready = False
        self._complete = self._complete and not isinstance(error, (EpochError, SequenceGapError))

    def _observe(self, batch: Sequence[Application], started: Started, products: Mapping[str, Product]) -> _Seen:
        """Record the events read; what a device may take is scored too."""
        before = self.graph.sequence
        self.graph.host.deep = any(product.deep for product in products.values())
        own: dict[int, int] = {}
        for i, (status, _, sequence, _) in enumerate(started.begun):
            if status == "NEW" and sequence <= before:
                raise SequenceGapError(f"new event {sequence} after event {before}")
            if status in ("NEW", "PENDING"):
                own.setdefault(sequence, i)
        fresh = sorted([sequence for sequence in own if sequence > before])
        mine, sequences = [batch[own[sequence]] for sequence in fresh], np.array(fresh, dtype=np.int64)
        found = None
        if len(fresh) == len(own):
            found = self.graph.decide(products, batch, started, sequences, [own[sequence] for sequence in fresh])
        view = self.graph.observe(started.events, sequences, links_of(mine)) if found is None else found.view
        shared = tokens_of([a.shared_tokens for a in mine])
        listed = self._lists.observe(
            started.events, sequences, shared * logged(view) if np.count_nonzero(shared) else shared
        )
        if again := [sequence for sequence in own if sequence <= before]:
            # begun before and never decided: look from here, with its own marks masked
            mine = [batch[own[sequence]] for sequence in again]
            now = self.graph.host.review(np.array(again), links_of(mine))
            tokens, shared = tokens_of([a.tokens for a in mine]), tokens_of([a.shared_tokens for a in mine])
            on = self._lists.count(tokens * logged(now), shared * logged(now), now.time_ms)
            view, listed = join(view, now), np.concatenate([listed, on])
        row_of = {sequence: row for row, sequence in enumerate(fresh + again)}
        rows = np.array([row_of.get(b.sequence, -1) for b in started.begun], dtype=np.int64)
        return _Seen(rows, view, listed, {} if found is None else found.scored)

    def _score(
        self, product: Product, batch: Sequence[Application], borrowers: Sequence[str], started: Started,
        mine: Sequence[int], seen: _Seen, epoch: str, clock: Clock,
    ) -> Scored:  # fmt: skip
        """Step 3 for the applications of one product, at `mine` of the batch; `borrowers` are theirs."""
        chosen, given = np.array(mine), [batch[i] for i in mine]
        at = seen.rows[chosen]
        applications = as_logged(given, seen.view, at)
        profiles = started.profiles[product.schema.name]
        if len(mine) < len(profiles):
            profiles = profiles.take(started.place[chosen])
        if applications is not given:
            profiles = profiles.about(product.schema, logged(seen.view)[at])
        if product.name in seen.scored:
            snapshot, scores = seen.scored[product.name]
        else:
            snapshot = assemble(product.schema, applications, profiles, seen.view, at)
            clock.mark("assemble")
            scores = product.scorer.score(snapshot)
        asked, known = Asked.of(applications), product.known(snapshot, scores, seen.listed[at])
        clock.mark("score")
        values = input_values(product.schema, product.policy.columns, snapshot, asked, known)
        begun = np.array([(b.sequence, b.time_ms) for b in (started.begun[i] for i in mine)], dtype=np.int64)
        place = Place(epoch, begun[:, 0], seen.view.as_of[at], begun[:, 1])
        return Scored(
            product, mine, applications, borrowers, snapshot, scores, asked, known, values, profiles.fetched_at_ms,
            seen.view.time_ms[at], place,
        )  # fmt: skip


def _settled(application: Application, begun: Begun) -> Reply | Exception | None:
    """The answer that `begin` already gives; None where a decision has to be taken."""
    match begun.status:
        case "DECIDED":
            return Reply(addressed(application.application_id, begun.decision), "")
        case "CONFLICT":
            return ConflictError("application_id: known with another body")
        case "PAST":
            return wire.past_event()
    return None


_NO_TOKENS = np.empty((0, SLOTS_MAX), dtype=np.uint64)

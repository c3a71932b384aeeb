"""The five steps of a decision, on a batch, for one tenant; knows nothing of gRPC.

1 begin and read (one round trip) · 2 graph · 3 assemble and score · 4 policy · 5 commit (one round trip).
Steps 1 and 2 run strictly in order under one lock, which is the tenant's sequencer; 3 to 5 of two batches may overlap.
After begin nothing is dropped: a decision that is not committed is taken again when the application is sent again,
with its own marks masked out of the graph.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import structlog
from numpy.typing import NDArray

from features import evidence
from features.application import Application, Profile, Reason, Report, Snapshot
from features.assemble import assemble
from features.evidence import Facts
from features.graph import EntityGraph, SequenceGapError
from features.neighborhood import Neighborhood, join
from features.schema import SLOTS_MAX, Schema
from features.store import Begun, EpochError, Started, Store, StoreError
from policy.decide import Decisions
from policy.inputs import Asked, input_values
from proto.miaopi.v1 import decision_pb2 as pb
from server import wire
from server.batcher import Reply
from server.challengers import Challengers
from server.errors import ConflictError, NotFoundError, UnavailableError
from server.products import Product

TAIL_SECONDS = 0.5  # how far an idle replica may lag behind the log

log = structlog.get_logger()


class Engine:
    """Decides for one tenant. `ready` is False until the log was read, and while it must be read again."""

    def __init__(self, tenant: str, store: Store, products: Mapping[str, Product], challengers: Challengers) -> None:
        self.tenant = tenant
        self.ready = False
        self._store = store
        self._products = products
        self._challengers = challengers
        self._graph = EntityGraph()
        self._complete = False  # whether the graph holds the log up to the store's cursor
        self._sequencer = asyncio.Lock()

    async def follow(self) -> None:
        """Read the log from its beginning, then keep up with it; recovers by itself. Runs until cancelled."""
        while True:
            try:
                async with self._sequencer:
                    if not self._complete:
                        await self._rebuild()
                    elif not self.ready:
                        await self._store.prepare()
                    await self._catch_up()
                    self.ready = True
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
            batch, clock = take(), _Clock()
            if not batch:
                return []
            try:
                started = await self._store.begin(batch)
                clock.mark("begin")
                rows, view = self._observe(batch, started)
            except (StoreError, SequenceGapError) as error:
                self._lost(error)
                raise UnavailableError("the event log is being read again; send the same request again") from error
            epoch = self._store.epoch
            clock.mark("graph")
        for problem in started.unreadable:
            log.error("profile_unreadable", tenant=self.tenant, problem=problem)
        replies = [_settled(a, begun) for a, begun in zip(batch, started.begun, strict=True)]
        open_rows = [i for i, reply in enumerate(replies) if reply is None]
        evaluated, challenged = [], []
        for name in dict.fromkeys(batch[i].product for i in open_rows):
            mine, product = [i for i in open_rows if batch[i].product == name], self._products[name]
            decided, snapshot = self._evaluate(product, batch, started, mine, rows, view, epoch, clock)
            evaluated += decided
            if product.challengers:
                challenged.append((product.challengers, [batch[i].application_id for i in mine], snapshot))
        if evaluated:
            stored = await self._store.commit([(batch[i].application_id, body, facts) for i, body, facts in evaluated])
            clock.mark("commit")
            for (i, _, _), body in zip(evaluated, stored, strict=True):
                replies[i] = Reply(wire.addressed(batch[i].application_id, body), clock.stage_us)
            if stored == [body for _, body, _ in evaluated]:  # else another replica decided, on other rows
                for offered in challenged:
                    self._challengers.offer(self._store, *offered)
        return [reply for reply in replies if reply is not None]

    async def decision(self, application_id: str) -> bytes:
        """The decision stored for an application, as first sent. Raises NotFoundError."""
        stored = await self._store.decision(application_id)
        if stored is None:
            raise NotFoundError("application_id: no decision is stored for it")
        return wire.addressed(application_id, stored[0])

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

    def _check_ready(self) -> None:
        if not self.ready:
            raise UnavailableError("the event log is being read; try again")

    async def _rebuild(self) -> None:
        self._graph = EntityGraph()
        await self._read_to(await self._store.open())
        self._complete = True
        log.info("log_read", tenant=self.tenant, events=self._graph.sequence, entities=self._graph.nodes)

    async def _catch_up(self) -> None:
        await self._read_to(await self._store.position())

    async def _read_to(self, last: int) -> None:
        """Record the log up to the event numbered `last`. Raises EpochError where it holds less than is recorded."""
        if last < self._graph.sequence:
            raise EpochError("the log has lost events")
        while self._graph.sequence < last:
            events = await self._store.tail()
            if not len(events):
                raise EpochError(f"the log ends at {self._graph.sequence}, {last} expected")
            self._graph.observe(events, _NONE, _NO_LINKS)

    def _lost(self, error: Exception) -> None:
        if self.ready:
            log.error("log_lost", tenant=self.tenant, problem=str(error))
        self.ready = False
        self._complete = self._complete and not isinstance(error, (EpochError, SequenceGapError))

    def _observe(self, batch: Sequence[Application], started: Started) -> tuple[NDArray[np.int64], Neighborhood]:
        """Record the events read; int64 [B] row of each application in the Neighborhood, -1 where none is needed."""
        links = np.zeros((len(batch), SLOTS_MAX), dtype=np.bool_)
        before = self._graph.sequence
        row_of: dict[int, int] = {}
        for application, begun in zip(batch, started.begun, strict=True):
            if begun.status == "NEW" and begun.sequence <= before:
                raise SequenceGapError(f"new event {begun.sequence} after event {before}")
            if begun.status in ("NEW", "PENDING") and begun.sequence not in row_of:
                links[len(row_of), : application.schema.slots] = application.schema.link_slots
                row_of[begun.sequence] = len(row_of)
        sequences = np.array(list(row_of), dtype=np.int64)
        fresh = sequences > before
        order = np.argsort(sequences[fresh])
        view = self._graph.observe(started.events, sequences[fresh][order], links[: len(sequences)][fresh][order])
        place = {int(s): i for i, s in enumerate(sequences[fresh][order])}
        if not fresh.all():  # begun before and never decided: look from here, with its own marks masked
            again = sequences[~fresh]
            place.update({int(s): len(place) + i for i, s in enumerate(again)})
            view = join(view, self._graph.review(again, links[: len(sequences)][~fresh]))
        return np.array([place.get(b.sequence, -1) for b in started.begun], dtype=np.int64), view

    def _evaluate(
        self,
        product: Product,
        batch: Sequence[Application],
        started: Started,
        mine: Sequence[int],
        rows: NDArray[np.int64],
        view: Neighborhood,
        epoch: str,
        clock: "_Clock",
    ) -> tuple[list[tuple[int, bytes, bytes]], Snapshot]:
        """(index in the batch, decision, evidence) of the applications of one product, and what was scored."""
        applications = [batch[i] for i in mine]
        profiles = [started.profiles[i] for i in mine]
        snapshot = assemble(product.schema, applications, profiles, view, rows[mine])
        clock.mark("assemble")
        scores = product.scorer.score(snapshot)
        asked, known = Asked.of(applications), product.known(snapshot, scores)
        clock.mark("score")
        values = input_values(product.schema, product.policy.columns, snapshot, asked, known)
        decisions = product.policy.decide(asked, values)
        reasons = model_reasons(product, snapshot, decisions)
        clock.mark("policy")
        out = []
        for row, i in enumerate(mine):
            begun, as_of, time_ms = started.begun[i], int(view.as_of[rows[i]]), int(view.time_ms[rows[i]])
            position = pb.LogPosition(epoch=epoch, sequence=begun.sequence, as_of=as_of, event_time_ms=begun.time_ms)
            reply = wire.decision_reply(product, decisions[row], reasons[row], scores, row, position)
            facts = Facts(
                product.bundle_version, product.policy.version, product.schema.hash, epoch, begun.sequence, as_of,
                time_ms, {name: p.fetched_at_ms for name, p in profiles[row].items()}, decisions[row].outcome.name,
                evidence.known(scores.fraud_probability[row]), evidence.known(scores.default_probability[row]),
                decisions[row].approved_amount_minor, decisions[row].annual_rate, decisions[row].grade,
                asked.facts(row), int(known.exposure_minor[row]), {},
                evidence.known(known.residual_low[row]), known.listed[row].tolist(),
                [reason.code for reason in decisions[row].reasons],
            )  # fmt: skip
            out.append((i, reply, evidence.pack(facts, snapshot.features[row])))
        clock.mark("encode")
        return out, snapshot


def model_reasons(product: Product, snapshot: Snapshot, decisions: Decisions) -> list[list[Reason]]:
    """For each decision the features that moved the models whose policy rows fired, most important first."""
    reasons: list[list[Reason]] = [[] for _ in range(len(decisions))]
    for label in product.schema.labels:
        rows = np.array([i for i in range(len(decisions)) if label in decisions[i].explain], dtype=np.int64)
        if len(rows):
            for row, some in zip(rows, product.scorer.reasons(label, snapshot.take(rows)), strict=True):
                reasons[row] += some
    return [sorted(some, key=lambda r: -r.contribution) for some in reasons]


def _settled(application: Application, begun: Begun) -> Reply | Exception | None:
    """The answer that `begin` already gives; None where a decision has to be taken."""
    match begun.status:
        case "DECIDED":
            return Reply(wire.addressed(application.application_id, begun.decision), {})
        case "CONFLICT":
            return ConflictError("application_id: known with another body")
        case "PAST":
            return wire.past_event()
    return None


class _Clock:
    """Time spent in each stage of a batch, µs."""

    def __init__(self) -> None:
        self.stage_us: dict[str, int] = {}
        self._last = time.perf_counter()

    def mark(self, stage: str) -> None:
        now = time.perf_counter()
        self.stage_us[stage] = self.stage_us.get(stage, 0) + round((now - self._last) * 1e6)
        self._last = now


_NONE = np.empty(0, dtype=np.int64)
_NO_LINKS = np.empty((0, SLOTS_MAX), dtype=np.bool_)

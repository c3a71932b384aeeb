"""The engine in this process on a real store: serving equals replay, and no batch changes an answer."""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace

import numpy as np
import pytest
from redis.asyncio import Redis
from structlog.testing import capture_logs

from bench import history, world
from bench.serving import SECRET
from features import evidence
from features.application import Application, Report
from features.load import load_profiles
from features.replay import History, replay
from features.store import Store
from features.tokens import Tokenizer
from proto.miaopi.v1 import decision_pb2 as pb
from server import products
from server.batcher import Reply
from server.challengers import Challengers
from server.engine import Engine
from server.errors import NotFoundError, UnavailableError
from server.placement import Placement
from server.products import Product
from server.replies import addressed
from server.settings import Settings
from tests.conftest import SCANNED

TOKENIZER = Tokenizer(SECRET.encode())
APPLICATIONS = 1000


@pytest.fixture(scope="module")
def served() -> dict[str, Product]:
    return products.load(Settings())


@pytest.fixture(scope="module")
def past() -> History:
    """A small world: its events, and its profiles by applicant."""
    made = world.build(7, APPLICATIONS)
    of_product = history.schemas_by_product()
    known = history.profiles(made.profiles, of_product, TOKENIZER)
    return history.history(made.events, known, of_product, TOKENIZER)


@asynccontextmanager
async def engine_on(
    redis: Redis, tenant: str, served: dict[str, Product], past: History, placement: Placement | None = None
) -> AsyncIterator[tuple[Engine, Store]]:
    """A ready engine over a store that holds the profiles of `past`."""
    schemas = {p.schema.name: p.schema for p in served.values()}
    store = Store(redis, tenant, TOKENIZER, list(schemas.values()))
    await store.prepare()
    knows = {source: schema for schema in schemas.values() for source in schema.sources}
    await load_profiles(store, [(t, knows[p.source], p) for t, some in past.profiles.items() for p in some.values()])
    engine = Engine(tenant, store, served, Challengers(), placement=placement)
    follower = asyncio.create_task(engine.follow())
    await until_ready(engine)
    yield engine, store
    follower.cancel()
    with suppress(asyncio.CancelledError):
        await follower


async def until_ready(engine: Engine) -> None:
    async with asyncio.timeout(20):
        while not engine.ready:
            await asyncio.sleep(0.01)


async def decide(engine: Engine, batch: list[Application]) -> list[Reply | Exception]:
    return await engine.decide(lambda: batch)


def batches(events: Sequence[Application | Report], seed: int | None) -> list[list[Application | Report]]:
    """Events in order, in batches of one or (with a seed) of 1 to 40; a report stands alone."""
    chance = random.Random(seed)
    out: list[list[Application | Report]] = []
    room = 0
    for event in events:
        if isinstance(event, Report) or room == 0 or isinstance(out[-1][-1], Report):
            out.append([])
            room = 1 if seed is None else chance.randint(1, 40)
        out[-1].append(event)
        room -= 1
    return out


async def run(engine: Engine, events: Sequence[Application | Report], seed: int | None) -> list[pb.DecideResponse]:
    """Every application decided, every outcome reported; replies in order."""
    replies = []
    for batch in batches(events, seed):
        if isinstance(batch[0], Report):
            await engine.report(batch[0])
        else:
            for reply in await decide(engine, [a for a in batch if isinstance(a, Application)]):
                assert isinstance(reply, Reply), reply
                replies.append(pb.DecideResponse.FromString(reply.body))
    return replies


def essence(reply: pb.DecideResponse) -> tuple[object, ...]:
    """What no batch may change at all."""
    return (
        reply.outcome, reply.approved_amount_minor, reply.annual_rate, reply.grade, tuple(reply.degraded),
        tuple((r.code, r.evidence) for r in reply.reasons), reply.log_position.as_of,
    )  # fmt: skip


async def test_serving_equals_replay_in_any_batch(
    redis: Redis, tenant: str, served: dict[str, Product], past: History
) -> None:
    async with engine_on(redis, tenant, served, past) as (engine, _):
        alone = await run(engine, past.events, None)
    async with engine_on(redis, f"{tenant}-b", served, past) as (engine, _):
        together = await run(engine, past.events, 5)
    assert len(alone) == APPLICATIONS
    for one, other in zip(alone, together, strict=True):
        assert essence(one) == essence(other)
        assert abs(one.fraud_probability - other.fraud_probability) <= 1e-6
        assert abs(one.default_probability - other.default_probability) <= 1e-6
        assert [r.contribution for r in one.reasons] == pytest.approx([r.contribution for r in other.reasons], abs=1e-6)
    by_id = {reply.application_id: reply for reply in alone}
    for rows in replay(past).values():
        scores = served[rows.schema.products[0]].scorer.score(rows.snapshot)
        served_scores = np.array([by_id[i].fraud_probability for i in rows.application_ids])
        np.testing.assert_allclose(served_scores, scores.fraud_probability, atol=1e-6, rtol=0)
        served_scores = np.array([by_id[i].default_probability for i in rows.application_ids])
        np.testing.assert_allclose(served_scores, scores.default_probability, atol=1e-6, rtol=0)


async def test_outcomes_differ(redis: Redis, tenant: str, served: dict[str, Product], past: History) -> None:
    """The world above exercises more than one outcome, or the equalities would be empty."""
    async with engine_on(redis, tenant, served, past) as (engine, _):
        outcomes = {reply.outcome for reply in await run(engine, past.events, 3)}
    assert {pb.OUTCOME_APPROVE, pb.OUTCOME_REVIEW, pb.OUTCOME_DECLINE} <= outcomes


async def test_evidence_recomputes_the_decision(
    redis: Redis, tenant: str, served: dict[str, Product], past: History
) -> None:
    """From the log up to as_of, the stored row's velocity and graph features come out again, and its scores."""
    events = past.events[:200]
    async with engine_on(redis, tenant, served, past) as (engine, store):
        replies = {reply.application_id: reply for reply in await run(engine, events, 9)}
        stored = {name: await store.decision(name) for name in replies}
    for rows in replay(replace(past, events=events)).values():
        product = served[rows.schema.products[0]]
        for row, name in enumerate(rows.application_ids):
            kept = stored[name]
            assert kept is not None
            assert pb.DecideResponse.FromString(addressed(name, kept[0])) == replies[name]
            assert name.encode() not in kept[0]  # an id may be personal
            facts, features = evidence.unpack(kept[1])
            assert (facts.as_of, facts.bundle) == (replies[name].log_position.as_of, product.bundle_version)
            np.testing.assert_array_equal(features, rows.snapshot.features[row])


async def test_retry_after_a_crash_masks_its_own_marks(
    redis: Redis, tenant: str, served: dict[str, Product], past: History
) -> None:
    """Begun and never decided: one event, one decision, as if it had come last."""
    applications = [e for e in past.events if isinstance(e, Application)][:60]
    lost, others = applications[0], [a._replace(event_time_ms=0) for a in applications[1:]]
    lost = lost._replace(event_time_ms=0)
    async with engine_on(redis, tenant, served, past) as (engine, store):
        crashed = Store(redis, tenant, TOKENIZER, [p.schema for p in served.values()])
        await crashed.open()
        await crashed.begin([lost])
        await run(engine, others, 2)
        reply = (await run(engine, [lost], None))[0]
        again = (await run(engine, [lost], None))[0]
        assert await store.position() == len(applications)
        stored = await store.decision(lost.application_id)
    assert reply == again
    assert (reply.log_position.sequence, reply.log_position.as_of) == (1, len(applications))
    # the same log without it, then it: velocity and graph features are those of the masked retry
    last = lost._replace(event_time_ms=others[-1].event_time_ms or 1)
    rows = replay(History([*others, last], past.profiles))[lost.schema.name]
    assert stored is not None and rows.application_ids[-1] == lost.application_id
    _, features = evidence.unpack(stored[1])
    counts = [i for i, f in enumerate(lost.schema.features) if f.stat.startswith(("count_all", "linked_", "distinct"))]
    np.testing.assert_array_equal(features[counts], rows.snapshot.features[-1, counts])


async def test_recovers_when_the_log_is_lost(
    redis: Redis, tenant: str, served: dict[str, Product], past: History
) -> None:
    applications = [e._replace(event_time_ms=0) for e in past.events if isinstance(e, Application)][:4]
    async with engine_on(redis, tenant, served, past) as (engine, _):
        await run(engine, applications[:2], None)
        await redis.delete(*[key async for key in redis.scan_iter(f"{{{tenant}}}:*", SCANNED)])
        with pytest.raises(UnavailableError):
            await decide(engine, applications[2:3])
        await until_ready(engine)
        reply = (await run(engine, applications[2:3], None))[0]
        assert reply.log_position.sequence == 1


async def test_notices_a_store_that_went_back(
    redis: Redis, tenant: str, served: dict[str, Product], past: History
) -> None:
    """A failover lost the last events and others were written since: the log is read again, not continued."""
    applications = [e._replace(event_time_ms=0) for e in past.events if isinstance(e, Application)][:9]
    async with engine_on(redis, tenant, served, past) as (engine, _):
        await run(engine, applications[:4], None)
        log, meta = f"{{{tenant}}}:log", f"{{{tenant}}}:meta"
        await redis.delete(log)
        await redis.hset(meta, "sequence", 0)
        other = Store(redis, tenant, TOKENIZER, [p.schema for p in served.values()])
        await other.open()
        await other.begin(applications[4:8])
        with pytest.raises(UnavailableError):
            await decide(engine, applications[8:])
        await until_ready(engine)
        reply = (await run(engine, applications[8:], None))[0]
        assert reply.log_position.as_of == 5 and reply.log_position.sequence in (5, 6)


async def test_a_store_that_was_never_there_is_in_the_log_once(
    tenant: str, served: dict[str, Product], past: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.engine.TAIL_SECONDS", 0.01)
    async with Redis.from_url("unix:///nowhere/store.sock") as nowhere:
        engine = Engine(tenant, Store(nowhere, tenant, TOKENIZER, []), served, Challengers())
        with capture_logs() as said:
            follower = asyncio.create_task(engine.follow())
            await asyncio.sleep(0.3)
            follower.cancel()
            with suppress(asyncio.CancelledError):
                await follower
    assert [(line["event"], "/nowhere/store.sock" in line["problem"]) for line in said] == [("log_lost", True)]


async def test_a_store_without_its_functions_recovers(
    redis: Redis, tenant: str, served: dict[str, Product], past: History
) -> None:
    applications = [e._replace(event_time_ms=0) for e in past.events if isinstance(e, Application)][:3]
    async with engine_on(redis, tenant, served, past) as (engine, _):
        await run(engine, applications[:1], None)
        await redis.function_flush()
        assert await engine.report(Report("o", applications[0].application_id, "repaid")) == 2
        await redis.function_flush()
        with pytest.raises(UnavailableError):
            await decide(engine, applications[1:2])
        await until_ready(engine)
        assert len(await run(engine, applications[1:], None)) == 2


async def test_unknown_application(redis: Redis, tenant: str, served: dict[str, Product], past: History) -> None:
    async with engine_on(redis, tenant, served, past) as (engine, _):
        with pytest.raises(NotFoundError):
            await engine.decision("nobody")
        with pytest.raises(NotFoundError):
            await engine.report(Report("o", "nobody", "repaid"))


async def test_a_follower_ends_though_its_cancellation_was_swallowed(
    redis: Redis, tenant: str, served: dict[str, Product]
) -> None:
    """Python 3.11's wait_for, inside the client of Redis, may swallow one: shutdown would wait for ever."""
    reading = asyncio.Event()

    class Swallowing(Store):
        async def position(self) -> int:
            reading.set()
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(5)
            return await super().position()

    engine = Engine(tenant, Swallowing(redis, tenant, TOKENIZER, []), served, Challengers())
    follower = asyncio.create_task(engine.follow())
    await asyncio.wait_for(reading.wait(), 5)
    follower.cancel()
    done, _ = await asyncio.wait({follower}, timeout=2)
    assert done and follower.cancelled()

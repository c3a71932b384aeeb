"""An engine on a device that does what a Fault says, beside one on the CPU; and what the log proves of decisions."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from redis.asyncio import Redis

from bench import history, world
from features import evidence
from features.application import Application, Report
from features.assemble import count, snapshot
from features.events import Events
from features.graph import EntityGraph
from features.replay import History
from features.store import Store
from models import registry
from proto.miaopi.v1 import decision_pb2 as pb
from server import engine as serving
from server import placement as placed
from server import products
from server.batcher import Reply
from server.engine import Engine
from server.products import Product
from server.settings import Settings
from tests.gpu_faults import Fault
from tests.test_engine import TOKENIZER, decide, essence


@pytest.fixture(scope="module")
def served() -> dict[str, Product]:
    return products.load(Settings(device="cpu"))


@pytest.fixture(scope="module")
def past() -> History:
    """A small world of all its products."""
    made, of_product = world.build(11, 1000), history.schemas_by_product()
    known = history.profiles(made.profiles, of_product, TOKENIZER)
    return history.history(made.events[:600], known, of_product, TOKENIZER)


@pytest.fixture(scope="module")
def fault() -> Fault:
    return Fault()


@pytest.fixture(scope="module")
def there(served: dict[str, Product], fault: Fault) -> dict[str, Product]:
    """The same products on a device that does what `fault` says."""
    device, folder = fault.device(), Settings().bundles
    of_schema = {p.schema.name: p for p in served.values()}
    scorers = {name: registry.load(folder / name, p.bundle_version, p.schema, device) for name, p in of_schema.items()}
    return {name: replace(p, scorer=scorers[p.schema.name]) for name, p in served.items()}


async def step(engine: Engine, batch: Sequence[Application | Report]) -> list[pb.DecideResponse]:
    if isinstance(batch[0], Report):
        await engine.report(batch[0])
        return []
    found = await decide(engine, [a for a in batch if isinstance(a, Application)])
    bodies = [reply.body if isinstance(reply, Reply) else b"" for reply in found]
    assert all(bodies), found
    return [pb.DecideResponse.FromString(body) for body in bodies]


async def told(store: Store, replies: Sequence[pb.DecideResponse]) -> list[tuple[object, ...]]:
    """All that is said and kept of decisions, but for what another log or moment says otherwise."""
    found = list[tuple[object, ...]]()
    for reply in replies:
        stored = await store.decision(reply.application_id)
        assert stored is not None
        facts, features = evidence.unpack(stored[1])
        reasons = [(r.code, r.text_en, r.contribution) for r in reply.reasons]
        probabilities = (reply.fraud_probability, reply.default_probability)
        found.append((essence(reply), reasons, probabilities, facts._replace(epoch=""), features.tobytes()))
    return found


async def back(engine: Engine, fault: Fault) -> None:
    """The device works again, and is taken again."""
    fault.after, device = None, engine.graph._device
    fault.now = device._due
    assert not device.working and device.due and device.retry()
    await until_there(engine)


async def until_there(engine: Engine) -> None:
    async with asyncio.timeout(20):
        while not engine.graph.there:
            await asyncio.sleep(0.002)


@pytest.fixture(autouse=True)
def follows_closely(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "TAIL_SECONDS", 0.005)


async def recomputed(
    redis: Redis, tenant: str, served: dict[str, Product], replies: Sequence[pb.DecideResponse]
) -> int:
    """How many decisions the log proves: rows and probabilities come out of it again on the CPU, to the bit."""
    store = Store(redis, tenant, TOKENIZER, [p.schema for p in served.values()])
    last, pages = await store.open(), list[Events]()
    while sum(map(len, pages)) < last:
        pages.append(await store.tail())
    log = placed._joined(pages)
    at = {r.log_position.sequence: r.application_id for r in replies if r.log_position.as_of < r.log_position.sequence}
    own, product = np.array(sorted(at)), served["consumer"]
    schema, rows = product.schema, np.arange(len(at))
    links = np.repeat(schema.link_slots[None], len(own), axis=0)
    view = EntityGraph().observe(log, own, links)
    stored = [await store.decision(at[sequence]) for sequence in own.tolist()]
    kept = [evidence.unpack(s[1]) for s in stored if s is not None]
    features = np.array([row for _, row in kept], dtype=np.float32)
    counted = features.copy()
    count(schema, counted, view, rows)
    np.testing.assert_array_equal(counted, features)
    state = np.zeros((len(own), len(schema.sources)), dtype=np.uint8)
    scores = product.scorer.score(snapshot(schema, features, state, view, rows))
    assert [facts.fraud_probability for facts, _ in kept] == scores.fraud_probability.tolist()
    assert [facts.default_probability for facts, _ in kept] == scores.default_probability.tolist()
    return len(own)

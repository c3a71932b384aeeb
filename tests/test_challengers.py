"""Challengers in this process on a real store: what is recorded is what they say, and nothing waits for them."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from bench.promote import variant
from features.application import Application
from features.replay import History, replay
from features.schema import Schema
from features.store import Store
from models import registry
from models.bundle import Bundle
from models.probe import random_snapshot
from models.registry import ROLES, Roles
from models.scorer import Scorer
from server import products, reload
from server.batcher import Reply
from server.challengers import ROWS_MAX, Challengers
from server.engine import Engine
from server.products import Product
from server.settings import Settings
from tests.conftest import application, demo_bundle
from tests.snapshots import trained_bundle

START_MS = 1_750_000_000_000


@pytest.fixture
def trained(consumer: Schema, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained_bundle(consumer, tmp_path_factory)


@pytest.fixture
def bundles(consumer: Schema, trained: Path, tmp_path: Path) -> Path:
    """A registry with a champion and one challenger."""
    registry.promote(tmp_path / "bundles", trained, consumer)
    registry.challenge(tmp_path / "bundles", variant(trained, tmp_path / "challenger", 0.5), consumer)
    return tmp_path / "bundles"


@pytest.fixture
def served(bundles: Path) -> dict[str, Product]:
    return products.load(Settings(bundles=bundles))


def applications(schema: Schema, first: int, count: int) -> list[Application]:
    return [
        application(schema, f"a{i}", f"device {i % 3}", event_time_ms=START_MS + 60_000 * i)
        for i in range(first, first + count)
    ]


@asynccontextmanager
async def background(*tasks: Awaitable[None]) -> AsyncIterator[None]:
    running = [asyncio.ensure_future(task) for task in tasks]
    yield
    for task in running:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not holds():
            await asyncio.sleep(0.01)


async def decide(engine: Engine, batch: list[Application]) -> None:
    await until(lambda: engine.ready)
    for reply in await engine.decide(lambda: batch):
        assert isinstance(reply, Reply), reply


async def test_what_is_recorded_is_what_an_offline_scorer_says(
    consumer: Schema, store: Store, tenant: str, bundles: Path, served: dict[str, Product]
) -> None:
    """Bit for bit, for every application; and nothing more once the challenger is retired."""
    challengers, every = Challengers(), applications(consumer, 0, 40)
    engine = Engine(tenant, store, served, challengers)
    (version,) = registry.read(bundles / "consumer").challengers
    async with background(engine.follow(), challengers.run(), reload.follow(served, bundles)):
        for batch in (every[:1], every[1:8], every[8:30]):
            await decide(engine, batch)
        await until(lambda: challengers.counts["recorded"] == 30)
        registry.retire(bundles, "consumer", version)
        await until(lambda: not served["consumer"].challengers)
        await decide(engine, every[30:])
        await asyncio.sleep(0.1)
    rows = replay(History(every, {}))["consumer"]
    offline = Scorer(Bundle.load(bundles / "consumer" / version, consumer)).score(rows.snapshot)
    for row, name in enumerate(rows.application_ids[:30]):
        said = (offline.fraud_probability[row], offline.default_probability[row])
        assert await store.challengers(name) == {version: said}
        assert said[0] != served["consumer"].scorer.score(rows.snapshot.take(slice(row, row + 1))).fraud_probability
    assert [await store.challengers(a.application_id) for a in every[30:]] == [{}] * 10


async def test_a_failing_challenger_fails_no_decision(
    consumer: Schema, store: Store, tenant: str, served: dict[str, Product]
) -> None:
    """A scorer of another schema cannot read the rows; the one after it still can."""
    other = Scorer(Bundle.open(demo_bundle("auto")))
    product = served["consumer"]
    served["consumer"] = replace(product, challengers={"other": other, **product.challengers})
    challengers = Challengers()
    engine = Engine(tenant, store, served, challengers)
    async with background(engine.follow(), challengers.run()):
        await decide(engine, applications(consumer, 0, 5))
        await until(lambda: challengers.counts["recorded"] == 5)
    assert challengers.counts == {"failed": 5, "recorded": 5}
    assert list(await store.challengers("a0")) == list(product.challengers)
    assert await store.decision("a0") is not None


async def test_a_batch_goes_first_and_the_oldest_is_dropped(
    consumer: Schema, store: Store, served: dict[str, Product]
) -> None:
    challengers, known = Challengers(), served["consumer"].challengers
    snapshot = random_snapshot(consumer, ROWS_MAX // 2, 0)
    async with background(challengers.run()):
        with challengers.held():
            for batch in "abc":
                challengers.offer(store, known, [f"{batch}{i}" for i in range(len(snapshot))], snapshot)
            with challengers.held():
                pass  # another batch ends, this one goes on
            await asyncio.sleep(0.1)
            assert challengers.counts == {"skipped": len(snapshot)} and challengers.waiting == 2 * len(snapshot)
        await until(lambda: not challengers.waiting)
    assert challengers.counts["failed"] == 0
    assert await store.challengers("c0") == {}  # there is no decision to stand beside


async def test_a_bundle_that_does_not_load_leaves_the_old_serving(
    consumer: Schema, trained: Path, bundles: Path, served: dict[str, Product], tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    before, file = served["consumer"], bundles / "consumer" / ROLES
    candidate = variant(trained, tmp_path / "candidate", 0.2)
    async with background(reload.follow(served, bundles)):
        await asyncio.sleep(reload.POLL_SECONDS)
        version, _ = registry.promote(bundles, candidate, consumer)
        await until(lambda: served["consumer"].bundle_version == version)
        registry.rollback(bundles, consumer)
        await until(lambda: served["consumer"].bundle_version == before.bundle_version)
        (bundles / "consumer" / version / "fraud_forest.npz").write_bytes(b"")
        for text, event in (
            ("nonsense", "bundle_refused"),
            (Roles(champion="0" * 16).model_dump_json(), "bundle_refused"),
            (Roles(champion=version).model_dump_json(), "bundle_refused"),
            (Roles(champion=before.bundle_version, challengers=(version,)).model_dump_json(), "challenger_refused"),
        ):
            capfd.readouterr()
            file.write_text(text)
            await until(lambda event=event: event in capfd.readouterr().out)  # type: ignore[misc]
            assert served["consumer"].bundle_version == before.bundle_version
        await until(lambda: not served["consumer"].challengers)

"""Challengers in this process on a real store: what is recorded is what they say, and nothing waits for them."""

import asyncio
import shutil
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest
from redis.asyncio import Redis

from bench.promote import variant
from features.application import Application
from features.replay import History, replay
from features.schema import Schema
from features.store import Store
from models import registry
from models.bundle import Bundle, BundleError
from models.probe import random_snapshot
from models.registry import ROLES, Roles
from models.scorer import Scorer
from server import products, reload
from server.batcher import Reply
from server.challengers import ROWS_MAX, Challengers
from server.engine import Engine
from server.products import Product
from server.settings import Settings
from tests.conftest import TOKENIZER, application, demo_bundle
from tests.snapshots import made_for, trained_bundle

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
    async with background(engine.follow(), challengers.run(), reload.follow(served, Settings(bundles=bundles))):
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
    async with background(reload.follow(served, Settings(bundles=bundles))):
        await asyncio.sleep(reload.POLL_SECONDS)
        version, _ = registry.promote(bundles, candidate, consumer)
        await until(lambda: served["consumer"].bundle_version == version)
        registry.rollback(bundles, "consumer")
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


async def test_what_was_refused_is_tried_again(
    trained: Path, bundles: Path, served: dict[str, Product], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """A mirror may bring the roles before the bundle that they name."""
    monkeypatch.setattr(reload, "RETRY_SECONDS", 0.05)
    made, folder = [variant(trained, tmp_path / str(i), 0.1 + i) for i in range(2)], bundles / "consumer"
    champion, challenger = (Bundle.open(bundle).version for bundle in made)

    def said(event: str) -> bool:
        return event in capfd.readouterr().out

    async with background(reload.follow(served, Settings(bundles=bundles))):
        (folder / ROLES).write_text(Roles(champion=champion, challengers=(challenger,)).model_dump_json())
        await until(lambda: said("bundle_refused"))
        shutil.copytree(made[0], tmp_path / "copied").rename(folder / champion)
        await until(lambda: served["consumer"].bundle_version == champion)
        assert said("challenger_refused") and not served["consumer"].challengers
        shutil.copytree(made[1], tmp_path / "copied").rename(folder / challenger)
        await until(lambda: list(served["consumer"].challengers) == [challenger])
        capfd.readouterr()
        await asyncio.sleep(3 * reload.POLL_SECONDS)
        assert capfd.readouterr().out == ""  # nothing is left to try


async def test_a_mount_that_hangs_holds_up_no_decision(
    served: dict[str, Product], bundles: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, go_on = threading.Event(), threading.Event()

    def hanging(file: Path) -> None:
        asked.set()
        go_on.wait(5)

    monkeypatch.setattr(reload, "_state", hanging)
    started = time.monotonic()
    async with background(reload.follow(served, Settings(bundles=bundles))):
        await until(asked.is_set)
        assert time.monotonic() - started < 3  # the loop goes on meanwhile
        go_on.set()


async def test_a_folder_without_roles_is_passed_over(bundles: Path) -> None:
    """As a refused promotion may leave one."""
    (bundles / "auto").mkdir()
    assert list(products.load(Settings(bundles=bundles))) == ["consumer"]


async def test_a_server_of_the_older_schema_starts_on_the_last_champion_that_fits(
    consumer: Schema, trained: Path, bundles: Path, served: dict[str, Product], tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    before = served["consumer"].bundle_version
    newer = Schema({**consumer.document, "version": consumer.version + 1}, "newer.yaml")
    promoted, _ = registry.promote(bundles, made_for(newer, trained, tmp_path / "newer"), newer)
    capfd.readouterr()
    assert products.load(Settings(bundles=bundles))["consumer"].bundle_version == before
    said = capfd.readouterr().out
    assert "champion_of_another_schema" in said and promoted in said and before in said
    async with background(reload.follow(served, Settings(bundles=bundles))):  # one that runs goes on
        await until(lambda: "challengers=" in capfd.readouterr().out)
        assert served["consumer"].bundle_version == before
    (bundles / "consumer" / ROLES).write_text(Roles(champion=promoted).model_dump_json())
    with pytest.raises(BundleError, match=f"made for schema {newer.hash}, consumer is {consumer.hash}"):
        products.load(Settings(bundles=bundles))


async def test_scoring_ends_though_its_cancellation_was_swallowed(
    consumer: Schema, redis: Redis, tenant: str, served: dict[str, Product]
) -> None:
    """As a follower of the log: Python 3.11's wait_for may swallow one. Nothing more is scored after it."""
    recording, recorded = asyncio.Event(), []

    class Swallowing(Store):
        async def put_challenger(self, version: str, scored: Sequence[tuple[str, float, float]]) -> int:
            recorded.append(version)
            if not recording.is_set():
                recording.set()
                with suppress(asyncio.CancelledError):
                    await asyncio.sleep(5)
            return await super().put_challenger(version, scored)

    challengers, store = Challengers(), Swallowing(redis, tenant, TOKENIZER, [])
    scorer = served["consumer"].scorer
    with challengers.held():
        for name in ("first", "second"):
            challengers.offer(store, {name: scorer, f"{name} too": scorer}, ["a"], random_snapshot(consumer, 1, 0))
    running = asyncio.create_task(challengers.run())
    await asyncio.wait_for(recording.wait(), 5)
    running.cancel()
    done, _ = await asyncio.wait({running}, timeout=2)
    assert done and running.cancelled() and recorded == ["first"]

"""Policies change while a server runs: what is right is taken over, what is not leaves the old one; nothing mixes."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from redis.asyncio import Redis

from bench.publish import run
from features.application import Application
from features.schema import Schema
from features.store import Started, Store
from policy import versions
from policy.cases import CASES
from policy.decide import POLICY
from policy.errors import PolicyError
from policy.reasons import REASONS_PATH
from server import products, reload
from server.products import Product
from server.settings import Settings
from tests.conftest import ROOT
from tests.lending import write_policies
from tests.policies import change_case
from tests.test_challengers import background, until
from tests.test_exposure import TOKENIZER, decide, engine_over, facts_of, good_application

SHIPPED = ROOT / "policy/products"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Working copies of the shipped policies, with the demo's bundles."""
    return Settings(policies=Path(shutil.copytree(SHIPPED, tmp_path / "policies")))


@pytest.fixture
def served(settings: Settings) -> dict[str, Product]:
    return products.load(settings)


def reworded(folder: Path, words: str) -> Path:
    """Another version of the consumer policy that decides the same."""
    shutil.copytree(SHIPPED / "consumer", folder)
    text = REASONS_PATH.read_text(encoding="utf-8").replace("en: under 18", f"en: {words}")
    (folder / REASONS_PATH.name).write_text(text, encoding="utf-8")
    return folder


async def test_published_and_rolled_back_policies_are_taken_over(
    consumer: Schema, settings: Settings, served: dict[str, Product], tmp_path: Path
) -> None:
    before, draft = dict(served), reworded(tmp_path / "draft", "not yet 18")
    async with background(reload.follow(served, settings)):
        version, _ = versions.publish(settings.policies, draft, "consumer", consumer, "Li Wei", "clearer")
        await until(lambda: served["consumer"].policy.version == version)
        assert served["consumer"].scorer is before["consumer"].scorer and served["auto"] == before["auto"]
        versions.rollback(settings.policies, "consumer", consumer, "Li Wei")
        await until(lambda: served["consumer"].policy.version == before["consumer"].policy.version)


async def test_a_working_copy_is_followed_with_its_cases(
    settings: Settings, served: dict[str, Product], capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    place, before = settings.policies / "consumer", served["consumer"]
    async with background(reload.follow(served, settings)):
        await until(lambda: "product" in capfd.readouterr().out)
        text = (place / POLICY).read_text(encoding="utf-8")
        for file, content in ((place / POLICY, text[: len(text) // 2]), (place / "reasons.yaml", "UNDER_AGE: young")):
            file.write_text(content, encoding="utf-8")
            await until(lambda: "policy_refused" in capfd.readouterr().out)
            assert served["consumer"].policy is before.policy
            (place / POLICY).write_text(text, encoding="utf-8")
        shutil.copyfile(reworded(tmp_path / "draft", "not yet 18") / "reasons.yaml", place / "reasons.yaml")
        await until(lambda: served["consumer"].policy.version != before.policy.version)


async def test_a_policy_that_fails_its_cases_is_refused_until_they_pass(
    settings: Settings, served: dict[str, Product], capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    place, before = settings.policies / "consumer", served["consumer"]
    async with background(reload.follow(served, settings)):
        change_case(place, "base", {"expect_outcome": "decline"})
        shutil.copyfile(reworded(tmp_path / "draft", "not yet 18") / "reasons.yaml", place / "reasons.yaml")
        await until(lambda: "cases fail" in capfd.readouterr().out)
        assert served["consumer"].policy is before.policy
        shutil.copyfile(SHIPPED / "consumer" / CASES, place / CASES)
        await until(lambda: served["consumer"].policy.version != before.policy.version)


async def test_a_version_that_comes_after_its_roles_is_tried_again(
    consumer: Schema, settings: Settings, served: dict[str, Product], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """As a mirror may bring them."""
    monkeypatch.setattr(reload, "RETRY_SECONDS", 0.05)
    place, elsewhere, before = settings.policies / "consumer", tmp_path / "elsewhere", served["consumer"]
    draft = reworded(tmp_path / "draft", "not yet 18")
    version, _ = versions.publish(elsewhere, draft, "consumer", consumer, "Li Wei", "clearer")
    async with background(reload.follow(served, settings)):
        shutil.copyfile(elsewhere / "consumer" / versions.ROLES, place / versions.ROLES)
        await until(lambda: "policy_refused" in capfd.readouterr().out)
        assert served["consumer"].policy is before.policy
        shutil.copytree(elsewhere / "consumer" / version, tmp_path / "copied").rename(place / version)
        await until(lambda: served["consumer"].policy.version == version)


def test_no_server_starts_on_a_policy_that_fails_its_cases(settings: Settings) -> None:
    change_case(settings.policies / "consumer", "base", {"expect_outcome": "decline"})
    with pytest.raises(PolicyError, match=r"consumer/cases\.csv: 1 of [0-9]+ cases fail"):
        products.load(settings)


def test_no_request_fails_and_no_reply_mixes_while_policies_change() -> None:
    figures = run(publications=2)
    assert figures["failed"] == figures["mixed"] == 0 and figures["publications"] == 2
    priced = figures["priced_first"], figures["priced_second"]
    assert figures["requests"] > 100 and min(priced) > 10 and sum(priced) > figures["requests"] / 5
    assert figures["seconds_to_new_version_max"] < 10  # the machine that tests may be busy


class Swapping(Store):
    """A store during whose `begin` the products are swapped."""

    swap: Callable[[], None]

    async def begin(self, applications: Sequence[Application], funders: Sequence[str] = ()) -> Started:
        started = await super().begin(applications, funders)
        self.swap()
        return started


async def test_a_batch_keeps_the_policy_whose_funders_it_asked_for(
    redis: Redis, tenant: str, served: dict[str, Product], tmp_path: Path
) -> None:
    """A policy that comes meanwhile may have funders whose totals were not read: they are not 0."""
    before = served["consumer"]
    folder = write_policies(tmp_path / "funded", funders=[("late", "own", 1.0, 9_000_000, 0.05)])
    newer = products.load(Settings(policies=folder))["consumer"]
    store = Swapping(redis, tenant, TOKENIZER, [before.schema])
    await store.open()
    await redis.set(f"{{{tenant}}}:f:late", 7)
    store.swap = lambda: served.update(consumer=newer)
    async with engine_over(store, served) as engine:
        for name in ("first", "second"):
            await decide(engine, [good_application(before, name)])
    first, second = await facts_of(store, "first"), await facts_of(store, "second")
    assert (first.policy, first.lent) == (before.policy.version, dict.fromkeys(before.policy.funders, 0))
    assert (second.policy, second.lent) == (newer.policy.version, {"late": 7})

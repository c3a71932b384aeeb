"""A start from a snapshot and the rest of the log is a start from the log, on a real store (R11, R20)."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from typer.testing import CliRunner

from bench.serving import SECRET
from features.__main__ import app
from features.forget import Forgetting
from features.graph_snapshot import MANIFEST, folder_of, newest_first
from features.replay import History
from features.store import Store
from features.unlink import unlink
from server.challengers import Challengers
from server.engine import Engine
from server.products import Product
from tests.conftest import timeless
from tests.test_engine import TOKENIZER, engine_on, past, run, served, until_ready
from tests.test_forgotten import people
from tests.test_graph_snapshot import assert_equal

__all__ = ["past", "people", "served"]
HALF, EVENTS = 300, 500


@asynccontextmanager
async def started(redis: Redis, tenant: str, served: dict[str, Product], snapshots: Path) -> AsyncIterator[Engine]:
    """Another server of the tenant, once it is ready."""
    schemas = list({p.schema.name: p.schema for p in served.values()}.values())
    engine = Engine(tenant, Store(redis, tenant, TOKENIZER, schemas), served, Challengers(), snapshots=snapshots)
    follower = asyncio.create_task(engine.follow())
    await until_ready(engine)
    yield engine
    follower.cancel()
    with suppress(asyncio.CancelledError):
        await follower


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, redis_url: str, tenant: str) -> None:
    monkeypatch.setenv("REDIS_URL", redis_url)
    monkeypatch.setenv("MIAOPI_TOKEN_SECRETS", f'{{"{tenant}": "{SECRET}"}}')


def write(tenant: str, out: Path) -> None:
    done = CliRunner().invoke(app, ["snapshot", "--tenant", tenant, "--out", str(out), "--once"])
    assert done.exit_code == 0, done.output


async def test_a_start_from_a_snapshot_is_a_start_from_the_log(
    redis: Redis, tenant: str, served: dict[str, Product], past: History, people: list[str], tmp_path: Path,
    environment: None,
) -> None:  # fmt: skip
    events = timeless(past.events[:EVENTS])
    async with engine_on(redis, tenant, served, past) as (engine, _):
        await run(engine, events[:HALF], 8)
        await asyncio.to_thread(write, tenant, tmp_path)
        await run(engine, events[HALF:], 8)
        await engine.forget(TOKENIZER, Forgetting(people[0], "Li"))
        async with started(redis, tenant, served, tmp_path) as other:
            await until_same(other, engine)
        # what it did not read is gone: the snapshot was really used
        log: Any = await redis.xrange(f"{{{tenant}}}:log", count=1)
        await redis.xdel(f"{{{tenant}}}:log", log[0][0])
        async with started(redis, tenant, served, tmp_path) as other:
            await until_same(other, engine)


async def test_what_does_not_fit_is_left_and_the_log_read(
    redis: Redis, tenant: str, served: dict[str, Product], past: History, people: list[str], tmp_path: Path,
    environment: None,
) -> None:  # fmt: skip
    async with engine_on(redis, tenant, served, past) as (engine, store):
        await run(engine, timeless(past.events[:60]), 8)
        await asyncio.to_thread(write, tenant, tmp_path)
        (snapshot,) = newest_first(folder_of(tmp_path, tenant))
        said = (snapshot / MANIFEST).read_text(encoding="utf-8")
        for was, now in (
            (store.epoch, "0" * len(store.epoch)),
            (store.place.owner, "0" * 32),
            ('"cursor": "', '"cursor": "1'),
        ):
            assert was in said
            (snapshot / MANIFEST).write_text(said.replace(was, now), encoding="utf-8")
            async with started(redis, tenant, served, tmp_path) as other:
                await until_same(other, engine)
        (snapshot / MANIFEST).write_text(said, encoding="utf-8")
        await engine.forget(TOKENIZER, Forgetting(people[0], "Li"))
        await unlink(redis, tenant, Store(redis, tenant, TOKENIZER, []))
        async with started(redis, tenant, served, tmp_path) as other:  # its tokens are those of before
            assert other.graph.sequence > 60 and (await redis.hget(f"{{{tenant}}}:meta", "rewritten"))


async def until_same(one: Engine, other: Engine) -> None:
    async with asyncio.timeout(20):
        while one.graph.sequence < other.graph.sequence or other.graph.sequence < one.graph.sequence:
            await asyncio.sleep(0.01)
    assert_equal((one.graph.host, one._lists), (other.graph.host, other._lists))

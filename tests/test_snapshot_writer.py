"""A start from a snapshot on a real store: the same as reading the whole log, whatever became of log or snapshot."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from features.application import Report
from features.embedded import embedded_store
from features.forget import Forgetting, forget
from features.graph_snapshot import MANIFEST, folder_of, newest_first
from features.rebuild import rebuild
from features.schema import Schema
from features.snapshot_writer import SnapshotWriter
from features.store import Store
from features.tokens import Tokenizer
from features.unlink import unlink
from server.challengers import Challengers
from server.engine import Engine
from tests.conftest import ROOT, TOKENIZER, application
from tests.test_graph_snapshot import assert_equal

SECRET = "a secret of tests"


class Lender:
    """One tenant: its log, and a writer of snapshots."""

    def __init__(self, redis: Redis, tenant: str, schema: Schema, folder: Path) -> None:
        self.redis, self.tenant, self.schema = redis, tenant, schema
        self.store, self.folder = Store(redis, tenant, TOKENIZER, [schema]), folder_of(folder, tenant)
        self.warnings: list[str] = []
        self.writer = SnapshotWriter(Store(redis, tenant, TOKENIZER, []), self.folder, self.warnings.append)
        self.sent = 0

    async def send(self, count: int) -> None:
        """Applications on shared devices, the first of them a fraud."""
        names = [f"a{i}" for i in range(self.sent, self.sent + count)]
        await self.store.begin([application(self.schema, name, f"device-{len(name)}") for name in names])
        await self.store.report([(Report(f"o-{names[0]}", names[0], "fraud_confirmed"), self.schema)])
        self.sent += count

    async def check(self, warning: str = "", tokenizer: Tokenizer = TOKENIZER) -> None:
        """A start with snapshots is one without, and says what does not fit."""
        warnings: list[str] = []
        found = await rebuild(Store(self.redis, self.tenant, tokenizer, []), self.folder, warnings.append)
        assert_equal(found, await rebuild(Store(self.redis, self.tenant, tokenizer, []), None, warnings.append))
        assert all(warning in problem for problem in warnings) and bool(warnings) == bool(warning), warnings


@pytest.fixture
async def lender(redis: Redis, tenant: str, consumer: Schema, tmp_path: Path) -> AsyncIterator[Lender]:
    made = Lender(redis, tenant, consumer, tmp_path)
    await made.store.open()
    assert await made.writer.write() is None  # the log is empty
    await made.send(12)
    assert await made.writer.write() is not None
    assert await made.writer.write() is None  # nothing has come
    yield made


async def test_snapshot_and_rest(lender: Lender, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also over several pages, and where someone is forgotten after the snapshot (R20)."""
    await lender.check()
    await lender.send(8)
    await forget(lender.store, TOKENIZER, Forgetting("applicant of a3", "staff"))
    monkeypatch.setattr("features.log.PAGE", 4)
    await lender.check()
    assert await lender.writer.write() is not None
    await lender.check()


async def test_what_does_not_fit_is_not_used(lender: Lender, redis: Redis) -> None:
    await lender.check("owner: ", Tokenizer(b"another secret of tests"))
    newest = newest_first(lender.folder)[0]
    said = json.loads((newest / MANIFEST).read_text())
    (newest / MANIFEST).write_text(json.dumps(said | {"place": said["place"] | {"sequence": 12}}))
    await lender.check("no longer holds event 12")
    (newest / MANIFEST).write_text(json.dumps(said))
    (newest / "nodes").write_bytes(b"")
    await lender.check("nodes: is not what the manifest says")
    await redis.delete(*lender.store.keys("log", "meta"))  # a log of its own
    await lender.store.open()
    await lender.check("epoch: ")


async def test_a_log_that_lost_events(lender: Lender, redis: Redis) -> None:
    """A failover: the last event of the snapshot is gone, and others were written since."""
    log, meta = lender.store.keys("log", "meta")
    await redis.xdel(log, lender.writer._store.cursor)
    await redis.hset(meta, "sequence", 12)
    await lender.check("no longer holds event 13")
    await lender.store.open()
    await lender.send(3)
    await lender.check("no longer holds event 13")


async def test_a_log_that_the_forgotten_left(lender: Lender) -> None:
    """Snapshots of before are neither used nor kept: they hold the tokens that left the log (R20)."""
    before = newest_first(lender.folder)
    await forget(lender.store, TOKENIZER, Forgetting("applicant of a3", "staff"))
    assert (await unlink(lender.redis, lender.tenant, lender.store)).tokens
    await lender.check("rewritten: ")
    assert await lender.writer.write() is not None and any("rewritten: " in w for w in lender.warnings)
    assert len(newest_first(lender.folder)) == 1 and not before[0].exists()
    await lender.check()


async def test_an_engine_starts_from_it(lender: Lender, tmp_path: Path, redis: Redis) -> None:
    engine = Engine(lender.tenant, Store(redis, lender.tenant, TOKENIZER, []), {}, Challengers(), snapshots=tmp_path)
    follower = asyncio.create_task(engine.follow())
    async with asyncio.timeout(20):
        while not engine.ready:
            await asyncio.sleep(0.01)
    follower.cancel()
    await asyncio.wait({follower})
    whole = await rebuild(Store(redis, lender.tenant, TOKENIZER, []), None, print)
    assert_equal((engine.graph.host, engine._lists), whole)


async def test_the_command(consumer: Schema, tmp_path: Path) -> None:
    """Once, and as a process that goes on until it is told to stop."""
    with embedded_store() as url:
        environment = os.environ | {"REDIS_URL": url, "MIAOPI_TOKEN_SECRETS": json.dumps({"lender": SECRET})}
        command = [sys.executable, "-m", "features", "snapshot", "--tenant", "lender", "--out", str(tmp_path)]
        async with Redis.from_url(url) as redis:
            made = Lender(redis, "lender", consumer, tmp_path)
            await made.store.open()
            await made.send(3)
            once = subprocess.run([*command, "--once"], env=environment, cwd=ROOT, capture_output=True, timeout=60)
            assert once.returncode == 0 and b"written: " in once.stderr
            await made.check()
            process = subprocess.Popen([*command, "--every-seconds", "1"], env=environment, cwd=ROOT)
            await made.send(3)
            async with asyncio.timeout(60):
                while len(newest_first(made.folder)) < 2:
                    await asyncio.sleep(0.05)
            process.send_signal(signal.SIGTERM)
            assert process.wait(10) == 0
            await made.check()
    del environment["REDIS_URL"]
    assert subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, timeout=60).returncode == 2

"""A world decided by the real engine and archived from its store: rows are those of replay, bit for bit."""

import asyncio
import itertools
import json
import struct
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from redis.asyncio import Redis
from typer.testing import CliRunner

from features import archive, export
from features.application import Application
from features.archive import ArchiveError, digest, recorded, rows
from features.replay import History, Rows, replay
from features.schema import Schema
from features.store import Store
from models.__main__ import app
from models.bundle import Bundle
from models.recipe import TrainConfig
from models.train import train
from server.engine import Engine
from server.products import Product
from tests.conftest import ROOT
from tests.test_engine import TOKENIZER, batches, decide, engine_on, past, run, served

__all__ = ["past", "served"]
EVENTS = 700  # of the world's: applications and reports
ARRAYS = ("features", "entity_state", "neighbor_state", "neighbor_mask", "source_state")


@pytest.fixture
async def folder(redis: Redis, tenant: str, served: dict[str, Product], past: History, tmp_path: Path) -> Path:
    """The archive of the first events, decided in batches."""
    async with engine_on(redis, tenant, served, past) as (engine, _):
        await run(engine, past.events[:EVENTS], 5)
        await export.write(redis, tenant, tmp_path / "archive")
    return tmp_path / "archive"


def numbered(history: History, made: Rows) -> list[str]:
    """The sequence numbers of replayed rows, which are the ids of archived ones."""
    sequence = {e.application_id: i for i, e in enumerate(history.events, 1) if isinstance(e, Application)}
    return [str(sequence[name]) for name in made.application_ids]


def assert_same(found: Rows, expected: Rows) -> None:
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(found.snapshot, name), getattr(expected.snapshot, name), name)
        assert getattr(found.snapshot, name).dtype == getattr(expected.snapshot, name).dtype
    np.testing.assert_array_equal(found.event_time_ms, expected.event_time_ms)
    assert found.labels.keys() == expected.labels.keys()
    for label, known in expected.labels.items():
        np.testing.assert_array_equal(found.labels[label], known)


async def test_rows_are_those_of_replay(folder: Path, past: History) -> None:
    history = replace(past, events=past.events[:EVENTS])
    for expected in replay(history, deep=True).values():
        found = rows(folder, expected.schema, deep=True)
        of_log, of_history = found.snapshot.hops, expected.snapshot.hops
        assert of_log is not None and of_history is not None and len(of_log.far) > 0
        for name, array in of_history.given().items():
            np.testing.assert_array_equal(of_log.given()[name], array, name)
        assert found.application_ids == numbered(history, expected) and len(found.application_ids) > 50
        assert_same(found, expected)
        assert len({*expected.labels["default"].tolist()}) > 1


async def test_it_says_what_was_decided_and_holds_no_identifier(
    folder: Path, past: History, served: dict[str, Product]
) -> None:
    found = recorded(folder)
    history = replace(past, events=past.events[:EVENTS])
    for made in replay(history).values():
        scores = served[made.schema.products[0]].scorer.score(made.snapshot)
        mine = found.filter(pl.col("schema") == made.schema.hash)
        for label in ("fraud", "default"):
            decided = mine[f"{label}_probability"].to_numpy()
            np.testing.assert_allclose(decided, getattr(scores, f"{label}_probability"), atol=1e-6, rtol=0)
            np.testing.assert_array_equal(mine[f"{label}_label"].to_numpy(), made.labels[label])
    assert {"APPROVE", "REVIEW", "DECLINE"} <= set(found["outcome"]) and found["challengers"].list.len().sum() == 0
    ids = [e.application_id.encode() for e in history.events if isinstance(e, Application)]
    written = b"".join(file.read_bytes() for file in folder.iterdir())
    assert not any(name in written for name in ids)
    assert sorted(file.name for file in folder.iterdir()) == ["archive.json", "decisions.parquet", "events.parquet"]


async def test_training_from_it_is_training_from_replay(
    redis: Redis, tenant: str, served: dict[str, Product], past: History, tmp_path: Path, consumer: Schema
) -> None:
    async with engine_on(redis, tenant, served, past) as (engine, _):
        await run(engine, past.events, 5)
        await export.write(redis, tenant, tmp_path / "archive")
    config = TrainConfig(search_seconds=0)
    expected = Bundle.open(train(replay(past)["consumer"], tmp_path / "replayed", config))
    asked = ["train", "--schema", str(ROOT / "features/schemas/consumer.yaml"), "--search-seconds", "0"]
    place = ["--archive", str(tmp_path / "archive"), "--out", str(tmp_path / "trained")]
    done = CliRunner().invoke(app, [*asked, *place])
    assert done.exit_code == 0, done.output
    found = Bundle.open(tmp_path / "trained")
    for label, model in expected.models.items():
        assert found.models[label].trees_onnx == model.trees_onnx
        assert found.models[label].calibration == model.calibration
    command = found.manifest["training"]["command"]
    assert "--archive archive --out consumer" in command and "label-delay-rows" not in command
    for wrong in ([], [*place, "--data", str(tmp_path / "archive/events.parquet")]):
        refused = CliRunner().invoke(app, [*asked, *(wrong or place[2:])])
        assert refused.exit_code == 2 and "exactly one of --data and --archive" in refused.output


def write_again(folder: Path, name: str, frame: pl.DataFrame) -> None:
    """Replace a file by a frame and say so in the manifest: a forger who knows of the hashes."""
    frame.write_parquet(folder / name)
    manifest = json.loads((folder / archive.MANIFEST).read_text(encoding="utf-8"))
    manifest["files"][name] = digest(folder / name)
    (folder / archive.MANIFEST).write_text(json.dumps(manifest, ensure_ascii=False), encoding="utf-8")


async def test_what_was_tampered_with_is_refused(folder: Path, consumer: Schema) -> None:
    events, decisions = pl.read_parquet(folder / archive.EVENTS), pl.read_parquet(folder / archive.DECISIONS)

    def row_changed(frame: pl.DataFrame) -> pl.DataFrame:
        features = frame["features"].to_list()
        at = frame["schema"].to_list().index(consumer.hash)
        features[at][consumer.column["device_count_7d"]] = 9.0
        return frame.with_columns(pl.Series("features", features, dtype=pl.List(pl.Float32)))

    def event_changed(frame: pl.DataFrame) -> pl.DataFrame:
        """One application's amount ten times as high; others have counted it."""
        blobs = frame["event"].to_list()
        for i, blob in enumerate(blobs[:200]):
            blobs[i] = blob[:12] + struct.pack("<d", 10 * struct.unpack("<d", blob[12:20])[0]) + blob[20:]
        return frame.with_columns(pl.Series("event", blobs, dtype=pl.Binary))

    for name, frame, change, reason in (
        (archive.DECISIONS, decisions, row_changed, r"sequence \d+: device_count_7d: the log gives \S+, the evid"),
        (archive.EVENTS, events, event_changed, r"sequence \d+: \w+_amount\w+: the log gives"),
        (archive.EVENTS, events, lambda f: f.filter(~pl.col("sequence").is_between(100, 160)), "not all of the events"),
        (archive.EVENTS, events, lambda f: f.head(EVENTS - 50), f"not all of the events 1 to {EVENTS}"),
        (archive.DECISIONS, decisions, lambda f: pl.concat([f, f.head(1)]), "sequence 1: is decided twice"),
        (archive.DECISIONS, decisions, lambda f: f.with_columns(pl.col("time_ms") + 1), "the log gives another time"),
        (archive.DECISIONS, decisions, lambda f: f.with_columns(pl.col("features").list.head(5)), "features wanted"),
    ):  # fmt: skip
        kept = (folder / name).read_bytes()
        changed = change(frame)
        changed.write_parquet(folder / name)
        with pytest.raises(ArchiveError, match="differs from the manifest's sha256"):
            rows(folder, consumer)
        write_again(folder, name, changed)
        with pytest.raises(ArchiveError, match=reason):
            rows(folder, consumer)
        (folder / name).write_bytes(kept)
        write_again(folder, name, frame)
    (folder / archive.EVENTS).unlink()
    with pytest.raises(ArchiveError, match=r"events\.parquet: cannot be read"):
        rows(folder, consumer)


async def test_a_retry_after_a_crash_is_looked_at_from_where_it_was_decided(
    redis: Redis, tenant: str, served: dict[str, Product], past: History, tmp_path: Path
) -> None:
    applications = [e._replace(event_time_ms=0) for e in past.events if isinstance(e, Application)][:80]
    lost, others = applications[3:6], applications[:3] + applications[6:]
    async with engine_on(redis, tenant, served, past) as (engine, _):
        await run(engine, others[:3], None)
        crashed = Store(redis, tenant, TOKENIZER, [p.schema for p in served.values()])
        await crashed.open()
        await crashed.begin(lost)
        await run(engine, others[3:40], 2)
        await decide(engine, lost[:2])
        await run(engine, others[40:], 3)
        manifest = await export.write(redis, tenant, tmp_path / "archive")
    assert (manifest["sequence"], manifest["decisions"]) == (80, 79)  # one was never decided
    decided = recorded(tmp_path / "archive")
    assert decided.filter(pl.col("as_of") >= pl.col("sequence")).select("sequence", "as_of").rows() == [
        (4, 43),
        (5, 43),
    ]
    found = [rows(tmp_path / "archive", p.schema) for p in {p.schema.name: p for p in served.values()}.values()]
    ids = [name for made in found for name in made.application_ids]
    assert sorted(map(int, ids)) == [1, 2, 3, 4, 5, *range(7, 81)]
    assert all(made.application_ids == sorted(made.application_ids, key=int) for made in found)


async def test_an_archive_of_a_server_at_work_is_one_cut(
    redis: Redis,
    tenant: str,
    served: dict[str, Product],
    past: History,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(export, "PAGE", 64)
    of_log, coming = export._events, iter(batches(past.events[:EVENTS], 3))

    async def decide_some(engine: Engine) -> None:
        for batch in itertools.islice(coming, 4):
            await run(engine, batch, None)

    seen: list[dict[str, Any]] = []
    async with engine_on(redis, tenant, served, past) as (engine, _):

        async def decided_between(*asked: Any) -> AsyncIterator[pl.DataFrame]:
            async for page in of_log(*asked):
                await decide_some(engine)
                yield page

        monkeypatch.setattr(export, "_events", decided_between)
        for i in range(4):
            await decide_some(engine)
            seen.append(await export.write(redis, tenant, tmp_path / str(i)))
            assert int(await redis.hget(f"{{{tenant}}}:meta", "sequence") or 0) > seen[-1]["sequence"] > 0
    for i, manifest in enumerate(seen):
        decided = recorded(tmp_path / str(i))
        assert len(decided) == manifest["decisions"] and (decided["as_of"] <= manifest["sequence"]).all()
        for schema in {p.schema.name: p.schema for p in served.values()}.values():
            if (decided["schema"] == schema.hash).any():
                rows(tmp_path / str(i), schema)


async def test_scores_of_challengers_are_columns(
    redis: Redis, tenant: str, served: dict[str, Product], past: History, tmp_path: Path
) -> None:
    async with engine_on(redis, tenant, served, past) as (engine, _):
        await run(engine, past.events[:20], 5)
        key = f"{{{tenant}}}:a:{TOKENIZER.key(past.events[0].application_id)}"
        await redis.hset(
            key, mapping={"c:00ff": struct.pack("<dd", 0.25, np.nan), "c:11": struct.pack("<dd", 0.5, 0.75)}
        )
        await export.write(redis, tenant, tmp_path / "archive")
        found = recorded(tmp_path / "archive")["challengers"].to_list()
        assert sorted(found[0], key=lambda c: c["version"]) == [
            {"version": "00ff", "fraud": 0.25, "default": None}, {"version": "11", "fraud": 0.5, "default": 0.75},
        ]  # fmt: skip
        assert found[1:] == [[]] * (len(found) - 1)
        await redis.hset(key, "c:2", b"short")
        with pytest.raises(ArchiveError, match="c:2: 5 bytes are no two probabilities"):
            await export.write(redis, tenant, tmp_path / "again")
    assert [file.name for file in tmp_path.iterdir()] == ["archive"]  # nothing half done stays


async def test_refusals_name_what_is_wrong(
    redis: Redis, tenant: str, served: dict[str, Product], past: History, tmp_path: Path, redis_url: str
) -> None:
    with pytest.raises(ArchiveError, match=f"tenant {tenant} has no log"):
        await export.write(redis, tenant, tmp_path / "archive")
    async with engine_on(redis, tenant, served, past) as (engine, _):
        await run(engine, past.events[:20], 5)
        command = [sys.executable, "-m", "features", "archive", "--tenant", tenant, "--out", str(tmp_path / "archive")]
        done = [
            await asyncio.to_thread(
                subprocess.run, command, cwd=ROOT, env={"REDIS_URL": url}, capture_output=True, text=True, check=False
            )
            for url in (redis_url, redis_url)
        ]  # fmt: skip
        assert done[0].stdout.startswith("20 events and ") and done[0].returncode == 0, done[0].stderr
        assert (done[1].returncode, done[1].stderr) == (2, f"{tmp_path / 'archive'}: exists\n")
        log = f"{{{tenant}}}:log"
        entries: Any = await redis.xrange(log, count=5)
        await redis.xdel(log, entries[4][0])
        with pytest.raises(ArchiveError, match="the log has no event 1, or lost events meanwhile"):
            await export.write(redis, tenant, tmp_path / "gap")

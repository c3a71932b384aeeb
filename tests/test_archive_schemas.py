"""An archive over versions of its schema: older ones are read by name, what cannot be read is said or refused."""

import copy
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from features import archive
from features.archive import ArchiveError, rows
from features.schema import Schema, load
from features.statistics import ENTITY_STATS
from models.__main__ import app
from tests.conftest import ROOT, demo_bundle
from tests.test_archive import assert_same, folder, write_again
from tests.test_engine import past, served

__all__ = ["folder", "past", "served"]


def changed(schema: Schema, change: Callable[[dict[str, Any]], object]) -> Schema:
    document = copy.deepcopy(schema.document)
    change(document)
    return Schema(document, "changed.yaml")


async def test_rows_of_an_older_schema_are_read_by_name(folder: Path, consumer: Schema) -> None:
    before = rows(folder, consumer)
    newer = changed(
        consumer,
        lambda d: d.update(
            features=[{"name": "tenure", "zh": "年", "en": "tenure"}, *d["features"]],
            velocity={**d["velocity"], "applicant": [*d["velocity"]["applicant"], "age_days"]},
        ),
    )  # fmt: skip
    found = rows(folder, newer)
    assert found.application_ids == before.application_ids
    for name in consumer.feature_names:
        old, new = before.snapshot.features[:, consumer.column[name]], found.snapshot.features[:, newer.column[name]]
        np.testing.assert_array_equal(new, old, name)
    assert np.isnan(found.snapshot.features[:, newer.column["tenure"]]).all()
    age_days = before.snapshot.entity_state[:, 0, list(ENTITY_STATS).index("age_days")]
    np.testing.assert_array_equal(found.snapshot.features[:, newer.column["applicant_age_days"]], age_days)
    np.testing.assert_array_equal(found.snapshot.neighbor_state, before.snapshot.neighbor_state)

    # of a schema that counted one statistic less, whose list stands beside its document
    manifest = json.loads((folder / archive.MANIFEST).read_text(encoding="utf-8"))
    document, entity_stats, graph_stats = manifest["schemas"].pop(consumer.hash)
    of_before = [document, [*entity_stats, "counted_once"], graph_stats]
    name = hashlib.blake2b(json.dumps(of_before, ensure_ascii=False).encode(), digest_size=8).hexdigest()
    manifest["schemas"][name] = of_before
    (folder / archive.MANIFEST).write_text(json.dumps(manifest, ensure_ascii=False), encoding="utf-8")
    decisions = pl.read_parquet(folder / archive.DECISIONS)
    write_again(folder, archive.DECISIONS, decisions.with_columns(pl.col("schema").replace({consumer.hash: name})))
    assert_same(rows(folder, consumer), before)
    changed_since = {**manifest["schemas"], name: [document, entity_stats, graph_stats]}
    for schemas, reason in (
        ({name: document}, f"schema {name}: is no document with the statistics it counted"),
        (changed_since, f"schema {name}: is not that of its hash"),
        ({consumer.hash: [document, entity_stats, graph_stats]}, "is not there"),
    ):
        (folder / archive.MANIFEST).write_text(json.dumps({**manifest, "schemas": schemas}), encoding="utf-8")
        write_again(folder, archive.DECISIONS, pl.read_parquet(folder / archive.DECISIONS))
        with pytest.raises(ArchiveError, match=reason):
            rows(folder, consumer)
    write_again(folder, archive.DECISIONS, decisions)

    for change, reason in (
        (lambda d: d.update(record=d["record"][:-1]), "another record"),
        (lambda d: d["entities"]["device"].update(link=False), "other entities"),
        (lambda d: d["features"][0].update(unit="days"), f"feature {consumer.features[0].name} means something else"),
    ):
        with pytest.raises(ArchiveError, match=reason):
            rows(folder, changed(consumer, change))
    with pytest.raises(ArchiveError, match="holds no decision of schema other"):
        rows(folder, changed(consumer, lambda d: d.update(name="other")))


async def test_what_cannot_be_read_is_left_out_and_said(folder: Path, consumer: Schema, tmp_path: Path) -> None:
    """Decisions of a schema that is not known: another product's are none of a product's business."""
    expected, decisions = rows(folder, consumer), pl.read_parquet(folder / archive.DECISIONS)
    auto = load(ROOT / "features/schemas/auto.yaml")
    kept = rows(folder, auto).application_ids

    def unknown(schema: Schema, share: pl.Expr) -> None:
        changed = pl.when(share & (pl.col("schema") == schema.hash)).then(pl.lit("5" * 16)).otherwise(pl.col("schema"))
        write_again(folder, archive.DECISIONS, decisions.with_columns(schema=changed))

    said: list[str] = []
    unknown(auto, pl.lit(value=True))
    assert_same(rows(folder, consumer, warn=said.append), expected)
    assert said == []
    with pytest.raises(ArchiveError, match=rf"{len(kept)} decisions cannot be read: .*schema 5{{16}}: is not there"):
        rows(folder, auto)
    unknown(consumer, pl.col("sequence") % 3 == 0)
    left = [name for name in expected.application_ids if int(name) % 3]
    assert rows(folder, consumer, warn=said.append).application_ids == left
    (problem,) = said
    assert problem.startswith(f"{len(expected.application_ids) - len(left)} decisions cannot be read: ")
    demo = str(demo_bundle("consumer"))
    compared = CliRunner().invoke(
        app, ["compare", "--champion", demo, "--challenger", demo, "--archive", str(folder)], env={"COLUMNS": "200"}
    )
    asked = ["train", "--schema", str(ROOT / "features/schemas/consumer.yaml"), "--search-seconds", "0"]
    trained = CliRunner().invoke(
        app, [*asked, "--test-share", "0", "--archive", str(folder), "--out", str(tmp_path / "b")]
    )
    assert compared.exit_code == 0, compared.output
    for done in (compared, trained):  # what is left is too little to train on
        assert f"warning: {problem}" in done.output, done.output

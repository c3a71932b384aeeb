"""Tables as history: columns by the schema, labels only after their delay, and training rows without look-ahead."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from bench import superlender
from features import schema as schemas
from features import table
from features.application import Report
from features.replay import History, replay
from features.schema import Schema, SchemaError
from tests.conftest import ROOT, SHARED_DATA, TOKENIZER

SFFSD = schemas.load(ROOT / "features/schemas/sffsd.yaml")


def written(folder: Path, rows: int = 400) -> Path:
    random = np.random.default_rng(3)
    frame = pl.DataFrame(
        {
            "Time": np.arange(rows),
            "Source": [f"S{i}" for i in random.integers(0, 40, rows)],
            "Target": [f"T{i}" for i in random.integers(0, 9, rows)],
            "Amount": random.uniform(1, 500, rows).round(2),
            "Location": [f"L{i}" for i in random.integers(0, 5, rows)],
            "Type": [f"TP{i}" for i in random.integers(0, 4, rows)],
            "Labels": random.integers(0, 3, rows),
        }
    )
    frame.write_parquet(folder / "cards.parquet")
    return folder / "cards.parquet"


def past(rows: list[table.TableRow], delay: int) -> History:
    return table.history(SFFSD, TOKENIZER, list(table.in_log_order(rows, delay)))


def test_rows_and_their_delayed_outcomes(tmp_path: Path) -> None:
    rows = table.read(SFFSD, written(tmp_path))
    events = past(rows, 50).events
    position = {e.application_id: i for i, e in enumerate(events) if not isinstance(e, Report)}
    reports = [(i, e) for i, e in enumerate(events) if isinstance(e, Report)]
    assert len(position) == 400 and 200 < len(reports) < 350
    for i, report in reports:
        asked_between = sum(1 for at in position.values() if position[report.application_id] < at < i)
        assert asked_between == 50


def test_missing_column_is_named(tmp_path: Path) -> None:
    path = written(tmp_path)
    pl.read_parquet(path).drop("Target").write_parquet(path)
    with pytest.raises(SchemaError, match="no column Target"):
        table.read(SFFSD, path)


def test_schema_without_table_is_refused(tmp_path: Path, consumer: Schema) -> None:
    with pytest.raises(SchemaError, match="table: is missing"):
        table.read(consumer, written(tmp_path))


def test_later_rows_and_labels_change_no_earlier_row(tmp_path: Path) -> None:
    rows = table.read(SFFSD, written(tmp_path))
    whole = replay(past(rows, 50))["sffsd"].snapshot
    early = replay(past(rows[:300], 50))["sffsd"].snapshot
    np.testing.assert_array_equal(whole.features[:300], early.features)
    np.testing.assert_array_equal(whole.neighbor_state[:300], early.neighbor_state)
    flipped = [
        replace(row, outcome_kinds=("fraud_confirmed",)) if i >= 200 else row for i, row in enumerate(rows)
    ]  # reported after row 250
    other = replay(past(flipped, 50))["sffsd"].snapshot
    np.testing.assert_array_equal(whole.features[:251], other.features[:251])
    assert not np.array_equal(whole.features[251:], other.features[251:], equal_nan=True)


def test_labels_are_those_known_at_the_end(tmp_path: Path) -> None:
    rows = table.read(SFFSD, written(tmp_path))
    labels = replay(past(rows, 50))["sffsd"].labels["fraud"]
    assert (labels[350:] == -1).all()
    for row, label in zip(rows[:350], labels[:350].tolist(), strict=True):
        assert label == (-1 if not row.outcome_kinds else int(row.outcome_kinds == ("fraud_confirmed",)))


@pytest.mark.parametrize(
    ("bad", "good", "column"),
    [
        ("[Yes]", "[No]", ["Yes", "No", "Yes", "maybe"]),
        ("[on]", "[off]", ["on", "off", "on", ""]),
        ("[true]", "[false]", ["True", "FALSE", "true", "unknown"]),
        ("[true]", "[false]", [True, False, True, None]),
        ("[1.0]", "[0]", [1.0, 0.0, 1.0, 2.0]),
    ],
)
def test_labels_as_yaml_writes_them(tmp_path: Path, bad: str, good: str, column: list[object]) -> None:
    label = f"{{default: {{column: outcome, bad: {bad}, good: {good}}}}}"
    text = f"name: t\nversion: 1\nfeatures: [{{name: x}}]\nlabels: {{default: {{}}}}\ntable: {{labels: {label}}}\n"
    (tmp_path / "t.yaml").write_text(text, encoding="utf-8")
    pl.DataFrame({"x": [1.0, 2.0, 3.0, 4.0], "outcome": column}).write_parquet(tmp_path / "t.parquet")
    rows = table.read(schemas.load(tmp_path / "t.yaml"), tmp_path / "t.parquet")
    assert [row.outcome_kinds for row in rows] == [("past_due_90",), ("repaid",), ("past_due_90",), ()]


@pytest.mark.skipif(not SHARED_DATA.is_dir(), reason="../shared/data is not here: real tables are not tested")
def test_real_table() -> None:
    rows = table.read(SFFSD, SHARED_DATA / "sffsd_dev_first60.parquet")
    assert len(rows) == 46_728
    assert rows[0].amount_minor == 1374 and rows[0].applicant_id == "S10000"
    seen = replay(past(rows[:5_000], 500))["sffsd"]
    assert len(seen.snapshot) == 5_000 and (seen.labels["fraud"] == 1).sum() > 50


REAL = {
    "gmsc": ("gmsc_dev", 105_125), "german": ("german", 1_000), "heloc": ("heloc", 10_459),
    "pakdd2010": ("pakdd2010_dev", 35_037), "lending_club": ("lending_club_q1_2016_modeldata", 9_857),
    "tianchi_lc": ("tianchi_lc_dev_le201603", 4_911), "vehicle_claim_fraud": ("vehicle_claim_fraud_1994_95", 11_337),
}  # fmt: skip


@pytest.mark.skipif(not SHARED_DATA.is_dir(), reason="../shared/data is not here: real tables are not tested")
@pytest.mark.parametrize("name", REAL)
def test_real_tables_read_without_a_warning(name: str) -> None:
    file, count = REAL[name]
    warned: list[str] = []
    schema = schemas.load(ROOT / f"features/schemas/{name}.yaml")
    rows = table.read(schema, SHARED_DATA / f"{file}.parquet", warn=warned.append)
    assert len(rows) == count and not warned
    assert len({row.row_id for row in rows}) == count and len({row.outcome_kinds for row in rows}) == 2


@pytest.mark.skipif(not SHARED_DATA.is_dir(), reason="../shared/data is not here: real tables are not tested")
def test_facts_of_previous_loans_end_at_the_approval(tmp_path: Path) -> None:
    joined = superlender.joined(SHARED_DATA)
    assert (joined.select("days_since_last_closed", "days_since_last_approved").drop_nulls() > 0).to_numpy().all()
    joined.write_parquet(tmp_path / "loans.parquet")
    rows = table.read(schemas.load(ROOT / "features/schemas/superlender.yaml"), tmp_path / "loans.parquet")
    assert len(rows) == 3_192

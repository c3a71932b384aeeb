"""A hand-written schema of a table nobody has seen: train and score it as the command line does."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import yaml
from typer.testing import CliRunner

from features import schema as schemas
from features import table
from features.application import category_code
from features.schema import Schema, SchemaError
from models.__main__ import app
from models.bundle import Bundle, BundleError
from models.evaluate import auc
from models.folds import TrainingError
from models.reasons import feature_reasons
from models.recipe import TrainConfig
from models.scorer import Scorer
from models.tables import replayed, score_table, train_table

DOCUMENT = {
    "name": "cards", "version": 1,
    "features": [
        {"name": "age", "range": [18, 100], "monotone": {"default": -1}},
        {"name": "points", "missing": [-9, -8]},
        {"name": "home", "type": "category", "values": ["own", "rent"]},
        {"name": "employer", "type": "category"},
        {"name": "balance"},
        {"name": "used", "cross": "balance / points"},
    ],
    "labels": {"default": {}},
    "table": {
        "id": "customer", "features": {"age": "AGE YEARS"},
        "labels": {"default": {"column": "outcome", "bad": ["charged off"], "good": ["paid"]}},
    },
}  # fmt: skip
QUICK = TrainConfig(split="stratified", search_seconds=0)


def frame(rows: int, seed: int) -> pl.DataFrame:
    random = np.random.default_rng(seed)
    age, employer = random.integers(18, 80, rows), random.integers(0, 6, rows)
    points = np.where(random.random(rows) < 0.2, random.choice([-9, -8], rows), random.integers(300, 800, rows))
    log_odds = -(age - 40) / 20 + np.isin(employer, (1, 4)) + 1.5 * (points == -8) - 0.5
    bad = random.random(rows) < 1 / (1 + np.exp(-log_odds))
    return pl.DataFrame(
        {
            "customer": [f"c{seed}-{i}" for i in random.permutation(rows)],
            "AGE YEARS": [str(a) for a in age],
            "points": points.astype(float),
            "home": random.choice(["own", "rent", "boat"], rows),
            "employer": [f"E{e}" for e in employer],
            "balance": np.where(random.random(rows) < 0.3, np.nan, random.random(rows)),
            "outcome": np.where(random.random(rows) < 0.05, "still open", np.where(bad, "charged off", "paid")),
        }
    )


@pytest.fixture(scope="module")
def schema(tmp_path_factory: pytest.TempPathFactory) -> Schema:
    path = tmp_path_factory.mktemp("schema") / "cards.yaml"
    path.write_text(yaml.safe_dump(DOCUMENT), encoding="utf-8")
    return schemas.load(path)


@pytest.fixture(scope="module")
def bundle(schema: Schema, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("bundle")
    frame(3000, 1).write_parquet(folder / "train.parquet")
    return Bundle.open(train_table(schema, folder / "train.parquet", folder / "cards", QUICK))


def test_rows_keep_the_ways_of_missing_apart(schema: Schema, tmp_path: Path) -> None:
    frame(50, 2).write_parquet(tmp_path / "t.parquet")
    warned: list[str] = []
    found = table.read(schema, tmp_path / "t.parquet", warn=warned.append)
    features = replayed(schema, found, 10, settled=True).snapshot.features
    given = frame(50, 2)["points"].to_numpy()
    points, code = features[:, schema.column["points"]], features[:, schema.column["points_missing_code"]]
    np.testing.assert_array_equal(points, np.where(given < 0, np.nan, given))
    np.testing.assert_array_equal(code, np.where(given < 0, given, np.nan))
    assert np.isnan(features[given < 0, schema.column["used"]]).all()
    (message,) = warned
    assert "column home" in message and "'boat'" in message
    assert {row.outcome_kinds for row in found} == {("past_due_90",), ("repaid",), ()}


def test_scores_in_the_order_of_the_file_without_labels(bundle: Bundle, tmp_path: Path) -> None:
    later = frame(1000, 3)
    unseen = later.with_columns(employer=pl.Series(["somewhere new"] * 100 + later["employer"].to_list()[100:]))
    unseen.drop("outcome").write_csv(tmp_path / "later.csv")
    scored = score_table(bundle, tmp_path / "later.csv")
    assert scored.columns == ["customer", "score"] and scored["customer"].to_list() == later["customer"].to_list()
    known = later["outcome"].is_in(["charged off", "paid"]).to_numpy()
    bad = (later["outcome"] == "charged off").to_numpy().astype(np.int8)
    assert auc(bad[known], scored["score"].to_numpy()[known]) > 0.68


def test_contributions_of_categories_sum_to_the_margin(bundle: Bundle, tmp_path: Path) -> None:
    frame(200, 4).write_parquet(tmp_path / "t.parquet")
    rows = replayed(bundle.schema, table.read(bundle.schema, tmp_path / "t.parquet"), 10)
    scorer = Scorer(bundle)
    probability = scorer.score(rows.snapshot).default_probability
    log_odds = np.log(probability / (1 - probability))
    parts = scorer.explain("default", rows.snapshot)
    assert parts.shape == (200, len(bundle.schema.columns("default")))
    rest = log_odds - parts.sum(axis=1)
    np.testing.assert_allclose(rest, rest[0], atol=1e-5)


def test_a_reason_of_an_open_category_shows_no_code(bundle: Bundle) -> None:
    columns, row = bundle.schema.columns("default"), np.full(len(bundle.schema.features), np.nan, np.float32)
    at = bundle.schema.column["employer"]
    row[at] = category_code("E1")
    ((reason,),) = feature_reasons(bundle.schema, columns, (columns == at).astype(float)[None], row[None])
    assert (reason.code, reason.en, reason.evidence) == ("EMPLOYER", "employer", "employer")


def test_the_same_seed_gives_the_same_bundle(schema: Schema, tmp_path: Path) -> None:
    frame(600, 1).write_parquet(tmp_path / "t.parquet")
    searched = replace(QUICK, search_seconds=600)
    made = [Bundle.open(train_table(schema, tmp_path / "t.parquet", tmp_path / n, searched)) for n in ("a", "b")]
    assert made[0].version == made[1].version
    search = made[0].manifest["labels"]["default"]["search"]
    assert len(search["trials"]) >= 10 and not search["stopped_by_time"]


def test_refusals_name_column_and_rows(schema: Schema, tmp_path: Path) -> None:
    good = frame(100, 5)
    for change, reason in (
        (good.with_columns(pl.lit("old").alias("AGE YEARS")), "column AGE YEARS: 100 of 100 rows are no number"),
        (good.with_columns(pl.lit(17).alias("AGE YEARS")), "column AGE YEARS: 100 of 100 rows are not from 18 to 100"),
        (good.with_columns(pl.lit("c1").alias("customer")), "column customer: 99 of 100 rows repeat an id"),
        (good.with_columns(pl.lit("1").alias("outcome")), "0 of 100 rows are bad"),
        (good.drop("balance"), "no column balance"),
        (good.head(0), "has no rows"),
    ):
        change.write_parquet(tmp_path / "t.parquet")
        with pytest.raises(SchemaError, match=reason):
            table.read(schema, tmp_path / "t.parquet")


def test_command_line(schema: Schema, tmp_path: Path) -> None:
    (tmp_path / "cards.yaml").write_text(yaml.safe_dump(DOCUMENT), encoding="utf-8")
    frame(400, 6).write_parquet(tmp_path / "t.parquet")
    run, data = CliRunner().invoke, ["--data", str(tmp_path / "t.parquet")]
    made = run(app, ["train", "--schema", str(tmp_path / "cards.yaml"), *data, "--out", str(tmp_path / "b"),
                     "--search-seconds", "0"])  # fmt: skip
    assert made.exit_code == 0, made.output
    scored = run(app, ["score", "--bundle", str(tmp_path / "b"), *data, "--out", str(tmp_path / "new/s.csv")])
    assert scored.exit_code == 0, scored.output
    assert pl.read_csv(tmp_path / "new/s.csv").height == 400
    with pytest.raises(BundleError, match="no model of 'fraud'"):
        score_table(Bundle.open(tmp_path / "b"), tmp_path / "t.parquet", label="fraud")


def test_history_warms_the_graph(tmp_path: Path) -> None:
    """Rows scored after their history have the same velocity as in one table; labels of the scored are not needed."""
    sffsd = schemas.load("features/schemas/sffsd.yaml")
    random = np.random.default_rng(0)
    every = pl.DataFrame(
        {
            "Time": range(1200), "Source": random.integers(0, 60, 1200), "Target": random.integers(0, 20, 1200),
            "Amount": random.random(1200).round(2), "Location": random.integers(0, 5, 1200),
            "Type": random.integers(0, 4, 1200), "Labels": random.integers(0, 2, 1200),
        }
    )  # fmt: skip
    for name, part in (("all", every), ("past", every[:800]), ("later", every[800:].drop("Labels"))):
        part.write_parquet(tmp_path / f"{name}.parquet")
    bundle = Bundle.open(train_table(sffsd, tmp_path / "past.parquet", tmp_path / "b", replace(QUICK, split="time")))
    with_past = score_table(bundle, tmp_path / "later.parquet", tmp_path / "past.parquet", label_delay_rows=500)
    without = score_table(bundle, tmp_path / "later.parquet", label_delay_rows=500)
    known = every.with_columns(Labels=pl.Series([*every["Labels"][:800], *([2] * 400)]))
    known.write_parquet(tmp_path / "known.parquet")
    rows = replayed(sffsd, table.read(sffsd, tmp_path / "known.parquet"), 500)
    expected = Scorer(bundle).score(rows.snapshot.take(slice(800, None))).fraud_probability
    np.testing.assert_array_equal(with_past["score"].to_numpy(), expected)
    assert not np.array_equal(without["score"].to_numpy(), expected)


def test_nobody_is_the_nobody_of_another_file(tmp_path: Path) -> None:
    """A table that names no applicants: the fifth row of the history and of what is scored are two people."""
    document = schemas.load("features/schemas/sffsd.yaml").document
    strangers = Schema(
        {**document, "entities": {"buyer": {}, **document["entities"]}, "velocity": {"buyer": ["count_all"]}}, "s.yaml"
    )
    random = np.random.default_rng(0)
    every = pl.DataFrame(
        {
            "Time": range(60), "Source": random.integers(0, 60, 60), "Target": random.integers(0, 20, 60),
            "Amount": random.random(60), "Location": random.integers(0, 5, 60), "Type": random.integers(0, 4, 60),
            "Labels": random.integers(0, 2, 60),
        }
    )  # fmt: skip
    for name, part in (("all", every), ("past", every[:30]), ("later", every[30:])):
        part.write_parquet(tmp_path / f"{name}.parquet")
    past, later, whole = (table.read(strangers, tmp_path / f"{name}.parquet") for name in ("past", "later", "all"))
    apart = replayed(strangers, table.merged(past, later), 10).snapshot.features
    np.testing.assert_array_equal(apart, replayed(strangers, whole, 10).snapshot.features)
    assert not apart[:, strangers.column["buyer_count_all"]].any()


def test_one_bad_row_is_not_enough(schema: Schema, tmp_path: Path) -> None:
    """A fold without it would have no rate to start from."""
    one = frame(200, 1).with_columns(outcome=pl.Series(["charged off", *["paid"] * 199]))
    one.write_parquet(tmp_path / "t.parquet")
    with pytest.raises(TrainingError, match="1 of them bad: needs 2 bad"):
        train_table(schema, tmp_path / "t.parquet", tmp_path / "b", QUICK)


def test_few_bad_rows_still_give_a_test_part(schema: Schema, tmp_path: Path) -> None:
    """Of each outcome as many as its share, so that the report has what to judge by."""
    few = frame(300, 1).with_columns(outcome=pl.Series(["charged off"] * 6 + ["paid"] * 294))
    few.write_parquet(tmp_path / "t.parquet")
    for seed in range(3):
        config = replace(QUICK, test_share=0.3, seed=seed)
        out = train_table(schema, tmp_path / "t.parquet", tmp_path / f"b{seed}", config)
        found = Bundle.open(out).manifest["labels"]["default"]["test"]["metrics"]
        assert next(iter(found.values()))["bad"] == 2 and (out / "report.html").exists()

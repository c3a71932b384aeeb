"""Every public table through the public train and score, beside an untuned LightGBM on the same rows of the same folds.

Protocols: data/README.md. All that is chosen is chosen inside the training part; the labels of a test part are
dropped before our models see it. Bars were measured on the whole sets, of which these files are a part.
"""

import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from sklearn.model_selection import StratifiedKFold

from bench import replay, superlender
from features import columns, table
from features import schema as schemas
from features.schema import Schema
from models.bundle import Bundle
from models.evaluate import INTERVAL, auc, ks, metrics, paired_difference
from models.recipe import TrainConfig
from models.tables import score_table, train_table

SCHEMAS = Path("features/schemas")
RESAMPLES = 1000
FOLDS = 5

Ints = NDArray[np.int64]
Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class Trial:
    """One set under one protocol. test_share: by time, the share of the rows that is tested; 0 for folds."""

    schema: str
    file: str
    bar: float
    test_share: float = 0.0


TRIALS = {
    "german": Trial("german", "german", 0.7879),
    "heloc": Trial("heloc", "heloc", 0.7975),
    "lending_club": Trial("lending_club", "lending_club_q1_2016_modeldata", 0.7140),
    "tianchi_lc": Trial("tianchi_lc", "tianchi_lc_dev_le201603", 0.6856),
    "tianchi_lc_by_time": Trial("tianchi_lc", "tianchi_lc_dev_le201603", 0.6633, 0.3),
    "superlender": Trial("superlender", "superlender", 0.7150),
    "superlender_by_time": Trial("superlender", "superlender", 0.6903, 0.3),
    "vehicle_claim_fraud": Trial("vehicle_claim_fraud", "vehicle_claim_fraud_1994_95", 0.8536),
    "vehicle_claim_fraud_by_year": Trial("vehicle_claim_fraud", "vehicle_claim_fraud_1994_95", 0.7599, 1.0),
    "pakdd2010": Trial("pakdd2010", "pakdd2010_dev", 0.6490),
    "gmsc": Trial("gmsc", "gmsc_dev", 0.8665),
    "s_ffsd": Trial("sffsd", "sffsd_dev_first60", 0.873, 0.4),
}


@dataclass(frozen=True)
class Part:
    """A test part: labels int8 [n], our scores and LightGBM's, float64 [n]."""

    labels: NDArray[np.int8]
    ours: Doubles
    lightgbm: Doubles


def run(
    folder: Path, only: str = "", search_seconds: float = TrainConfig.search_seconds
) -> dict[str, dict[str, float]]:
    """Figures by trial; prints a table of them as they come."""
    console = Console(width=120)
    figures: dict[str, dict[str, float]] = {}
    for name, trial in TRIALS.items():
        if only and name not in (only, f"{only}_by_time", f"{only}_by_year"):
            continue
        started = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="miaopi-") as scratch, console.status(name):
            parts = list(_parts(trial, _frame(trial, folder), Path(scratch), search_seconds))
        figures[name] = {**_figures(parts, trial.bar), "seconds": round(time.monotonic() - started, 1)}
        console.print(f"{name}: {figures[name]}", markup=False, soft_wrap=True)
    console.print(_printed(figures))
    return figures


def _frame(trial: Trial, folder: Path) -> pl.DataFrame:
    if trial.file == "superlender":
        return superlender.joined(folder)
    return pl.read_parquet(folder / f"{trial.file}.parquet")


def _parts(trial: Trial, frame: pl.DataFrame, scratch: Path, seconds: float) -> Iterator[Part]:
    schema = schemas.load(SCHEMAS / f"{trial.schema}.yaml")
    assert schema.table is not None
    spec = next(iter(schema.table.labels.values()))
    bad, good = (mask.to_numpy() for mask in table.bad_and_good(frame[spec.column], spec))
    truth = np.where(bad | good, bad, -1).astype(np.int8)
    for train, test in _split(schema, trial, frame, truth):
        files = scratch / "train.parquet", scratch / "test.parquet"
        frame[train].write_parquet(files[0])
        frame[test].drop(spec.column).write_parquet(files[1])
        split = "time" if trial.test_share else "stratified"
        train_table(schema, files[0], scratch / "bundle", TrainConfig(split=split, search_seconds=seconds))
        scored = score_table(Bundle.open(scratch / "bundle"), files[1], files[0] if schema.table.entities else None)
        theirs = _lightgbm(schema, frame, train, test, truth, scratch)
        asked = truth[test] >= 0
        yield Part(truth[test][asked], scored["score"].to_numpy()[asked], theirs[asked])


def _split(schema: Schema, trial: Trial, frame: pl.DataFrame, truth: NDArray[np.int8]) -> Iterator[tuple[Ints, Ints]]:
    """Rows to train on and to test on."""
    if not trial.test_share:
        yield from StratifiedKFold(FOLDS, shuffle=True, random_state=0).split(truth, truth)
        return
    if trial.schema == "vehicle_claim_fraud":
        year = frame["Year"].to_numpy()
        yield np.flatnonzero(year < year.max()), np.flatnonzero(year == year.max())
        return
    assert schema.table is not None
    times = columns.times_ms(
        Path(trial.file), frame, schema.table.time, schema.table.time_unit_ms, schema.table.time_format
    )
    order = np.argsort(times, kind="stable")
    cut = int(len(order) * (1 - trial.test_share))
    yield order[:cut], order[cut:]


def _lightgbm(
    schema: Schema, frame: pl.DataFrame, train: Ints, test: Ints, truth: NDArray[np.int8], scratch: Path
) -> Doubles:
    """float64 [n] of untuned LightGBM, one thread: the schema's columns, categories by the order of their texts.

    Where the schema has entities, the columns are raw ones and causal velocity (bench/replay.py).
    """
    import lightgbm

    assert schema.table is not None
    if schema.table.entities:
        frame[np.concatenate([train, test])].write_parquet(scratch / "all.parquet")
        return replay.baseline(scratch / "all.parquet", schema, truth[train])
    matrix = np.column_stack([_numbers(frame, c, f, train) for c, f in _raw_columns(schema).items()])
    fit = train[truth[train] >= 0]
    model = lightgbm.LGBMClassifier(n_jobs=1, random_state=0, verbose=-1).fit(matrix[fit], truth[fit])
    return np.asarray(model.predict_proba(matrix[test]), dtype=np.float64)[:, 1]


def _raw_columns(schema: Schema) -> dict[str, bool]:
    """Columns of the table that the schema reads features from, and whether they are categories or dates."""
    assert schema.table is not None
    named = {table_column: schema.features[schema.column[name]].category
             for name, table_column in table.feature_columns(schema, schema.table).items()}  # fmt: skip
    named |= dict.fromkeys(schema.table.days_since.values(), True)
    return named | ({schema.table.amount: False} if schema.table.amount else {})


def _numbers(frame: pl.DataFrame, column: str, category: bool, train: Ints) -> Doubles:
    if not category:
        return frame[column].cast(pl.Float64).fill_null(np.nan).to_numpy()
    text = columns.texts(frame[column])
    values = text[train].drop_nulls().unique().sort()
    return (
        text.replace_strict(values, range(len(values)), default=None, return_dtype=pl.Float64)
        .fill_null(np.nan)
        .to_numpy()
    )


def _figures(parts: list[Part], bar: float) -> dict[str, float]:
    ours = float(np.mean([auc(p.labels, p.ours) for p in parts]))
    theirs = float(np.mean([auc(p.labels, p.lightgbm) for p in parts]))
    random = np.random.default_rng(0)
    differences = [paired_difference(p.labels, p.ours, p.lightgbm, random, RESAMPLES) for p in parts]
    low, high = np.percentile(np.mean(differences, axis=0), INTERVAL)
    labels, probability = (np.concatenate([getattr(p, name) for p in parts]) for name in ("labels", "ours"))
    return {
        "auc": round(ours, 5), "bar": bar, "lightgbm": round(theirs, 5), "difference": round(ours - theirs, 5),
        "diff_low": round(float(low), 5), "diff_high": round(float(high), 5),
        "ks": round(float(np.mean([ks(p.labels, p.ours) for p in parts])), 4),
        "ece": round(metrics(labels, probability)["ece"], 4),
    }  # fmt: skip


def _printed(figures: dict[str, dict[str, float]]) -> Table:
    names = ("auc", "bar", "lightgbm", "difference", "diff_low", "diff_high", "ks", "ece", "seconds")
    printed = Table("set", *names)
    for name, row in figures.items():
        printed.add_row(name, *(f"{row[n]:.4f}" if n != "seconds" else f"{row[n]:.0f}" for n in names))
    return printed

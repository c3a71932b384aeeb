"""From a flat table to a bundle and from a bundle to scores: what `train` and `score` do, without their printing."""

import secrets
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from features import table
from features.place import HERE, Place
from features.replay import Rows, replay
from features.schema import Schema
from features.table import TableRow
from features.tokens import Tokenizer
from models.bundle import DEEP, Bundle, BundleError
from models.history_scorer import HistoryScorer

if TYPE_CHECKING:
    from models.recipe import TrainConfig

LABEL_DELAY_ROWS = 500

Say = Callable[[str], None]


def silent(message: str) -> None:
    """Says nothing."""


def train_table(
    schema: Schema, data: Path, out: Path, config: "TrainConfig", *, command: str = "",
    label_delay_rows: int = LABEL_DELAY_ROWS, warn: Say = silent, progress: Say = silent, place: Place = HERE,
) -> Path:  # fmt: skip
    """A bundle in the folder `out`, trained on the rows of a file; the outcomes of all of them are known by then."""
    from models.train import train  # here alone: scoring needs no training library

    found = table.read(schema, data, warn=warn)
    deep = config.network == DEEP
    rows = replayed(schema, found, label_delay_rows, settled=True, progress=progress, place=place, deep=deep)
    config = replace(config, categories=table.category_names(schema, found))
    return train(rows, out, config, command=command, progress=progress)


def score_table(
    bundle: Bundle, data: Path, history: Path | None = None, label: str = "", *,
    label_delay_rows: int = LABEL_DELAY_ROWS, warn: Say = silent, progress: Say = silent, place: Place = HERE,
) -> pl.DataFrame:  # fmt: skip
    """The id column and `score`, the probability of `label` (the first of the bundle), in the order of the file.

    history: rows with labels that warm the graph; the labels of `data` are not looked at. Raises BundleError where
    the bundle has no model of the label.
    """
    label = label or next(iter(bundle.models))
    if label not in bundle.models:
        raise BundleError(f"bundle {bundle.version} has no model of {label!r}, but of {', '.join(bundle.models)}")
    later = table.read(bundle.schema, data, labelled=False, warn=warn)
    past = table.read(bundle.schema, history, warn=warn) if history else []
    every = table.merged(past, later)
    rows = replayed(bundle.schema, every, label_delay_rows, progress=progress, place=place, deep=bundle.deep)
    asked = np.array([i for i, row in enumerate(every) if not row.past], dtype=np.int64)
    found = HistoryScorer(bundle, place).probability(rows.snapshot.take(asked), label)
    order = np.argsort([every[i].position for i in asked], kind="stable")
    name = (bundle.schema.table.id if bundle.schema.table else "") or "row"
    return pl.DataFrame({name: [every[asked[i]].row_id for i in order], "score": found[order]})


def replayed(
    schema: Schema, rows: Sequence[TableRow], label_delay_rows: int, *, settled: bool = False, progress: Say = silent,
    place: Place = HERE, deep: bool = False,
) -> Rows:  # fmt: skip
    """The rows walked through the graph at a place, with hops if `deep`; `settled` where every outcome is known at the
    end.
    """
    progress(f"replay of {len(rows)} rows")
    tokenizer = Tokenizer(secrets.token_bytes(32))  # tokens tie rows together; none outlives this process
    ordered = list(table.in_log_order(rows, label_delay_rows))
    past = table.history(schema, tokenizer, ordered, settled=settled)
    return replay(past, place=place, deep=deep)[schema.name]

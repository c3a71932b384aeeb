"""What a model does with its features: which move its answer, which way, and whether it keeps what the schema binds."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from features.application import Snapshot
from features.schema import Feature, Schema
from models.scorer import LabelScorer, in_parts

INFLUENCE_ROWS = 2000  # explained and sent through the graph network
SWEEP_ROWS, SWEEP_STEPS = 100, 9
TOLERANCE = 1e-9  # of a probability: below it a step back is rounding
TREND_MIN = 0.3  # correlation of value and contribution below which a direction is called mixed
GRAPH_NETWORK = "graph network"


@dataclass(frozen=True)
class Influence:
    """mean_log_odds: mean |contribution| to the log-odds; trend as the feature grows: 1 riskier, -1 safer, 0 mixed."""

    name: str
    mean_log_odds: float
    trend: int


@dataclass(frozen=True)
class Sweep:
    """A feature moved over its quantiles while the row stays: pairs of neighbouring steps, and those that step back.

    worst: largest step of the probability against the declared direction.
    """

    name: str
    direction: int
    pairs: int
    violations: int
    worst: float


def influences(schema: Schema, columns: NDArray[np.int64], scorer: LabelScorer, rows: Snapshot) -> list[Influence]:
    """The features of `columns` by the exact contributions of the trees, and the graph network; strongest first.

    On at most 2000 of the rows.
    """
    rows = _some(rows, INFLUENCE_ROWS)
    moved, network = in_parts(scorer.explain, rows), in_parts(scorer.graph, rows)
    found = [
        Influence(schema.feature_names[i], float(np.abs(moved[:, j]).mean()),
                  _trend(schema.features[i], rows.features[:, i], moved[:, j]))
        for j, i in enumerate(columns)
    ]  # fmt: skip
    if network.any():
        found.append(Influence(GRAPH_NETWORK, float(np.abs(network).mean()), 0))
    return sorted(found, key=lambda influence: -influence.mean_log_odds)


def _trend(feature: Feature, values: NDArray[np.float32], moved: NDArray[np.float64]) -> int:
    known = ~np.isnan(values)
    rank = np.unique(values[known], return_inverse=True)[1]
    if feature.category or not len(rank) or not rank.any() or np.ptp(moved[known]) == 0:
        return 0
    correlation = float(np.corrcoef(rank, moved[known])[0, 1])
    return int(np.sign(correlation)) if abs(correlation) >= TREND_MIN else 0


def sweeps(
    schema: Schema, label: str, scorer: LabelScorer, rows: Snapshot, learned: NDArray[np.float32]
) -> list[Sweep]:
    """Every feature that the schema binds for the label, over quantiles of `learned` [M, F], on at most 100 rows.

    A cross feature is moved by itself: those made from a moved one keep their value.
    """
    some, found = _some(rows, SWEEP_ROWS), []
    for column in schema.columns(label):
        feature = schema.features[column]
        known = learned[~np.isnan(learned[:, column]), column]
        grid = np.unique(np.quantile(known, np.linspace(0, 1, SWEEP_STEPS), method="nearest")) if len(known) else known
        if feature.monotone.get(label) and len(grid) > 1:
            found.append(_sweep(feature, int(column), feature.monotone[label], scorer, some, grid))
    return found


def _sweep(
    feature: Feature, column: int, direction: int, scorer: LabelScorer, rows: Snapshot, grid: NDArray[np.float32]
) -> Sweep:
    probability = np.empty((len(rows), len(grid)))
    for k, value in enumerate(grid):
        features = rows.features.copy()
        features[:, column] = value
        probability[:, k] = scorer.score(replace(rows, features=features))
    back = np.maximum(-direction * np.diff(probability, axis=1), 0)
    return Sweep(feature.name, direction, back.size, int((back > TOLERANCE).sum()), float(back.max(initial=0)))


def _some(rows: Snapshot, most: int) -> Snapshot:
    """At most `most` of the rows, evenly spread."""
    return rows.take(np.linspace(0, len(rows) - 1, min(len(rows), most)).astype(np.int64))

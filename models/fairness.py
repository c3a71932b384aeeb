"""Fairness by the groups that a schema declares: who is stopped, and who wrongly, at one cut-off (R18).

A ratio of approval rates below four fifths of the largest group's is the usual mark to look closer (29 CFR 1607.4 D);
it is no verdict. Only rows with a known label are counted, so nobody that an earlier policy declined.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from features.schema import Feature, Schema
from models.evaluate import Labels, Probability, auc, recall_at_fpr

STOPPED_GOOD_RATE = 0.05  # of good validation rows, which sets the cut-off
RATIO_MARK = 0.8
ROWS_MIN, BAD_MIN = 100, 10  # below which a group is too small to judge


@dataclass(frozen=True)
class Group:
    """Figures of one group at the cut-off, NaN where it is too small or has no such rows.

    approval_ratio: to the rate of the largest group. false_decline_rate: of good rows; missed_bad_rate: of bad rows.
    """

    name: str
    rows: int
    bad: int
    approval_rate: float
    approval_ratio: float
    false_decline_rate: float
    missed_bad_rate: float
    bad_rate: float
    predicted: float
    auc: float

    @property
    def too_small(self) -> bool:
        """Whether it is said to be too small rather than judged."""
        return self.rows < ROWS_MIN or self.bad < BAD_MIN

    @property
    def marked(self) -> bool:
        """Whether its approval rate falls below four fifths of the largest group's."""
        return self.approval_ratio < RATIO_MARK


def cut_off(labels: Labels, probability: Probability) -> float:
    """The probability from which rows are stopped, so that 5 % of these good rows are."""
    return recall_at_fpr(labels, probability, STOPPED_GOOD_RATE)[1]


def compare(
    schema: Schema, features: NDArray[np.float32], labels: Labels, probability: Probability, cutoff: float
) -> dict[str, list[Group]]:
    """The groups of each feature of `schema.fairness`; features: float32 [N, F] of N rows with a known label."""
    found = {}
    for name, edges in schema.fairness.items():
        column = schema.column[name]
        parts = list(_parts(schema.features[column], edges, features[:, column]))
        largest = max((chosen for _, chosen in parts), key=lambda chosen: int(chosen.sum()), default=None)
        usual = math.nan if largest is None else float((probability[largest] < cutoff).mean())
        found[name] = [_group(part, labels[of], probability[of], cutoff, usual) for part, of in parts]
    return found


def _parts(
    feature: Feature, edges: tuple[float, ...], values: NDArray[np.float32]
) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """Name and rows, bool [N], of each group that has rows."""
    if feature.category:
        names, code = list(feature.values), values
    else:
        marks = [f"{edge:g}" for edge in edges]
        names = [f"under {marks[0]}", *(f"{a} to under {b}" for a, b in pairwise(marks))]
        names.append(f"{marks[-1]} and over")
        code = np.where(np.isnan(values), np.nan, np.digitize(values, edges))
    for i, name in enumerate(names):
        if (code == i).any():
            yield name, code == i
    if np.isnan(values).any():
        yield "missing", np.isnan(values)


def _group(name: str, labels: Labels, probability: Probability, cutoff: float, usual: float) -> Group:
    rows, bad = len(labels), int(labels.sum())
    if rows < ROWS_MIN or bad < BAD_MIN:
        return Group(name, rows, bad, *[math.nan] * 7)
    stopped, good = probability >= cutoff, labels == 0
    approved = float((~stopped).mean())
    return Group(
        name, rows, bad, approved, approved / usual if usual else math.nan,
        float(stopped[good].mean()) if good.any() else math.nan, float((~stopped)[~good].mean()),
        bad / rows, float(probability.mean()), auc(labels, probability),
    )  # fmt: skip

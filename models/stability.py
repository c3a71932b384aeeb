"""Whether a model still meets what it learned: figures by period, and how far each feature has moved (R18)."""

from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from features.schema import Schema
from features.specs import DAY_MS
from models.evaluate import Labels, Probability, auc, intervals, psi

PSI_WATCH, PSI_SHIFT = 0.1, 0.25  # the usual marks
MONTHS = (3, 36)  # whose figures are shown month by month; else periods of equally many rows
PERIODS = 6


@dataclass(frozen=True)
class Period:
    """Rows of one period; interval: 95 % of the AUC, NaN where it has one class only."""

    name: str
    rows: int
    bad: int
    bad_rate: float
    predicted: float
    auc: float
    interval: tuple[float, float]


def periods(time_ms: NDArray[np.int64], labels: Labels, probability: Probability) -> list[Period]:
    """By calendar month (UTC) where there are 3 to 36 of them, else by equally many rows; in order of time."""
    order = np.argsort(time_ms, kind="stable")
    month = time_ms[order].astype("datetime64[ms]").astype("datetime64[M]")
    starts = np.flatnonzero(np.diff(month.astype(np.int64), prepend=-1) != 0)
    if MONTHS[0] <= len(starts) <= MONTHS[1]:
        parts = [(str(month[part[0]]), order[part]) for part in np.split(np.arange(len(order)), starts[1:])]
    else:
        parts = [(_span(time_ms[part]), part) for part in np.array_split(order, PERIODS) if len(part)]
    return [_period(name, labels[part], probability[part]) for name, part in parts]


def _span(time_ms: NDArray[np.int64]) -> str:
    """First and last day, of less than a day the minutes."""
    precise = int(time_ms[-1] - time_ms[0]) < DAY_MS
    first, last = (datetime.fromtimestamp(int(t) / 1000, UTC) for t in (time_ms[0], time_ms[-1]))
    return f"{first:%Y-%m-%d %H:%M} to {last:%H:%M}" if precise else f"{first:%Y-%m-%d} to {last:%Y-%m-%d}"


def _period(name: str, labels: Labels, probability: Probability) -> Period:
    bad = int(labels.sum())
    return Period(
        name, len(labels), bad, bad / len(labels), float(probability.mean()), auc(labels, probability),
        intervals(labels, probability)["auc"],
    )  # fmt: skip


def drift(
    schema: Schema, columns: NDArray[np.int64], learned: NDArray[np.float32], later: NDArray[np.float32]
) -> dict[str, float]:
    """PSI of each of `columns` from rows float32 [M, F] to rows float32 [N, F], the largest first."""
    found = {schema.feature_names[i]: psi(learned[:, i], later[:, i]) for i in columns}
    return dict(sorted(found.items(), key=lambda pair: -pair[1]))

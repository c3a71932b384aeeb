"""How good probabilities are: ranking (AUC, AUPRC, KS, recall), calibration (Brier, ECE), drift (PSI), by how much.

labels: int8 [N], 1 bad and 0 good; probability: float64 [N]. Where one class is absent a ranking is NaN. Intervals are
percentiles of the bootstrap (Efron 1979): rows are drawn again, which takes them for independent of each other.
Training and reports only.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

FALSE_ALARM_RATES = (0.01, 0.05)
ECE_BINS = 10
INTERVAL = (2.5, 97.5)  # percentiles of the resampled figures
PSI_BINS = 10
PSI_FLOOR = 1e-4  # share of an empty bin, so that its logarithm exists

Labels = NDArray[np.int8]
Probability = NDArray[np.float64]
Weights = NDArray[np.int64]


class Ranking:
    """Rows in order of probability, the riskiest first, so that rows drawn again need no sorting.

    Rows of equal probability stand or fall together: they are one threshold.
    """

    def __init__(self, labels: Labels, probability: Probability) -> None:
        self._order = np.argsort(-probability, kind="stable")
        self._bad = labels[self._order] == 1
        self._probability = probability[self._order]
        self._ends = np.flatnonzero(np.diff(self._probability, append=np.nan) != 0)
        self.thresholds = self._probability[self._ends]

    def caught(self, weights: Weights | None = None) -> tuple[Probability, Probability]:
        """float64 [k] each: share of bad and of good rows at or above each threshold; weights: int64 [N] of the rows.

        NaN without rows of the class.
        """
        weight = np.ones(len(self._order), dtype=np.int64) if weights is None else weights[self._order]
        above = np.cumsum(weight)[self._ends]
        bad = np.cumsum(np.where(self._bad, weight, 0))[self._ends]
        if not len(bad) or not 0 < bad[-1] < above[-1]:
            return np.full(len(bad), np.nan), np.full(len(bad), np.nan)
        return bad / bad[-1], (above - bad) / (above[-1] - bad[-1])

    def figures(self, weights: Weights | None = None) -> dict[str, float]:
        """All figures but the thresholds, by the names of `metrics`, of rows that count as often as `weights` say."""
        recall, alarms = self.caught(weights)
        weight = np.ones(len(self._order), dtype=np.int64) if weights is None else weights[self._order]
        area = _area(recall, alarms)
        figures = {"auc": area, "gini": 2 * area - 1}
        known = not math.isnan(area)
        good_per_bad = len(weight) and weight.sum() / max(weight[self._bad].sum(), 1) - 1
        precision = recall / np.maximum(recall + good_per_bad * alarms, 1e-12)
        figures["auprc"] = (
            float(recall[0] * precision[0] + (np.diff(recall) * precision[1:]).sum()) if known else math.nan
        )
        figures["ks"] = max(float(np.max(recall - alarms)), 0.0) if known else math.nan
        for rate in FALSE_ALARM_RATES:
            at = int(np.searchsorted(alarms, rate, side="right"))
            figures[f"recall_at_fpr_{rate}"] = (float(recall[at - 1]) if at else 0.0) if known else math.nan
        return figures | self._calibration(weight)

    def _calibration(self, weight: Weights) -> dict[str, float]:
        if not weight.any():
            return {"brier": math.nan, "ece": math.nan}
        brier = float((weight * (self._probability - self._bad) ** 2).sum() / weight.sum())
        gap = np.repeat(self._probability - level(self._probability, self._bad, weight), weight)
        bins = np.array_split(gap[::-1], ECE_BINS)  # the safest first
        return {"brier": brier, "ece": sum(abs(float(part.sum())) for part in bins) / len(gap)}


def level(probability: Probability, bad: NDArray[Any], weight: Weights) -> Probability:
    """float64 [N]: the bad rate of the rows of the same probability, which their order in a file must not tell apart.

    probability: [N] sorted; bad: bool or 0 and 1 [N]; weight: how often each row counts.
    """
    run = np.cumsum(np.diff(probability, prepend=np.nan) != 0) - 1
    rate = np.bincount(run, weights=bad * weight) / np.maximum(np.bincount(run, weights=weight), 1)
    return np.asarray(rate[run], dtype=np.float64)


def _area(recall: Probability, alarms: Probability) -> float:
    """Area under the ROC curve through the thresholds; NaN without one."""
    if not len(recall):
        return math.nan
    return (
        float((np.diff(alarms) * (recall[1:] + recall[:-1])).sum() + alarms[0] * recall[0]) / 2
    )  # no BLAS, no threads


def metrics(labels: Labels, probability: Probability) -> dict[str, float]:
    """All figures by name; `recall_at_fpr_0.01` comes with `threshold_at_fpr_0.01`, the probability that gives it."""
    figures = Ranking(labels, probability).figures()
    del figures["gini"]  # says what the AUC says
    thresholds = {f"threshold_at_fpr_{r}": recall_at_fpr(labels, probability, r)[1] for r in FALSE_ALARM_RATES}
    return {"rows": float(len(labels)), "bad": float(labels.sum())} | figures | thresholds


def auc(labels: Labels, probability: Probability) -> float:
    """Area under the ROC curve: how often a bad row ranks above a good one."""
    return _area(*Ranking(labels, probability).caught())


def ks(labels: Labels, probability: Probability) -> float:
    """Kolmogorov-Smirnov distance of the two classes' distributions, 0–1."""
    return Ranking(labels, probability).figures()["ks"]


def recall_at_fpr(labels: Labels, probability: Probability, rate: float) -> tuple[float, float]:
    """Share of bad rows caught where at most `rate` of good rows are stopped, and the threshold, ≤ 1, that does it."""
    ranking = Ranking(labels, probability)
    recall, alarms = ranking.caught()
    if not len(recall) or math.isnan(recall[0]):
        return math.nan, math.nan
    at = int(np.searchsorted(alarms, rate, side="right")) - 1
    return (float(recall[at]), min(float(ranking.thresholds[at]), 1.0)) if at >= 0 else (0.0, 1.0)


def intervals(
    labels: Labels, probability: Probability, seed: int = 0, resamples: int = 200
) -> dict[str, tuple[float, float]]:
    """95 % interval of each figure of `Ranking.figures`; NaN where every draw had one class only."""
    ranking = Ranking(labels, probability)
    drawn = [ranking.figures(w) for w in _draws(len(labels), np.random.default_rng(seed), resamples)]
    return {name: span(np.array([figures[name] for figures in drawn])) for name in ranking.figures()}


def span(drawn: Probability) -> tuple[float, float]:
    """The interval of resampled figures, float64 [resamples]; a draw of few bad rows may have none, and is left out."""
    known = drawn[~np.isnan(drawn)]
    if not len(known):
        return math.nan, math.nan
    low, high = np.percentile(known, INTERVAL)
    return float(low), float(high)


def paired_difference(
    labels: Labels, one: Probability, other: Probability, random: np.random.Generator, resamples: int = 200
) -> Probability:
    """float64 [resamples]: AUC by `one` less that by `other`, both of the same rows drawn again."""
    rankings = Ranking(labels, one), Ranking(labels, other)
    areas = ([_area(*r.caught(w)) for r in rankings] for w in _draws(len(labels), random, resamples))
    return np.array([mine - theirs for mine, theirs in areas])


def wilson(labels: NDArray[Any]) -> tuple[float, float]:
    """95 % interval of the bad rate of at least one row (Wilson 1927): within 0–1 even where no row is bad."""
    rows, rate, z = len(labels), float(labels.mean()), 1.96
    centre, half = rate + z * z / (2 * rows), z * math.sqrt(rate * (1 - rate) / rows + z * z / (4 * rows * rows))
    return max((centre - half) / (1 + z * z / rows), 0.0), min((centre + half) / (1 + z * z / rows), 1.0)


def _draws(rows: int, random: np.random.Generator, resamples: int) -> Iterator[Weights]:
    """int64 [rows] at a time: how often each row is drawn."""
    for _ in range(resamples):
        yield np.bincount(random.integers(0, max(rows, 1), rows), minlength=rows)


def psi_by_chance(expected: int, actual: int) -> float:
    """The PSI that so many rows of one and the same distribution have on average."""
    return PSI_BINS * (1 / max(expected, 1) + 1 / max(actual, 1))


def psi(expected: NDArray[np.floating], actual: NDArray[np.floating]) -> float:
    """Population stability index of two samples of a feature, [N] and [M], NaN where missing, itself a bin.

    Bins are the tenths of `expected`, or its values where these are few. Below 0.1 is stable, above 0.25 is a shift.
    """
    known = expected[~np.isnan(expected)]
    values = np.unique(known)
    cuts = values if len(values) <= PSI_BINS else np.unique(np.quantile(known, np.linspace(0, 1, PSI_BINS + 1)[1:-1]))

    def shares(sample: NDArray[np.floating]) -> NDArray[np.float64]:
        there = sample[~np.isnan(sample)]
        counts = np.bincount(np.searchsorted(cuts, there), minlength=len(cuts) + 1)
        return np.maximum(np.append(counts, len(sample) - len(there)) / max(len(sample), 1), PSI_FLOOR)

    before, after = shares(expected), shares(actual)
    return float(((after - before) * np.log(after / before)).sum())


@dataclass(frozen=True)
class Band:
    """Rows of neighbouring scores. caught, stopped: share of all bad and good rows in this band and the riskier."""

    low: float
    high: float
    rows: int
    bad: float
    bad_rate: float
    lift: float
    caught: float
    stopped: float

    @property
    def ks(self) -> float:
        """How far apart the classes are at the band's lower end."""
        return self.caught - self.stopped


def gains(labels: Labels, probability: Probability, bands: int = 10) -> list[Band]:
    """Bands of equally many rows, the riskiest first; of equal probability each row counts as bad as they are."""
    order = np.argsort(-probability, kind="stable")
    bad_all, good_all, done, caught = int(labels.sum()), int((labels == 0).sum()), 0, 0.0
    badness, found = level(probability[order], labels[order], np.ones(len(labels), dtype=np.int64)), []
    for part in (p for p in np.array_split(np.arange(len(order)), bands) if len(p)):
        bad, done = float(badness[part].sum()), done + len(part)
        caught += bad
        rate, scores = bad / len(part), probability[order[part]]
        found.append(
            Band(
                float(scores.min()), float(scores.max()), len(part), bad, rate,
                rate * len(labels) / bad_all if bad_all else math.nan,
                caught / bad_all if bad_all else math.nan, (done - caught) / good_all if good_all else math.nan,
            )
        )  # fmt: skip
    return found

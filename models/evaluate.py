"""How good probabilities are: ranking (AUC, AUPRC, KS, recall), calibration (Brier, ECE). Training and reports only.

labels: int8 [N], 1 bad and 0 good; probability: float64 [N]. Where one class is absent a ranking is NaN.
"""

import math

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

FALSE_ALARM_RATES = (0.01, 0.05)
ECE_BINS = 10
PSI_BINS = 10
PSI_FLOOR = 1e-4  # share of an empty bin, so that its logarithm exists

Labels = NDArray[np.int8]
Probability = NDArray[np.float64]


def metrics(labels: Labels, probability: Probability) -> dict[str, float]:
    """All figures by name; `recall_at_fpr_0.01` comes with `threshold_at_fpr_0.01`, the probability that gives it."""
    figures = {
        "rows": float(len(labels)), "bad": float(labels.sum()),
        "auc": auc(labels, probability), "auprc": auprc(labels, probability), "ks": ks(labels, probability),
        "brier": brier(labels, probability), "ece": ece(labels, probability),
    }  # fmt: skip
    for rate in FALSE_ALARM_RATES:
        recall, threshold = recall_at_fpr(labels, probability, rate)
        figures |= {f"recall_at_fpr_{rate}": recall, f"threshold_at_fpr_{rate}": threshold}
    return figures


def auc(labels: Labels, probability: Probability) -> float:
    """Area under the ROC curve: how often a bad row ranks above a good one."""
    return float(roc_auc_score(labels, probability)) if _both_classes(labels) else math.nan


def auprc(labels: Labels, probability: Probability) -> float:
    """Average precision, the figure to trust where bad rows are rare."""
    return float(average_precision_score(labels, probability)) if _both_classes(labels) else math.nan


def ks(labels: Labels, probability: Probability) -> float:
    """Kolmogorov-Smirnov distance of the two classes' distributions, 0–1."""
    if not _both_classes(labels):
        return math.nan
    false_alarms, recall, _ = roc_curve(labels, probability)
    return float(np.max(recall - false_alarms))


def recall_at_fpr(labels: Labels, probability: Probability, rate: float) -> tuple[float, float]:
    """Share of bad rows caught where at most `rate` of good rows are stopped, and the threshold, ≤ 1, that does it."""
    if not _both_classes(labels):
        return math.nan, math.nan
    false_alarms, recall, thresholds = roc_curve(labels, probability, drop_intermediate=False)
    at = int(np.searchsorted(false_alarms, rate, side="right")) - 1
    return float(recall[at]), float(min(thresholds[at], 1.0))  # infinite where nobody is stopped


def brier(labels: Labels, probability: Probability) -> float:
    """Mean squared error of the probability; NaN without rows."""
    return float(np.mean((probability - labels) ** 2)) if len(labels) else math.nan


def ece(labels: Labels, probability: Probability) -> float:
    """Expected calibration error over 10 bins of equally many rows: rare labels leave bins of equal width empty."""
    if not len(labels):
        return math.nan
    bins = [part for part in np.array_split(np.argsort(probability, kind="stable"), ECE_BINS) if len(part)]
    gaps = [len(part) * abs(float(probability[part].mean()) - float(labels[part].mean())) for part in bins]
    return sum(gaps) / len(labels)


def ranked(labels: Labels, scores: Probability) -> tuple[NDArray[np.int64], NDArray[np.bool_], NDArray[np.int64]]:
    """The order of the scores, which rows in it are bad, and where each run of equal scores starts."""
    order = np.argsort(scores, kind="stable")
    starts = np.flatnonzero(np.diff(scores[order], prepend=np.nan) != 0)
    return order, labels[order] == 1, starts


def weighted_auc(weight: NDArray[np.int64], bad: NDArray[np.bool_], starts: NDArray[np.int64]) -> float:
    """AUC of `ranked` rows that count `weight` times each; a half where one class is absent."""
    bad_here = np.add.reduceat(np.where(bad, weight, 0), starts)
    good_here = np.add.reduceat(np.where(bad, 0, weight), starts)
    below = np.cumsum(good_here) - good_here
    pairs = float(bad_here.sum()) * float(good_here.sum())
    return float((bad_here * (below + 0.5 * good_here)).sum()) / pairs if pairs else 0.5


def paired_differences(
    labels: Labels, first: Probability, second: Probability, resamples: int = 1000,
    seed: int | np.random.Generator = 0,
) -> NDArray[np.float64]:  # fmt: skip
    """float64 [resamples]: AUC of `first` less that of `second`, the same rows drawn again for both (bootstrap)."""
    random = np.random.default_rng(seed)
    sides = [ranked(labels, scores) for scores in (first, second)]
    found = np.empty(resamples)
    for i in range(resamples):
        drawn = np.bincount(random.integers(0, len(labels), len(labels)), minlength=len(labels))
        one, other = (weighted_auc(drawn[order], bad, starts) for order, bad, starts in sides)
        found[i] = one - other
    return found


def psi(expected: Probability, actual: Probability) -> float:
    """Population stability index of scores over ten bins, each a tenth of `expected`; 0 where nothing moved.

    Below 0.1 is stable, above 0.25 is a shift.
    """
    edges = np.unique(np.quantile(expected, np.linspace(0, 1, PSI_BINS + 1)[1:-1]))
    shares = []
    for scores in (expected, actual):
        rows = np.bincount(np.searchsorted(edges, scores, side="right"), minlength=len(edges) + 1)
        shares.append(np.maximum(rows / len(scores), PSI_FLOOR))
    return float(np.sum((shares[1] - shares[0]) * np.log(shares[1] / shares[0])))


def _both_classes(labels: Labels) -> bool:
    return 0 < int(labels.sum()) < len(labels)

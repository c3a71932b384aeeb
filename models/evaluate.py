"""How good probabilities are: ranking (AUC, AUPRC, KS, recall), calibration (Brier, ECE). Training and reports only.

labels: int8 [N], 1 bad and 0 good; probability: float64 [N]. Where one class is absent a ranking is NaN.
"""

import math

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

FALSE_ALARM_RATES = (0.01, 0.05)
ECE_BINS = 10

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


def _both_classes(labels: Labels) -> bool:
    return 0 < int(labels.sum()) < len(labels)

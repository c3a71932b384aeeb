"""Figures against cases done by hand and against counting every threshold."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score

from models import evaluate

Case = tuple[NDArray[np.int8], NDArray[np.float64]]


def random_case(seed: int, digits: int) -> Case:
    """400 rows; few digits leave many probabilities tied."""
    random = np.random.default_rng(seed)
    labels = (random.random(400) < 0.2).astype(np.int8)
    return labels, np.round(0.9 / (1 + np.exp(-random.normal(labels, 1.0))), digits)


def case(labels: list[int], probability: list[float]) -> Case:
    return np.array(labels, dtype=np.int8), np.array(probability)


def rates(labels: NDArray[np.int8], probability: NDArray[np.float64]) -> list[tuple[float, float, float]]:
    """(threshold, recall, share of good rows stopped) where rows at or above each threshold are stopped."""
    thresholds = [math.inf, *np.unique(probability)]
    return [
        (t, float((probability[labels == 1] >= t).mean()), float((probability[labels == 0] >= t).mean()))
        for t in thresholds
    ]


def test_ks_by_hand() -> None:
    assert evaluate.ks(*case([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8])) == pytest.approx(0.5)
    assert evaluate.ks(*case([0, 0, 1, 1], [0.1, 0.2, 0.3, 0.4])) == 1
    assert evaluate.ks(*case([1, 1, 0, 0], [0.1, 0.2, 0.3, 0.4])) == 0  # the wrong way round is no distance
    assert evaluate.ks(*case([0, 1, 0, 1], [0.3, 0.3, 0.3, 0.3])) == 0


@pytest.mark.parametrize("digits", [1, 2, 9])
@pytest.mark.parametrize("seed", range(3))
def test_ks_and_recall_count_every_threshold(seed: int, digits: int) -> None:
    labels, probability = random_case(seed, digits)
    every = rates(labels, probability)
    assert evaluate.ks(labels, probability) == pytest.approx(max(recall - stopped for _, recall, stopped in every))
    for rate in (0.0, 0.01, 0.05, 0.5, 1.0):
        recall, threshold = evaluate.recall_at_fpr(labels, probability, rate)
        assert recall == pytest.approx(max(caught for _, caught, stopped in every if stopped <= rate))
        assert (probability[labels == 1] >= threshold).mean() == pytest.approx(recall)
        assert (probability[labels == 0] >= threshold).mean() <= rate


def test_recall_where_nobody_may_be_stopped() -> None:
    assert evaluate.recall_at_fpr(*case([1, 0], [0.5, 0.9]), 0.01) == (0, 1)
    assert evaluate.recall_at_fpr(*case([1, 1, 0, 0], [0.9, 0.4, 0.5, 0.1]), 0.01) == (0.5, 0.9)
    assert evaluate.recall_at_fpr(*case([1, 1, 0, 0], [0.9, 0.4, 0.5, 0.1]), 0.5) == (1, 0.4)


def test_ece_by_hand() -> None:
    assert evaluate.ece(*case([0] * 20, [0.25] * 20)) == pytest.approx(0.25)
    assert evaluate.ece(*case([0, 1] * 10, [0.5] * 20)) == 0
    # ten bins of one row: the mean distance of probability and label
    assert evaluate.ece(*case([0] * 5 + [1] * 5, [i / 10 for i in range(10)])) == pytest.approx(
        np.mean([0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.4, 0.3, 0.2, 0.1])
    )
    # two rows a bin: within a bin errors cancel, between bins they add up
    pairs = [p for i in range(10) for p in (i / 10, i / 10 + 0.02)]
    assert evaluate.ece(*case([0, 1] * 10, pairs)) == pytest.approx(
        np.mean([abs(i / 10 + 0.01 - 0.5) for i in range(10)])
    )
    assert evaluate.ece(*case([0, 1], [0.2, 0.6])) == pytest.approx(0.3)  # fewer rows than bins


def test_figures_agree_with_scikit_learn_and_stand_under_their_names() -> None:
    labels, probability = random_case(7, 9)
    figures = evaluate.metrics(labels, probability)
    assert (figures["rows"], figures["bad"]) == (400, labels.sum())
    assert figures["auc"] == pytest.approx(roc_auc_score(labels, probability))
    assert figures["auprc"] == pytest.approx(average_precision_score(labels, probability))
    assert figures["brier"] == pytest.approx(brier_score_loss(labels, probability))
    for rate in evaluate.FALSE_ALARM_RATES:
        named = figures[f"recall_at_fpr_{rate}"], figures[f"threshold_at_fpr_{rate}"]
        assert named == evaluate.recall_at_fpr(labels, probability, rate)


@pytest.mark.parametrize("label", [0, 1])
def test_one_class_has_no_ranking(label: int) -> None:
    labels, probability = case([label] * 4, [0.1, 0.2, 0.3, 0.4])
    figures = evaluate.metrics(labels, probability)
    rankings = {name for name in figures if name.startswith(("auc", "auprc", "ks", "recall", "threshold"))}
    assert {name for name, figure in figures.items() if math.isnan(figure)} == rankings and len(rankings) == 7
    assert figures["brier"] == pytest.approx(np.mean((probability - label) ** 2))


def test_no_rows_no_figures() -> None:
    figures = evaluate.metrics(*case([], []))
    assert figures.pop("rows") == 0 and figures.pop("bad") == 0
    assert all(math.isnan(figure) for figure in figures.values())


@pytest.mark.parametrize("digits", [1, 9])
def test_paired_differences_are_of_rows_drawn_again(digits: int) -> None:
    labels, one = random_case(0, digits)
    _, other = random_case(1, digits)
    found = evaluate.paired_differences(labels, one, other, resamples=20, seed=3)
    random = np.random.default_rng(3)
    for difference in found:
        drawn = random.integers(0, 400, 400)
        expected = roc_auc_score(labels[drawn], one[drawn]) - roc_auc_score(labels[drawn], other[drawn])
        assert difference == pytest.approx(expected)
    assert not evaluate.paired_differences(labels, one, one, resamples=20).any()


def test_psi_by_hand() -> None:
    expected = np.arange(100) / 100
    assert evaluate.psi(expected, expected) == 0
    actual = np.concatenate([expected[10:], np.full(10, 0.15)])  # the first tenth moves to the second
    assert evaluate.psi(expected, actual) == pytest.approx(0.1 * math.log(2) + (1e-4 - 0.1) * math.log(1e-4 / 0.1))
    assert evaluate.psi(np.full(9, 0.5), np.full(5, 0.5)) == 0

"""Figures against cases done by hand and against counting every threshold."""

import math
from itertools import pairwise

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


def ece(labels: NDArray[np.int8], probability: NDArray[np.float64]) -> float:
    return evaluate.metrics(labels, probability)["ece"]


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
    assert ece(*case([0] * 20, [0.25] * 20)) == pytest.approx(0.25)
    assert ece(*case([0, 1] * 10, [0.5] * 20)) == 0
    # ten bins of one row: the mean distance of probability and label
    assert ece(*case([0] * 5 + [1] * 5, [i / 10 for i in range(10)])) == pytest.approx(
        np.mean([0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.4, 0.3, 0.2, 0.1])
    )
    # two rows a bin: within a bin errors cancel, between bins they add up
    pairs = [p for i in range(10) for p in (i / 10, i / 10 + 0.02)]
    assert ece(*case([0, 1] * 10, pairs)) == pytest.approx(np.mean([abs(i / 10 + 0.01 - 0.5) for i in range(10)]))
    assert ece(*case([0, 1], [0.2, 0.6])) == pytest.approx(0.3)  # fewer rows than bins


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
def test_a_row_drawn_twice_counts_as_two_rows(digits: int) -> None:
    labels, probability = random_case(3, digits)
    drawn = np.random.default_rng(0).integers(0, 4, len(labels))
    counted = evaluate.Ranking(labels, probability).figures(drawn)
    repeated = evaluate.Ranking(np.repeat(labels, drawn), np.repeat(probability, drawn)).figures()
    assert counted == pytest.approx(repeated)
    assert counted["ece"] == pytest.approx(repeated["ece"])
    assert counted["gini"] == pytest.approx(2 * counted["auc"] - 1)


def test_intervals_cover_the_truth() -> None:
    """Of 60 samples whose AUC is known, about 95 % of the intervals hold it; fewer than 50 has odds below 1 in 1000."""
    truth, covered = 0.7602, 0  # of normals one standard deviation apart: Φ(1/√2)
    for seed in range(60):
        random = np.random.default_rng(seed)
        labels = (random.random(500) < 0.3).astype(np.int8)
        low, high = evaluate.intervals(labels, random.normal(labels, 1.0))["auc"]
        covered += low <= truth <= high
    assert 50 <= covered < 60


def test_intervals_repeat_and_hold_the_figure() -> None:
    labels, probability = random_case(1, 9)
    figures, spans = evaluate.Ranking(labels, probability).figures(), evaluate.intervals(labels, probability)
    assert spans == evaluate.intervals(labels, probability) and set(spans) == set(figures)
    assert all(spans[name][0] <= figures[name] <= spans[name][1] for name in figures)


def test_paired_difference_sees_what_single_intervals_hide() -> None:
    """The rows are the same for both, so a small and certain gain is certain."""
    labels, probability = random_case(2, 9)
    better = probability + 0.02 * labels
    gains = evaluate.paired_difference(labels, better, probability, np.random.default_rng(0))
    assert len(gains) == 200 and (gains > 0).all()
    assert gains.mean() == pytest.approx(evaluate.auc(labels, better) - evaluate.auc(labels, probability), abs=0.005)
    assert not evaluate.paired_difference(labels, better, better, np.random.default_rng(0)).any()


def test_psi_by_hand() -> None:
    before = np.array([0.0] * 50 + [1.0] * 50)
    after = np.array([0.0] * 20 + [1.0] * 80)
    assert evaluate.psi(before, before) == 0
    assert evaluate.psi(before, after) == pytest.approx(0.3 * math.log(0.8 / 0.5) - 0.3 * math.log(0.2 / 0.5))
    gone = np.where(np.arange(100) < 50, np.nan, 1.0)  # missing is a value of its own
    assert evaluate.psi(before, gone) == pytest.approx(2 * 0.4999 * math.log(0.5 / 1e-4), rel=1e-3)
    random = np.random.default_rng(0)
    assert evaluate.psi(random.normal(0, 1, 20_000), random.normal(0, 1, 20_000)) < 0.002
    moved = evaluate.psi(random.normal(0, 1, 20_000), random.normal(0.5, 1, 20_000))
    assert moved == pytest.approx(0.25, abs=0.03)  # of two normals in full: the square of their distance


def test_gains_add_up() -> None:
    labels, probability = random_case(4, 2)
    bands = evaluate.gains(labels, probability)
    assert (sum(b.rows for b in bands), sum(b.bad for b in bands)) == (400, labels.sum())
    assert (bands[-1].caught, bands[-1].stopped, bands[-1].ks) == (1, 1, 0)
    assert all(riskier.low >= safer.high for riskier, safer in pairwise(bands))
    assert np.mean([b.lift for b in bands]) == pytest.approx(1)
    top = np.sort(probability)[-40:]
    assert (bands[0].low, bands[0].high, bands[0].rows) == (top.min(), top.max(), 40)
    assert 0 < max(b.ks for b in bands) <= evaluate.ks(labels, probability) + 0.02


def test_wilson_interval() -> None:
    assert evaluate.wilson(np.zeros(10, np.int8)) == pytest.approx((0, 0.2775), abs=1e-4)
    assert evaluate.wilson(np.array([1] * 5 + [0] * 5, np.int8)) == pytest.approx((0.2366, 0.7634), abs=1e-4)


def test_rows_of_one_probability_are_told_apart_by_nothing() -> None:
    """A constant that is right on average is calibrated, however the rows are sorted; its bands are all alike."""
    labels = np.repeat(np.array([1, 0], dtype=np.int8), [10, 90])
    for ordered in (labels, labels[::-1]):
        assert evaluate.metrics(ordered, np.full(100, 0.1))["ece"] == pytest.approx(0, abs=1e-12)
        bands = evaluate.gains(ordered, np.full(100, 0.1))
        assert [band.bad for band in bands] == pytest.approx([1.0] * 10)
        assert [band.ks for band in bands] == pytest.approx([0.0] * 10)


def test_intervals_of_few_bad_rows_leave_out_draws_without_any() -> None:
    labels = np.repeat(np.array([1, 0], dtype=np.int8), [3, 197])
    low, high = evaluate.intervals(labels, np.random.default_rng(0).random(200))["auc"]
    assert 0 <= low < high <= 1


def test_psi_by_chance_is_what_equal_samples_show() -> None:
    random = np.random.default_rng(0)
    shown = np.mean([evaluate.psi(random.normal(size=240), random.normal(size=60)) for _ in range(200)])
    assert shown == pytest.approx(evaluate.psi_by_chance(240, 60), rel=0.35)

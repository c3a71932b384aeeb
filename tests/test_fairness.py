"""Group figures counted by hand, and what is too small to judge."""

import math
from typing import Any

import numpy as np
import pytest

from features.schema import Schema
from models import fairness

DOCUMENT: dict[str, Any] = {
    "name": "small", "version": 1, "labels": {"default": {}},
    "features": [{"name": "age"}, {"name": "sex", "type": "category", "values": ["F", "M"], "audit": True}],
    "fairness": {"age": [25, 40], "sex": []},
}  # fmt: skip
SMALL = Schema(DOCUMENT, "small.yaml")


def test_figures_of_two_groups_by_hand() -> None:
    """100 women, 20 of them bad, and 200 men, 20 bad; the cut-off is 0.5."""
    sex = np.repeat([0.0, 1.0], [100, 200])
    labels = np.concatenate([np.repeat([1, 0], [20, 80]), np.repeat([1, 0], [20, 180])]).astype(np.int8)
    probability = np.concatenate(
        [np.repeat([0.8, 0.2, 0.6, 0.1], [15, 5, 25, 55]), np.repeat([0.9, 0.4, 0.5, 0.3], [10, 10, 20, 160])]
    )
    features = np.column_stack([np.full(300, 30.0), sex]).astype(np.float32)
    groups = fairness.compare(SMALL, features, labels, probability, 0.5)
    women, men = groups["sex"]
    assert (women.name, women.rows, women.bad, men.name, men.rows, men.bad) == ("F", 100, 20, "M", 200, 20)
    assert (women.approval_rate, men.approval_rate) == (0.6, 0.85)
    assert (women.approval_ratio, men.approval_ratio) == (0.6 / 0.85, 1)  # of the men, who are more
    assert women.marked and not men.marked
    assert (women.false_decline_rate, men.false_decline_rate) == (25 / 80, 20 / 180)
    assert (women.missed_bad_rate, men.missed_bad_rate) == (5 / 20, 10 / 20)
    assert (women.bad_rate, men.bad_rate) == (0.2, 0.1)
    assert women.predicted == pytest.approx((15 * 0.8 + 5 * 0.2 + 25 * 0.6 + 55 * 0.1) / 100)
    assert women.auc == pytest.approx((15 * 80 + 5 * 55) / (20 * 80))
    (everyone,) = groups["age"]
    assert (everyone.name, everyone.rows, everyone.approval_ratio) == ("25 to under 40", 300, 1)


def test_bands_missing_values_and_small_groups() -> None:
    age = np.repeat([24.9, 25.0, 39.9, 40.0, np.nan], [200, 100, 100, 99, 150])
    labels = np.tile([1, 0, 0, 0], 163)[:649].astype(np.int8)
    features = np.column_stack([age, np.zeros(649)]).astype(np.float32)
    found = fairness.compare(SMALL, features, labels, np.full(649, 0.1), 0.5)["age"]
    assert [(g.name, g.rows, g.too_small) for g in found] == [
        ("under 25", 200, False), ("25 to under 40", 200, False), ("40 and over", 99, True), ("missing", 150, False),
    ]  # fmt: skip
    small = found[2]
    assert math.isnan(small.approval_rate) and math.isnan(small.approval_ratio) and not small.marked
    labels[:] = 0
    labels[:9] = 1
    assert all(g.too_small for g in fairness.compare(SMALL, features, labels, np.full(649, 0.1), 0.5)["age"])


def test_cut_off_stops_a_twentieth_of_the_good() -> None:
    random = np.random.default_rng(0)
    labels = (random.random(4000) < 0.2).astype(np.int8)
    probability = random.random(4000)
    stopped = probability[labels == 0] >= fairness.cut_off(labels, probability)
    assert 0.048 < stopped.mean() <= 0.05

"""Periods by the calendar or by rows, and the features that moved."""

import numpy as np
import pytest

from features.schema import Schema
from features.specs import DAY_MS
from models import stability
from models.evaluate import auc

JANUARY_MS = 1_735_689_600_000  # 2025-01-01 UTC


def test_months_and_their_figures() -> None:
    random = np.random.default_rng(0)
    days = random.integers(0, 120, 3000)  # January to April
    labels = (random.random(3000) < np.where(days < 59, 0.1, 0.3)).astype(np.int8)
    probability = 0.1 + 0.4 * labels * random.random(3000)
    found = stability.periods(JANUARY_MS + days * DAY_MS, labels, probability)
    assert [p.name for p in found] == ["2025-01", "2025-02", "2025-03", "2025-04"]
    january = days < 31
    assert (found[0].rows, found[0].bad) == (january.sum(), labels[january].sum())
    assert found[0].bad_rate == labels[january].mean() and found[0].predicted == probability[january].mean()
    assert found[0].auc == pytest.approx(auc(labels[january], probability[january]))
    assert found[0].interval[0] <= found[0].auc <= found[0].interval[1]
    assert found[3].bad_rate > 2 * found[0].bad_rate


def test_less_than_three_months_is_cut_by_rows() -> None:
    labels = np.tile([0, 1], 300).astype(np.int8)
    days = stability.periods(JANUARY_MS + np.arange(600) * DAY_MS // 15, labels, np.full(600, 0.5))
    assert [p.rows for p in days] == [100] * 6
    assert days[0].name == "2025-01-01 to 2025-01-07"
    hours = stability.periods(JANUARY_MS + np.arange(600) * 60_000, labels, np.full(600, 0.5))
    assert len({p.name for p in hours}) == 6 and hours[0].name == "2025-01-01 00:00 to 01:39"


def test_drift_finds_the_feature_that_moved(consumer: Schema) -> None:
    random = np.random.default_rng(1)
    learned = random.normal(size=(4000, len(consumer.features))).astype(np.float32)
    later = random.normal(size=(2000, len(consumer.features))).astype(np.float32)
    later[:, consumer.column["declared_income"]] += 1
    found = stability.drift(consumer, consumer.columns("default"), learned, later)
    first, second = list(found.items())[:2]
    assert first[0] == "declared_income" and first[1] > stability.PSI_SHIFT and second[1] < stability.PSI_WATCH
    assert set(found) == {consumer.feature_names[i] for i in consumer.columns("default")}

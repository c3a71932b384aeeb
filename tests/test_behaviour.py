"""A model that breaks a declared direction is caught; influences follow the contributions."""

import numpy as np
import pytest

from features.schema import Schema
from models import behaviour, trees
from models.bundle import Bundle, LabelModel
from models.calibrate import IDENTITY
from models.encode import Encoding
from models.probe import random_snapshot
from models.scorer import LabelScorer
from models.shap import Forest
from tests.snapshots import trained_bundle


def stump(schema: Schema, name: str, below: float, above: float) -> LabelScorer:
    """A scorer for default of one tree with one split: `name` under 2 adds `below` to the log-odds, else `above`."""
    columns = schema.columns("default")
    at = int(np.searchsorted(columns, schema.column[name]))

    def ints(*values: int) -> np.ndarray:
        return np.array(values, dtype=np.int32)

    forest = Forest(
        ints(0), ints(1, -1, -1), ints(2, -1, -1), ints(at, 0, 0), np.array([2, 0, 0], np.float32),
        np.zeros(3, np.bool_), np.array([0, below, above], np.float32), np.array([4, 2, 2], np.float32), 0.0,
    )  # fmt: skip
    onnx = trees.to_onnx(forest, len(columns))
    return LabelScorer(LabelModel(onnx, forest, Encoding(len(columns)), None, IDENTITY), columns)


@pytest.mark.parametrize(("below", "above", "broken"), [(1.0, -1.0, True), (-1.0, 1.0, False)])
def test_a_step_against_the_declared_direction_is_counted(
    consumer: Schema, below: float, above: float, broken: bool
) -> None:
    rows = random_snapshot(consumer, 300, 0)
    scorer = stump(consumer, "bureau_overdue_24m", below, above)
    found = {s.name: s for s in behaviour.sweeps(consumer, "default", scorer, rows, rows.features)}
    bound = {f.name for f in consumer.features if f.monotone.get("default")}
    assert set(found) == bound and all(s.pairs > 0 for s in found.values())
    moved = found.pop("bureau_overdue_24m")
    assert moved.direction == 1
    assert moved.violations == (100 if broken else 0)  # each row crosses the split once
    assert moved.worst == pytest.approx(1 / (1 + np.exp(-1)) - 1 / (1 + np.exp(1)) if broken else 0, abs=1e-6)
    assert not any(s.violations for s in found.values())


def test_a_trained_bundle_keeps_its_directions(consumer: Schema, tmp_path_factory: pytest.TempPathFactory) -> None:
    bundle = Bundle.load(trained_bundle(consumer, tmp_path_factory), consumer)
    scorer = LabelScorer(bundle.models["default"], consumer.columns("default"))
    rows = random_snapshot(consumer, 200, 3)
    assert not any(s.violations for s in behaviour.sweeps(consumer, "default", scorer, rows, rows.features))


def test_influence_names_the_feature_its_size_and_its_way(consumer: Schema) -> None:
    rows = random_snapshot(consumer, 2500, 1)  # more than are explained
    found = behaviour.influences(consumer, consumer.columns("default"), stump(consumer, "courts_cases", -1, 1), rows)
    assert (found[0].name, found[0].trend) == ("courts_cases", 1)
    assert found[0].mean_log_odds == pytest.approx(1)
    assert all(i.mean_log_odds == 0 and i.trend == 0 for i in found[1:])
    (safer, *_) = behaviour.influences(
        consumer, consumer.columns("default"), stump(consumer, "social_months", 1, -1), rows
    )
    assert (safer.name, safer.trend) == ("social_months", -1)

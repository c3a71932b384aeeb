import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from features.application import Snapshot
from features.schema import Schema
from models.bundle import Bundle
from models.reasons import Explainer
from models.scorer import Scorer
from tests.snapshots import random_snapshot, trained_bundle

ROWS = 200


@pytest.fixture(scope="module")
def bundle(consumer: Schema, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return Bundle.load(trained_bundle(consumer, tmp_path_factory), consumer)


@pytest.fixture(scope="module")
def scorer(bundle: Bundle) -> Scorer:
    return Scorer(bundle)


def everything(scorer: Scorer) -> Callable[[Snapshot], np.ndarray]:
    """All that a scorer says of a snapshot, float64 [B, 2 + contributions]."""

    def of(snapshot: Snapshot) -> np.ndarray:
        scores = scorer.score(snapshot)
        probabilities = np.column_stack([scores.fraud_probability, scores.default_probability])
        return np.hstack([probabilities, scorer.explain("fraud", snapshot), scorer.explain("default", snapshot)])

    return of


@pytest.mark.parametrize("size", [1, 2, 3, 7, 8, 31, 32, 64])
def test_a_row_scores_the_same_in_every_batch(consumer: Schema, scorer: Scorer, size: int) -> None:
    """Bit for bit, alone or in any company: outcomes, amounts and reasons follow."""
    snapshot, answers = random_snapshot(consumer, ROWS, 3), everything(scorer)
    together = answers(snapshot)
    order = np.random.default_rng(size).permutation(ROWS)
    for start in range(0, ROWS, size):
        rows = order[start : start + size]
        np.testing.assert_array_equal(answers(snapshot.take(rows)), together[rows])


def test_probabilities_use_both_models(bundle: Bundle, scorer: Scorer, consumer: Schema) -> None:
    assert bundle.manifest["labels"]["fraud"]["gnn"] == "kept"
    assert bundle.models["default"].gnn_onnx is None
    snapshot = random_snapshot(consumer, ROWS, 4)
    scores = scorer.score(snapshot)
    assert ((scores.fraud_probability > 0) & (scores.fraud_probability < 1)).all()
    alone = Snapshot(
        snapshot.features, snapshot.entity_state, 0 * snapshot.neighbor_state,
        snapshot.neighbor_mask & False, snapshot.source_state,
    )  # fmt: skip
    without = scorer.score(alone)
    assert (without.fraud_probability != scores.fraud_probability).any()
    np.testing.assert_array_equal(without.default_probability, scores.default_probability)


def test_contributions_and_bias_sum_to_the_log_odds(bundle: Bundle, scorer: Scorer, consumer: Schema) -> None:
    """Of a label that the trees score alone."""
    snapshot = random_snapshot(consumer, ROWS, 5)
    model = bundle.models["default"]
    bias = Explainer(model.forest, len(consumer.columns("default"))).bias
    log_odds = scorer.explain("default", snapshot).sum(axis=1)
    log_odds += model.calibration.weights[0] * bias + model.calibration.intercept
    expected = 1 / (1 + np.exp(-log_odds))
    np.testing.assert_allclose(scorer.score(snapshot).default_probability, expected, atol=1e-6)


def test_a_label_without_a_model_is_unknown(consumer: Schema, bundle: Bundle) -> None:
    only_default = Bundle(consumer, "", {}, {"default": bundle.models["default"]})
    scores = Scorer(only_default).score(random_snapshot(consumer, 3, 6))
    assert np.isnan(scores.fraud_probability).all()
    assert np.isfinite(scores.default_probability).all()


def test_no_rows_no_scores(consumer: Schema, scorer: Scorer) -> None:
    empty = random_snapshot(consumer, 1, 0).take(slice(0, 0))
    assert len(scorer.score(empty).fraud_probability) == 0
    assert scorer.explain("fraud", empty).shape == (0, len(consumer.columns("fraud")))


SERVE = """
import sys
from pathlib import Path
from features.schema import load
from models.bundle import Bundle
from models.scorer import Scorer
from tests.snapshots import random_snapshot
schema = load("features/schemas/consumer.yaml")
scorer = Scorer(Bundle.load(Path(sys.argv[1]), schema))
snapshot = random_snapshot(schema, 2, 0)
scorer.score(snapshot), scorer.explain("fraud", snapshot)
heavy = {"torch", "onnx", "onnxscript", "onnxmltools", "xgboost", "sklearn", "lightgbm"}
print(*sorted(heavy & set(sys.modules)))
"""


def test_serving_loads_no_training_library(consumer: Schema, tmp_path_factory: pytest.TempPathFactory) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SERVE, str(trained_bundle(consumer, tmp_path_factory))],
        capture_output=True, text=True, check=False, cwd=Path(__file__).parent.parent,
    )  # fmt: skip
    assert (done.stdout.split(), done.stderr, done.returncode) == ([], "", 0)

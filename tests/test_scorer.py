import copy
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from bench.gpu_trees import demo_bundles
from features.application import Snapshot
from features.schema import Schema
from models.bundle import Bundle, BundleError
from models.probe import probe, random_snapshot
from models.scorer import Scorer
from models.shap import Explainer
from tests.snapshots import random_rows, trained_bundle

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


@pytest.mark.parametrize("shipped", demo_bundles(), ids=lambda bundle: bundle.schema.name)
def test_shipped_networks_answer_the_same_in_every_batch(shipped: Bundle) -> None:
    """The schemas have 12, 13 and 14 slots: where a row begins in memory changes no bit either."""
    snapshot, scorer = random_snapshot(shipped.schema, 90, 7), Scorer(shipped)
    together = scorer.score(snapshot)
    for size in (1, 2, 3, 7, 45):
        for start in range(0, 90, size):
            rows = np.arange(start, min(start + size, 90))
            alone = scorer.score(snapshot.take(rows))
            np.testing.assert_array_equal(alone.fraud_probability, together.fraud_probability[rows])
            np.testing.assert_array_equal(alone.default_probability, together.default_probability[rows])


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


def test_reasons_share_out_all_of_the_log_odds(bundle: Bundle, scorer: Scorer, consumer: Schema) -> None:
    """Contributions of features, the graph network's, and what does not depend on the row: its bias and its mean."""
    snapshot, model = random_snapshot(consumer, ROWS, 5), bundle.models["fraud"]
    bias = Explainer(model.forest, len(consumer.columns("fraud"))).bias
    trees_weight, gnn_weight = model.calibration.weights
    assert model.gnn_onnx is not None and model.calibration.gnn_mean is not None
    session = onnxruntime.InferenceSession(model.gnn_onnx, providers=["CPUExecutionProvider"])
    (logit,) = session.run(None, {i.name: getattr(snapshot, i.name) for i in session.get_inputs()})
    graph = gnn_weight * (logit - model.calibration.gnn_mean)
    log_odds = scorer.explain("fraud", snapshot).sum(axis=1) + graph
    log_odds += model.calibration.intercept + trees_weight * bias + gnn_weight * model.calibration.gnn_mean
    np.testing.assert_allclose(scorer.score(snapshot).fraud_probability, 1 / (1 + np.exp(-log_odds)), atol=1e-6)
    for row, reasons in enumerate(scorer.reasons("fraud", snapshot, scorer.score(snapshot), top=1000)):
        said = [r.contribution for r in reasons if r.code == "GRAPH_PATTERN"]
        assert said == ([pytest.approx(graph[row], abs=1e-5)] if graph[row] > 0 else [])
        assert [r.contribution for r in reasons] == sorted((r.contribution for r in reasons), reverse=True)
        assert all(r.contribution > 0 and r.evidence.startswith("fraud") for r in reasons)


def test_the_graph_network_counts_from_its_mean(bundle: Bundle, consumer: Schema) -> None:
    """Over the rows it was fitted on, it adds nothing."""
    rows, window = random_rows(consumer, 2000, 0), bundle.manifest["training"]
    fitted = (rows.event_time_ms < window["fit_until_ms"]) & (rows.labels["fraud"] >= 0)
    model = bundle.models["fraud"]
    assert model.gnn_onnx is not None and model.calibration.gnn_mean is not None
    session = onnxruntime.InferenceSession(model.gnn_onnx, providers=["CPUExecutionProvider"])
    snapshot = rows.snapshot.take(np.flatnonzero(fitted))
    (logit,) = session.run(None, {i.name: getattr(snapshot, i.name) for i in session.get_inputs()})
    assert logit.astype(np.float64).mean() == pytest.approx(model.calibration.gnn_mean, abs=1e-5)


@pytest.mark.parametrize("size", [1, 2, 7])
def test_a_row_has_the_same_reasons_in_every_batch(consumer: Schema, scorer: Scorer, size: int) -> None:
    snapshot = random_snapshot(consumer, 60, 3)
    together = scorer.reasons("fraud", snapshot, scorer.score(snapshot))
    assert {len(reasons) for reasons in together} == {4}
    assert any(r.code == "GRAPH_PATTERN" for reasons in together for r in reasons)
    parts = [snapshot.take(slice(i, i + size)) for i in range(0, 60, size)]
    apart = [scorer.reasons("fraud", part, scorer.score(part)) for part in parts]
    assert [reasons for part in apart for reasons in part] == together


def test_no_graph_network_no_reason_of_it(bundle: Bundle, scorer: Scorer, consumer: Schema) -> None:
    """Nor where its mean is not known: from zero, it would say nothing true."""
    snapshot = random_snapshot(consumer, 60, 3)
    fraud = bundle.models["fraud"]
    meanless = replace(fraud, calibration=replace(fraud.calibration, gnn_mean=None))
    without, scores = Scorer(replace(bundle, models={"fraud": meanless})), scorer.score(snapshot)
    for some, label in ((without, "fraud"), (scorer, "default")):
        found = some.reasons(label, snapshot, scores, top=1000)
        assert all(r.code != "GRAPH_PATTERN" for reasons in found for r in reasons)


def test_a_label_without_a_model_is_unknown(consumer: Schema, bundle: Bundle) -> None:
    only_default = replace(bundle, models={"default": bundle.models["default"]})
    scores = Scorer(only_default).score(random_snapshot(consumer, 3, 6))
    assert np.isnan(scores.fraud_probability).all()
    assert np.isfinite(scores.default_probability).all()


def test_a_runtime_that_scores_otherwise_refuses(bundle: Bundle) -> None:
    """Within 1e-5 machines may differ, not beyond."""
    for label in bundle.models:
        for change, refused in ((5e-6, False), (2e-5, True), (-2e-5, True)):
            manifest = copy.deepcopy(dict(bundle.manifest))
            manifest["labels"][label]["probe"][3] += change
            changed = replace(bundle, manifest=manifest)
            if not refused:
                Scorer(changed)
                continue
            with pytest.raises(BundleError, match=f"{bundle.version}: {label}: the probe differs by 2e-05"):
                Scorer(changed)


def test_a_model_that_cannot_run_refuses(bundle: Bundle) -> None:
    default, network = bundle.models["default"], bundle.models["fraud"].gnn_onnx
    assert network is not None
    for broken in (b"", b"no model", network[:1000], network, bundle.models["fraud"].trees_onnx):
        with pytest.raises(BundleError, match="default: cannot be scored here"):
            Scorer(replace(bundle, models={"default": replace(default, trees_onnx=broken)}))


def test_made_up_rows_are_the_same_everywhere(consumer: Schema) -> None:
    """A bundle is written on one machine and probed on another, with another NumPy perhaps."""
    drawn = probe(consumer)
    assert drawn.features[0, 1:4].tolist() == pytest.approx([0.0414750502, 2.03216505, 333.261932], rel=1e-6)
    assert np.isnan(drawn.features).any() and drawn.neighbor_mask.any() and not drawn.neighbor_mask.all()


def test_no_rows_no_scores(consumer: Schema, scorer: Scorer) -> None:
    empty = random_snapshot(consumer, 1, 0).take(slice(0, 0))
    assert len(scorer.score(empty).fraud_probability) == 0
    assert scorer.explain("fraud", empty).shape == (0, len(consumer.columns("fraud")))
    assert scorer.reasons("fraud", empty, scorer.score(empty)) == []


SERVE = """
import sys
from pathlib import Path
from features.schema import load
from models.bundle import Bundle
from models.probe import random_snapshot
from models.scorer import Scorer
schema = load("features/schemas/consumer.yaml")
scorer = Scorer(Bundle.load(Path(sys.argv[1]), schema))
snapshot = random_snapshot(schema, 2, 0)
scorer.score(snapshot), scorer.explain("fraud", snapshot), scorer.reasons("fraud", snapshot, scorer.score(snapshot))
heavy = {"torch", "onnx", "onnxscript", "xgboost", "sklearn", "lightgbm"}
print(*sorted(heavy & set(sys.modules)))
"""


def test_serving_loads_no_training_library(consumer: Schema, tmp_path_factory: pytest.TempPathFactory) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SERVE, str(trained_bundle(consumer, tmp_path_factory))],
        capture_output=True, text=True, check=False, cwd=Path(__file__).parent.parent,
    )  # fmt: skip
    assert (done.stdout.split(), done.stderr, done.returncode) == ([], "", 0)

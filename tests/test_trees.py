import numpy as np
import onnxruntime
import pytest
import xgboost
from numpy.typing import NDArray

from features.schema import Schema
from models import trees
from models.shap import Explainer
from tests.snapshots import random_rows

ROUNDS = 400  # more than are of use
Trained = tuple[xgboost.Booster, NDArray[np.float32], NDArray[np.int8]]


def fit(consumer: Schema, seed: int, depth: int = 4) -> Trained:
    rows = random_rows(consumer, 4000, 0)
    known = rows.labels["default"] >= 0
    x = np.ascontiguousarray(rows.snapshot.features[known][:, consumer.columns("default")])
    y = rows.labels["default"][known]
    config = trees.TreesConfig(rounds=ROUNDS, depth=depth)
    fitted = trees.matrix(x[:2400], y[:2400])
    later = trees.matrix(x[2400:], y[2400:], fitted)
    booster = trees.fit(config, seed, trees.monotone(consumer, "default"), fitted, later)
    return booster, x, y


def onnx_of(booster: xgboost.Booster) -> bytes:
    return trees.to_onnx(trees.to_forest(booster), booster.num_features())


@pytest.fixture(scope="module")
def trained(consumer: Schema) -> Trained:
    return fit(consumer, 0)


def test_onnx_gives_the_margin(trained: Trained) -> None:
    booster, x, _ = trained
    session = onnxruntime.InferenceSession(onnx_of(booster), providers=["CPUExecutionProvider"])
    (margin,) = session.run(["margin"], {"row": x})
    assert np.isnan(x).any()
    np.testing.assert_allclose(margin[:, 0], trees.margins(booster, x), atol=1e-5, rtol=0)


def test_monotone_where_the_schema_says(consumer: Schema, trained: Trained) -> None:
    booster, x, _ = trained
    constraints = np.array(trees.monotone(consumer, "default"))
    moved = 0
    for column in np.flatnonzero(constraints):
        values = np.sort(np.exp(np.random.default_rng(column).normal(1, 3, 12)))
        base = np.repeat(x[:60, None], len(values), axis=1)
        base[:, :, column] = values
        margin = trees.margins(booster, base.reshape(-1, x.shape[1])).reshape(60, -1)
        steps = np.diff(margin, axis=1) * constraints[column]
        assert (steps >= -1e-6).all(), consumer.feature_names[consumer.columns("default")[column]]
        moved += int((steps > 1e-6).any())
    assert moved >= 2


def test_better_than_chance_and_stopped_early(trained: Trained) -> None:
    booster, x, y = trained
    margin = trees.margins(booster, x[2400:])
    assert margin[y[2400:] == 1].mean() > margin[y[2400:] == 0].mean() + 0.5
    assert 1 <= booster.num_boosted_rounds() < ROUNDS


def test_same_seed_same_trees(consumer: Schema, trained: Trained) -> None:
    assert onnx_of(fit(consumer, 0)[0]) == onnx_of(trained[0])
    assert onnx_of(fit(consumer, 1)[0]) != onnx_of(trained[0])


def test_merged_trees_give_the_mean_margin(consumer: Schema, trained: Trained) -> None:
    other, x, _ = fit(consumer, 1)
    forest = trees.merge([trees.to_forest(trained[0]), trees.to_forest(other)])
    session = onnxruntime.InferenceSession(trees.to_onnx(forest, x.shape[1]), providers=["CPUExecutionProvider"])
    (margin,) = session.run(["margin"], {"row": x})
    expected = (trees.margins(trained[0], x) + trees.margins(other, x)) / 2
    np.testing.assert_allclose(margin[:, 0], expected, atol=1e-5, rtol=0)
    explainer = Explainer(forest, x.shape[1])
    np.testing.assert_allclose(explainer.contributions(x).sum(axis=1) + explainer.bias, expected, atol=1e-5, rtol=0)

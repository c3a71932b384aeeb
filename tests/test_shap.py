import numpy as np
import pytest
import xgboost

from models import trees
from models.shap import Explainer, Forest


def random_table(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """float32 [1500, 12] with missing numbers, and labels with interactions, so that paths repeat features."""
    random = np.random.default_rng(seed)
    x = random.normal(size=(1500, 12)).astype(np.float32)
    log_odds = 2 * x[:, 0] * x[:, 1] + x[:, 2] - np.abs(x[:, 0]) - 1
    x[random.random(x.shape) < 0.15] = np.nan
    return x, (random.random(1500) < 1 / (1 + np.exp(-log_odds))).astype(np.int8)


@pytest.mark.parametrize("depth", [1, 3, 4, 5, 6])
def test_contributions_are_exact(depth: int) -> None:
    x, y = random_table(depth)
    config = trees.TreesConfig(rounds=40, depth=depth, min_child_weight=0.1)
    fitted = trees.matrix(x[:1000], y[:1000])
    booster = trees.fit(config, 0, (0,) * 12, fitted, trees.matrix(x[1000:], y[1000:], fitted))
    explainer = Explainer(trees.to_forest(booster), 12)
    contributions = explainer.contributions(x)
    expected = booster.predict(xgboost.DMatrix(x), pred_contribs=True)
    np.testing.assert_allclose(contributions, expected[:, :-1], atol=1e-5, rtol=0)
    np.testing.assert_allclose(explainer.bias, expected[:, -1], atol=1e-5, rtol=0)
    margin = trees.margins(booster, x)
    np.testing.assert_allclose(contributions.sum(axis=1) + explainer.bias, margin, atol=1e-5, rtol=0)


def test_a_tree_of_one_leaf_moves_nothing() -> None:
    one, zero = np.array([-1], dtype=np.int32), np.zeros(1, dtype=np.float32)
    forest = Forest(
        np.zeros(1, np.int32), one, one, np.zeros(1, np.int32), zero, np.zeros(1, np.bool_), zero + 0.25, zero + 9, -2.0
    )
    explainer = Explainer(forest, 3)
    assert explainer.bias == pytest.approx(-1.75)
    assert not explainer.contributions(np.ones((2, 3), np.float32)).any()


def test_deeper_than_the_tables_refuses() -> None:
    x, y = random_table(0)
    config = trees.TreesConfig(rounds=2, depth=9, min_child_weight=0.0)
    fitted = trees.matrix(x[:1000], y[:1000])
    booster = trees.fit(config, 0, (0,) * 12, fitted, trees.matrix(x[1000:], y[1000:], fitted))
    with pytest.raises(ValueError, match="deeper than 6"):
        Explainer(trees.to_forest(booster), 12)

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.gpu_trees import demo_models, random_rows
from gpu_kernels import reference
from models.device import open_session
from models.shap import Forest
from models.walker import Walker
from tests.test_gpu_trees import forest_of

ROWS = 3000


def test_every_shipped_forest_gives_the_margins_of_its_onnx() -> None:
    """Bit for bit, on rows of which a third of the numbers stand on a threshold or beside it."""
    models = demo_models()
    assert len(models) >= 6
    for seed, (schema, label, model) in enumerate(models):
        rows, rng = random_rows(schema, label, model, ROWS, seed), np.random.default_rng(seed)
        forest = model.forest
        for node in np.flatnonzero(forest.left >= 0):
            some, threshold = rng.integers(0, ROWS, ROWS // 200), forest.threshold[node]
            towards = np.float32((threshold, -np.inf, np.inf)[node % 3])
            rows[some, forest.feature[node]] = np.nextafter(threshold, towards)
        rows[rng.random(rows.shape) < 0.1] = np.nan
        rows[rng.random(rows.shape) < 0.01] = np.inf
        rows[rng.random(rows.shape) < 0.01] = -np.inf
        (served,) = open_session(model.trees_onnx).run(None, {"row": rows})
        walker = Walker(forest, rows.shape[1])
        found = walker.margins(rows)
        np.testing.assert_array_equal(found, served[:, 0])
        np.testing.assert_array_equal(found[:40], reference.margins(forest, rows[:40]))
        for size in (1, 2, 7):
            parts = [walker.margins(rows[i : i + size]) for i in range(0, 70, size)]
            np.testing.assert_array_equal(np.concatenate(parts), found[:70])


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 12), st.integers(0, 6), st.integers(1, 9), st.integers(0, 40))
def test_any_forest_is_walked_as_it_is_told(seed: int, trees: int, depth: int, columns: int, count: int) -> None:
    """Missing values, rows on a threshold and trees of one leaf included."""
    rng = np.random.default_rng(seed)
    forest = forest_of(rng, trees, depth, columns)
    rows = rng.integers(-2, 3, (count, columns)).astype(np.float32)
    rows[rng.random(rows.shape) < 0.2] = np.nan
    expected = reference.margins(forest, rows)
    for given_rows in (rows, np.asfortranarray(rows), np.repeat(rows, 2, axis=0)[::2]):
        np.testing.assert_array_equal(Walker(forest, columns).margins(given_rows), expected)


@pytest.fixture
def forest() -> Forest:
    """Ten trees, the first of which has a split."""
    found = forest_of(np.random.default_rng(0), 10, 3, 5)
    assert found.left[0] >= 0
    return found


@pytest.mark.parametrize(
    ("field", "number", "reason"),
    [
        ("threshold", np.nan, "no finite number"),
        ("threshold", -np.inf, "no finite number"),
        ("feature", 5, "a column beyond 5"),
        ("feature", -1, "a column beyond 5"),
        ("left", 10_000, "not there"),
        ("right", -1, "not there"),
        ("roots", -1, "not there"),
        ("left", 0, "deeper than 6"),
    ],
)
def test_what_cannot_be_walked_refuses(forest: Forest, field: str, number: float, reason: str) -> None:
    """Memory beyond the arrays is never read."""
    broken = getattr(forest, field).copy()
    broken[0] = number
    with pytest.raises(ValueError, match=reason):
        Walker(replace(forest, **{field: broken}), 5)


def test_rows_of_another_width_refuse(forest: Forest) -> None:
    for shape in ((3, 4), (3, 6), (5,)):
        with pytest.raises(ValueError, match="5 columns"):
            Walker(forest, 5).margins(np.zeros(shape, np.float32))

"""Trees on a device = ONNX Runtime = the served contributions = the oracle, bit for bit."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.gpu_trees import demo_models, random_rows, tree_differences
from gpu_kernels.trees import DeviceTrees
from models.shap import Explainer, Forest
from tests.gpu_devices import NAMES, opened


@pytest.mark.parametrize("name", NAMES)
def test_equals_what_is_served(name: str) -> None:
    device, models = opened(name), demo_models()
    assert len(models) >= 6
    for seed, (schema, label, model) in enumerate(models):
        assert tree_differences(device, model, random_rows(schema, label, model, 40, seed)) == []


def forest_of(rng: np.random.Generator, trees: int, depth: int, columns: int) -> Forest:
    """Random trees, some no more than a leaf, on values that rows take often."""
    left: list[int] = []
    right: list[int] = []

    def grow(level: int) -> int:
        node = len(left)
        left.append(-1)
        right.append(-1)
        if level < depth and rng.random() < 0.8:
            left[node], right[node] = grow(level + 1), grow(level + 1)
        return node

    roots = [grow(0) for _ in range(trees)]
    nodes = len(left)
    ints, floats = np.int32, np.float32
    cover = np.ones(nodes, dtype=floats)
    for node in reversed(range(nodes)):
        if left[node] >= 0:
            cover[node] = cover[left[node]] + cover[right[node]]
    return Forest(
        np.array(roots, ints), np.array(left, ints), np.array(right, ints),
        rng.integers(0, columns, nodes).astype(ints), rng.integers(-2, 3, nodes).astype(floats),
        rng.random(nodes) < 0.5, rng.normal(size=nodes).astype(floats), cover, float(rng.normal()),
    )  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 12), st.integers(0, 6), st.integers(1, 9), st.integers(1, 40))
def test_contributions_of_any_forest_sum_to_its_margin(
    name: str, seed: int, trees: int, depth: int, columns: int, count: int
) -> None:
    """Missing values and rows that stand on a threshold included."""
    rng = np.random.default_rng(seed)
    forest = forest_of(rng, trees, depth, columns)
    rows = rng.integers(-2, 3, (count, columns)).astype(np.float32)
    rows[rng.random(rows.shape) < 0.2] = np.nan
    explainer, device = Explainer(forest, columns), opened(name, seed)
    there, given_rows = DeviceTrees(device, forest, explainer.tables, columns), device.xp.asarray(rows)
    parts = device.host(there.contributions(given_rows))
    np.testing.assert_array_equal(parts, explainer.contributions(rows))
    np.testing.assert_allclose(parts.sum(axis=1) + explainer.bias, device.host(there.margins(given_rows)), atol=1e-5)

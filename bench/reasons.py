"""Exact reasons beside XGBoost's own `pred_contribs`: the same trees, the same rows, one thread, in turns."""

import time

import numpy as np
import xgboost
from numpy.typing import NDArray

from models import trees
from models.shap import Explainer
from models.trees import TreesConfig

COLUMNS, ROWS, BATCH, ROUNDS = 60, 8192, 64, 5  # every batch has rows of its own: repeated ones flatter
TREES, DEPTHS = 300, (4, 6)


def run() -> dict[str, dict[str, float]]:
    """By depth of the trees: µs a row of both, median of ROUNDS, their ratio, and the largest difference."""
    random = np.random.default_rng(0)
    rows = random.normal(size=(2 * ROWS, COLUMNS)).astype(np.float32)
    log_odds = rows[:, 0] * rows[:, 1] + rows[:, 2:12].sum(axis=1) / 3 - 2
    rows[random.random(rows.shape) < 0.1] = np.nan
    labels = (random.random(len(rows)) < 1 / (1 + np.exp(-log_odds))).astype(np.int8)
    return {f"depth_{depth}": _figures(depth, rows[:ROWS], labels[:ROWS], rows[ROWS:]) for depth in DEPTHS}


def _figures(
    depth: int, fitted: NDArray[np.float32], labels: NDArray[np.int8], rows: NDArray[np.float32]
) -> dict[str, float]:
    config = TreesConfig(rounds=TREES, depth=depth, min_child_weight=1.0)
    booster = trees.fit(config, 0, (0,) * COLUMNS, trees.matrix(fitted, labels))
    booster.set_param({"nthread": 1})
    explainer = Explainer(trees.to_forest(booster), COLUMNS)
    parts = np.split(rows, ROWS // BATCH)
    theirs = [booster.predict(xgboost.DMatrix(part, nthread=1), pred_contribs=True) for part in parts[:4]]
    ours = [explainer.contributions(part) for part in parts[:4]]
    difference = max(float(np.abs(t[:, :-1] - o).max()) for t, o in zip(theirs, ours, strict=True))
    spent: dict[str, list[float]] = {"miaopi": [], "xgboost": []}
    for turn in range(ROUNDS):
        some = parts[turn * len(parts) // ROUNDS : (turn + 1) * len(parts) // ROUNDS]
        started = time.perf_counter()
        for part in some:
            explainer.contributions(part)
        between = time.perf_counter()
        for part in some[:2]:
            booster.predict(xgboost.DMatrix(part, nthread=1), pred_contribs=True)
        spent["miaopi"].append((between - started) / len(some) / BATCH * 1e6)
        spent["xgboost"].append((time.perf_counter() - between) / 2 / BATCH * 1e6)
    mine, other = (float(np.median(spent[name])) for name in ("miaopi", "xgboost"))
    return {
        "us_miaopi": round(mine, 1), "us_xgboost": round(other, 1), "ratio": round(other / mine, 1),
        "max_abs_difference": difference,
    }  # fmt: skip

"""Gradient-boosted trees (XGBoost, Chen & Guestrin 2016) on a feature row: the champion a graph network must beat.

Margins are log-odds. Constraints keep the margin monotone where the schema says so for the label. The trees leave in
two forms: ONNX, for any runtime, and a Forest, which scores (models.walker) and explains.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import onnx
import xgboost
from numpy.typing import NDArray

from features.schema import Schema
from models.shap import Forest

Floats = NDArray[np.float32]
QUANTILE_SMOOTHING = 0.003  # of the numbers' unit, below which an error counts by its square
T = TypeVar("T", bound=np.generic)


@dataclass(frozen=True)
class TreesConfig:
    """At most `rounds` trees, fewer once `patience` rounds brought no better log loss on the validation rows.

    Depth 5 at most keeps the tables of exact reasons small. `encoding`: how categories become numbers.
    """

    rounds: int = 1500
    depth: int = 4
    learning_rate: float = 0.05
    min_child_weight: float = 5.0
    row_share: float = 0.7
    column_share: float = 0.5
    l2: float = 5.0
    patience: int = 50
    encoding: str = "order"
    threads: int = 1  # on cores shared with others, waiting for a second thread costs a hundred times what it brings


def monotone(schema: Schema, label: str) -> tuple[int, ...]:
    """-1, 0 or 1 for each of `schema.columns(label)`."""
    return tuple(schema.features[i].monotone.get(label, 0) for i in schema.columns(label))


def matrix(rows: Floats, labels: NDArray[Any], ref: xgboost.DMatrix | None = None) -> xgboost.DMatrix:
    """float32 [N, n] rows, NaN where missing, with labels [N], 0 and 1 or numbers, in bins, those of `ref` if given."""
    return xgboost.QuantileDMatrix(rows, labels, ref=ref, nthread=1)


def fit(
    config: TreesConfig, seed: int, constraints: tuple[int, ...],
    rows: xgboost.DMatrix, validation: xgboost.DMatrix | None = None,
) -> xgboost.Booster:  # fmt: skip
    """Trees on `matrix` rows, cut at the best round on the validation rows; without those all rounds."""
    parameters = _parameters(config, seed, constraints, float(rows.get_label().mean()))
    parameters |= {"objective": "binary:logistic", "eval_metric": "logloss"}
    if validation is None:
        return xgboost.train(parameters, rows, config.rounds)
    booster = xgboost.train(
        parameters, rows, config.rounds, early_stopping_rounds=config.patience, verbose_eval=False,
        evals=[(validation, "validation")],
    )  # fmt: skip
    return booster[: booster.best_iteration + 1]


def fit_quantile(
    config: TreesConfig, seed: int, constraints: tuple[int, ...], rows: xgboost.DMatrix, validation: xgboost.DMatrix,
    quantile: float,
) -> xgboost.Booster:  # fmt: skip
    """Trees of a quantile, 0–1, of the numbers of `matrix` rows, cut at the best round on the validation rows.

    XGBoost's own reg:quantileerror sets its leaves anew after the constraints were checked, and breaks them. Here each
    round minimises a parabola above the pinball loss (Hunter & Lange 2000), which no leaf needs to be set anew for.
    """

    def parabola(margin: Floats, given: xgboost.DMatrix) -> tuple[NDArray[Any], NDArray[Any]]:
        error = given.get_label() - margin
        curvature = 0.5 / (QUANTILE_SMOOTHING + np.abs(error))
        return 0.5 - quantile - error * curvature, curvature

    def loss(margin: Floats, given: xgboost.DMatrix) -> tuple[str, float]:
        return "pinball", pinball(given.get_label(), margin, quantile)

    parameters = _parameters(config, seed, constraints, float(np.quantile(rows.get_label(), quantile)))
    parameters |= {"objective": "reg:squarederror", "disable_default_eval_metric": True}
    booster = xgboost.train(
        parameters, rows, config.rounds, obj=parabola, custom_metric=loss, evals=[(validation, "validation")],
        early_stopping_rounds=config.patience, verbose_eval=False,
    )  # fmt: skip
    return booster[: booster.best_iteration + 1]


def pinball(given: NDArray[Any], found: NDArray[Any], quantile: float) -> float:
    """Mean loss that the quantile of the numbers given, [N], minimises."""
    error = given - found
    return float(np.mean(np.maximum(quantile * error, (quantile - 1) * error)))


def _parameters(config: TreesConfig, seed: int, constraints: tuple[int, ...], base_score: float) -> dict[str, Any]:
    return {
        "tree_method": "hist", "seed": seed, "max_depth": config.depth, "eta": config.learning_rate,
        "min_child_weight": config.min_child_weight, "subsample": config.row_share,
        "colsample_bytree": config.column_share, "reg_lambda": config.l2, "nthread": config.threads,
        "monotone_constraints": constraints, "base_score": base_score,
    }  # fmt: skip


def margins(booster: xgboost.Booster, rows: Floats) -> NDArray[np.float64]:
    """float64 [N] log-odds of float32 [N, n] rows."""
    return np.asarray(booster.inplace_predict(rows, predict_type="margin"), dtype=np.float64)


def to_forest(booster: xgboost.Booster) -> Forest:
    """The arrays of the trees."""
    learner = json.loads(booster.save_raw("json"))["learner"]
    trees = learner["gradient_booster"]["model"]["trees"]
    sizes = [len(tree["left_children"]) for tree in trees]
    roots = np.cumsum([0, *sizes[:-1]], dtype=np.int32)

    def column(name: str, dtype: type[T]) -> NDArray[T]:
        return np.concatenate([np.asarray(tree[name], dtype=dtype) for tree in trees])

    shift = np.repeat(roots, sizes)
    left, right = column("left_children", np.int32), column("right_children", np.int32)
    leaf = left < 0
    conditions = column("split_conditions", np.float32)  # of a leaf: its value
    return Forest(
        roots,
        np.where(leaf, -1, left + shift).astype(np.int32),
        np.where(leaf, -1, right + shift).astype(np.int32),
        column("split_indices", np.int32),
        np.where(leaf, 0, conditions),
        column("default_left", np.bool_),
        np.where(leaf, conditions, 0),
        column("sum_hessian", np.float32),
        _base_margin(learner),
    )


def _base_margin(learner: dict[str, dict[str, str]]) -> float:
    text = learner["learner_model_param"]["base_score"]  # "[3.1E-2]" since XGBoost 3.1, a bare number before
    base = float(text.strip("[]"))
    return float(np.log(base / (1 - base))) if learner["objective"]["name"] == "binary:logistic" else base


def merge(forests: Sequence[Forest]) -> Forest:
    """The mean of the margins of several forests, as one."""
    together = _joined(forests)
    return replace(together, value=(together.value / len(forests)).astype(np.float32))


def _joined(forests: Sequence[Forest]) -> Forest:
    """The trees of several forests in a row; the base is the mean of theirs."""
    nodes = np.cumsum([0, *(len(f.left) for f in forests[:-1])], dtype=np.int32)

    def joined(name: str) -> NDArray[Any]:
        return np.concatenate([getattr(f, name) for f in forests])

    def shifted(name: str) -> NDArray[np.int32]:
        parts = [getattr(f, name) for f in forests]
        return np.concatenate([np.where(p < 0, p, p + n) for p, n in zip(parts, nodes, strict=True)]).astype(np.int32)

    return Forest(
        shifted("roots"), shifted("left"), shifted("right"), joined("feature"), joined("threshold"),
        joined("default_left"), joined("value"), joined("cover"),
        float(np.mean([f.base for f in forests])),
    )  # fmt: skip


def to_onnx(forest: Forest, columns: int, *others: Forest) -> bytes:
    """A graph from `row`, float32 [B, columns], to `margin`, float32 [B, 1 + others], one column a forest."""
    forests = (forest, *others)
    target = np.repeat(np.arange(len(forests)), [len(f.roots) for f in forests])
    bases, forest = [f.base for f in forests], _joined(forests)
    sizes = np.diff([*forest.roots, len(forest.left)])
    tree = np.repeat(np.arange(len(sizes)), sizes)
    node = np.arange(len(forest.left)) - np.repeat(forest.roots, sizes)
    shift = np.repeat(forest.roots, sizes)
    leaf = forest.left < 0
    ensemble = onnx.helper.make_node(
        "TreeEnsembleRegressor", ["row"], ["margin"], domain="ai.onnx.ml", n_targets=len(forests),
        post_transform="NONE", base_values=bases, nodes_treeids=tree.tolist(), nodes_nodeids=node.tolist(),
        nodes_featureids=np.where(leaf, 0, forest.feature).tolist(), nodes_values=forest.threshold.tolist(),
        nodes_modes=np.where(leaf, "LEAF", "BRANCH_LT").tolist(),
        nodes_truenodeids=np.where(leaf, 0, forest.left - shift).tolist(),
        nodes_falsenodeids=np.where(leaf, 0, forest.right - shift).tolist(),
        nodes_missing_value_tracks_true=(forest.default_left & ~leaf).astype(int).tolist(),
        target_treeids=tree[leaf].tolist(), target_nodeids=node[leaf].tolist(),
        target_ids=target[tree[leaf]].tolist(), target_weights=forest.value[leaf].tolist(),
    )  # fmt: skip
    graph = onnx.helper.make_graph(
        [ensemble], "trees",
        [onnx.helper.make_tensor_value_info("row", onnx.TensorProto.FLOAT, [None, columns])],
        [onnx.helper.make_tensor_value_info("margin", onnx.TensorProto.FLOAT, [None, len(forests)])],
    )  # fmt: skip
    opsets = [onnx.helper.make_opsetid("", 17), onnx.helper.make_opsetid("ai.onnx.ml", 3)]
    proto = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8)
    onnx.checker.check_model(proto)
    return bytes(proto.SerializeToString())

"""Gradient-boosted trees (XGBoost, Chen & Guestrin 2016) on a feature row: the champion a graph network must beat.

Margins are log-odds. Constraints keep the margin monotone where the schema says so for the label. The trees leave in
two forms: ONNX, which scores, and a Forest, which explains.
"""

import json
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import onnx
import xgboost
from numpy.typing import NDArray
from onnxmltools.convert import convert_xgboost
from onnxmltools.convert.common.data_types import FloatTensorType

from features.schema import Schema
from models.reasons import Forest

Floats = NDArray[np.float32]
T = TypeVar("T", bound=np.generic)


@dataclass(frozen=True)
class TreesConfig:
    """At most `rounds` trees, fewer once `patience` rounds brought no better log loss on the validation rows."""

    rounds: int = 300
    depth: int = 4
    learning_rate: float = 0.08
    min_child_weight: float = 5.0
    row_share: float = 0.8
    column_share: float = 0.7
    patience: int = 30
    threads: int = 1  # on cores shared with others, waiting for a second thread costs a hundred times what it brings


def monotone(schema: Schema, label: str) -> tuple[int, ...]:
    """-1, 0 or 1 for each of `schema.columns(label)`."""
    return tuple(schema.features[i].monotone.get(label, 0) for i in schema.columns(label))


def fit(
    config: TreesConfig, seed: int, constraints: tuple[int, ...],
    rows: Floats, labels: NDArray[np.int8], validation: Floats, validation_labels: NDArray[np.int8],
) -> xgboost.Booster:  # fmt: skip
    """Trees on float32 [N, n] rows, NaN where missing, with labels [N] of 0 and 1, cut at the best round."""
    train = xgboost.QuantileDMatrix(rows, labels, nthread=config.threads)
    parameters = {
        "objective": "binary:logistic", "eval_metric": "logloss", "tree_method": "hist", "seed": seed,
        "max_depth": config.depth, "eta": config.learning_rate, "min_child_weight": config.min_child_weight,
        "subsample": config.row_share, "colsample_bytree": config.column_share, "nthread": config.threads,
        "monotone_constraints": constraints, "base_score": float(labels.mean()),
    }  # fmt: skip
    later = xgboost.QuantileDMatrix(validation, validation_labels, ref=train, nthread=config.threads)
    booster = xgboost.train(
        parameters, train, config.rounds, early_stopping_rounds=config.patience, verbose_eval=False,
        evals=[(later, "validation")],
    )  # fmt: skip
    return booster[: booster.best_iteration + 1]


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
    rate = float(text.strip("[]"))
    return float(np.log(rate / (1 - rate)))


def to_onnx(booster: xgboost.Booster) -> bytes:
    """A graph from `row`, float32 [B, n], to `margin`, float32 [B, 1]."""
    regressor = xgboost.XGBRegressor()  # read as a regressor, the trees give margins instead of probabilities
    regressor.load_model(bytearray(booster.save_raw("ubj")))
    shape = FloatTensorType([None, booster.num_features()])
    proto = convert_xgboost(regressor, name="trees", initial_types=[("row", shape)])
    (trees,) = proto.graph.node
    base = next(a for a in trees.attribute if a.name == "base_values")
    base.floats[:] = [to_forest(booster).base]  # the converter leaves the base as a probability
    trees.output[0] = proto.graph.output[0].name = "margin"
    onnx.checker.check_model(proto)
    return bytes(proto.SerializeToString())

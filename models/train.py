"""Training: rows of a history become a bundle, trees for every label and a graph network for fraud.

Split by the time of the applications: the first part fits; of the rest the first half stops trees and network, the
second stacks, calibrates and decides on the network, kept only if it raises the AUPRC of the trees (R18). Labels are
those known at the end of the history, so a row's label may have come in after later rows were made; the features of a
row use only what was reported before it. The same rows, seed and machine give the same bundle, byte for byte.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.application import Snapshot
from features.replay import Rows
from features.schema import Schema
from models import calibrate, export, gnn, trees
from models.bundle import LabelModel
from models.calibrate import Calibration
from models.evaluate import metrics

GNN_LABELS = ("fraud",)
NO_GAIN = "left out, it does not raise the AUPRC of the trees"


class TrainingError(ValueError):
    """Rows that no model can be trained on; the message names the label and what is missing."""


def train(
    rows: Rows, out: Path, *, seed: int = 0, fit_share: float = 0.75, command: str = "",
    progress: Callable[[str], None] = lambda message: None,
) -> Path:  # fmt: skip
    """Train every label of the schema on its rows with a known label into the bundle folder `out`, which is returned.

    `fit_share` of the rows, the earliest, fit. `command` is what reproduces the bundle, for its card. `progress` is
    told each step. Raises TrainingError, and BundleError if `out` exists and is no bundle.
    """
    export.check_place(out)
    cut = int(len(rows.snapshot) * fit_share)
    if not 0 < cut < len(rows.snapshot):
        raise TrainingError(f"{len(rows.snapshot)} rows cannot be split at {fit_share}")
    early = rows.event_time_ms < rows.event_time_ms[cut]  # rows of one instant stay together
    models, findings = {}, {}
    for label, known in rows.labels.items():
        fit, validation = np.flatnonzero(early & (known >= 0)), np.flatnonzero(~early & (known >= 0))
        if len(np.unique(known[fit])) < 2 or not len(validation):
            raise TrainingError(f"label {label}: needs bad and good rows to fit, and later rows to validate")
        parts = _Parts.of(rows, label, fit, validation)
        models[label], findings[label] = _train_label(rows.schema, label, parts, seed, progress)
    training: dict[str, Any] = {
        "from_ms": int(rows.event_time_ms[0]), "fit_until_ms": int(rows.event_time_ms[cut]),
        "until_ms": int(rows.event_time_ms[-1]), "rows": len(rows.snapshot), "fit_share": fit_share, "seed": seed,
        "command": command,
    }  # fmt: skip
    return export.write(out, rows.schema, models, training, findings)


class _Part:
    """Rows to learn from. at: int64 [N] in `rows`; labels: int8 [N], 0 or 1; columns: float32 [N, n]."""

    def __init__(self, rows: Rows, label: str, at: NDArray[np.int64]) -> None:
        self._rows = rows
        self._at = at
        self.labels = rows.labels[label][at]
        self.bad = int(self.labels.sum())
        self.columns = rows.snapshot.features[np.ix_(at, rows.schema.columns(label))]

    def snapshot(self) -> Snapshot:
        """A copy, made only when asked for: neighbourhoods are most of the memory, and trees need none."""
        return self._rows.snapshot.take(self._at)


@dataclass(frozen=True)
class _Parts:
    """Rows that fit, that stop, and that stack and calibrate; `split` says whether the last two are different rows."""

    fit: _Part
    stop: _Part
    stack: _Part
    split: str

    @classmethod
    def of(cls, rows: Rows, label: str, fit: NDArray[np.int64], validation: NDArray[np.int64]) -> "_Parts":
        """Validation rows, int64 [N] in `rows`, halved by time unless too few bad ones would be left in a half."""
        times = rows.event_time_ms[validation]
        first = times < times[len(times) // 2]  # rows of one instant stay together
        stop, stack = _Part(rows, label, validation[first]), _Part(rows, label, validation[~first])
        if min(stop.bad, stack.bad) >= calibrate.STACK_MIN_POSITIVES:
            return cls(_Part(rows, label, fit), stop, stack, "halved by time")
        needed = f"{calibrate.STACK_MIN_POSITIVES} are needed"
        whole = _Part(rows, label, validation)
        split = f"whole, as its halves have {stop.bad} and {stack.bad} bad rows where {needed}"
        return cls(_Part(rows, label, fit), whole, whole, split)


@dataclass(frozen=True)
class _Network:
    """A graph network that can join the trees, with the calibration that does it and their figures together."""

    config: gnn.GNNConfig
    onnx: bytes
    calibration: Calibration
    metrics: dict[str, float]


def _train_label(
    schema: Schema, label: str, parts: _Parts, seed: int, progress: Callable[[str], None]
) -> tuple[LabelModel, dict[str, Any]]:
    """The models of a label, and what the manifest says of them."""
    fit, stop, stack = parts.fit, parts.stop, parts.stack
    progress(f"{label}: trees on {len(fit.labels)} rows")
    config = trees.TreesConfig()
    booster = trees.fit(
        config, seed, trees.monotone(schema, label), fit.columns, fit.labels, stop.columns, stop.labels
    )  # fmt: skip
    margin = trees.margins(booster, stack.columns)
    platt = calibrate.fit(stack.labels, margin) if stack.bad >= calibrate.PLATT_MIN_POSITIVES else None
    calibration = platt or calibrate.IDENTITY
    alone = metrics(stack.labels, calibration.probability(margin))
    network, verdict = _graph_network(schema, label, parts, margin, seed, progress)
    if network is not None and not network.metrics["auprc"] > alone["auprc"]:
        network, verdict = None, NO_GAIN
    if network is not None:
        calibration = network.calibration
    figures = network.metrics if network else alone
    progress(f"{label}: AUPRC {alone['auprc']:.4f} by trees, {figures['auprc']:.4f} by the bundle; GNN {verdict}")
    model = LabelModel(trees.to_onnx(booster), trees.to_forest(booster), network.onnx if network else None, calibration)
    return model, {
        "gnn": verdict, "calibrated": network is not None or platt is not None, "validation": parts.split,
        "rows": {"fit": len(fit.labels), "fit_bad": fit.bad, "stop": len(stop.labels), "stop_bad": stop.bad,
                 "stack": len(stack.labels), "stack_bad": stack.bad},
        "settings": {"trees": asdict(config), "gnn": asdict(network.config) if network else None},
        "metrics": {"trees": alone, "bundle": figures},
    }  # fmt: skip


def _graph_network(
    schema: Schema, label: str, parts: _Parts, margin: NDArray[np.float64], seed: int,
    progress: Callable[[str], None],
) -> tuple[_Network | None, str]:  # fmt: skip
    """The graph network stacked on the trees' margins float64 [N] of the rows that stack, and what to say of it."""
    fit, stop, stack = parts.fit, parts.stop, parts.stack
    if label not in GNN_LABELS:
        return None, "none for this label"
    if stack.bad < calibrate.STACK_MIN_POSITIVES:
        return None, f"left out, {stack.bad} bad rows to validate where {calibrate.STACK_MIN_POSITIVES} are needed"
    if not gnn.own_columns(schema, label):
        return None, "left out, no column of the request is free of constraints"
    rows, later = fit.snapshot(), stack.snapshot()
    config = gnn.GNNConfig.of(schema, label, rows)
    network = gnn.fit(config, seed, rows, fit.labels, stop.snapshot(), stop.labels, progress)
    logit = gnn.logits(network, later)
    stacked = calibrate.fit(stack.labels, margin, logit)
    if stacked is None:
        return None, NO_GAIN
    figures = metrics(stack.labels, stacked.probability(margin, logit))
    stacked = replace(stacked, gnn_mean=float(gnn.logits(network, rows).mean()))
    return _Network(config, gnn.to_onnx(network, later), stacked, figures), "kept"

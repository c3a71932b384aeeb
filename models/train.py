"""Training: rows of a history become a bundle, trees for every label and a graph network for fraud.

Split by time: the first part fits, the last stops, stacks and calibrates; nothing is learned from later than it is
used. The graph network is kept only if it raises the AUPRC of the trees (R18). The same rows, seed and machine give
the same bundle, byte for byte.
"""

from collections.abc import Callable
from dataclasses import dataclass
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


class TrainingError(ValueError):
    """Rows that no model can be trained on; the message names the label and what is missing."""


def train(
    rows: Rows, out: Path, *, seed: int = 0, fit_share: float = 0.75,
    progress: Callable[[str], None] = lambda message: None,
) -> Path:  # fmt: skip
    """Train every label of the schema on its rows with a known label into the bundle folder `out`, which is returned.

    `fit_share` of the rows, the earliest, fit. `progress` is told each step. Raises TrainingError, and
    BundleError if `out` exists and is no bundle.
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
        part = _Part(rows, label, fit), _Part(rows, label, validation)
        models[label], findings[label] = _train_label(rows.schema, label, *part, seed, progress)
    training: dict[str, Any] = {
        "from_ms": int(rows.event_time_ms[0]), "fit_until_ms": int(rows.event_time_ms[cut]),
        "until_ms": int(rows.event_time_ms[-1]), "rows": len(rows.snapshot), "fit_share": fit_share, "seed": seed,
    }  # fmt: skip
    return export.write(out, rows.schema, models, training, findings)


class _Part:
    """Rows to fit or to validate. at: int64 [N] in `rows`; labels: int8 [N], 0 or 1; columns: float32 [N, n]."""

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
class _Network:
    """A graph network worth keeping, with the calibration that stacks it on the trees and their figures together."""

    onnx: bytes
    calibration: Calibration
    metrics: dict[str, float]


def _train_label(
    schema: Schema, label: str, fit: _Part, validation: _Part, seed: int, progress: Callable[[str], None]
) -> tuple[LabelModel, dict[str, Any]]:
    """The models of a label, and what the manifest says of them."""
    progress(f"{label}: trees on {len(fit.labels)} rows")
    booster = trees.fit(
        trees.TreesConfig(), seed, trees.monotone(schema, label),
        fit.columns, fit.labels, validation.columns, validation.labels,
    )  # fmt: skip
    margin = trees.margins(booster, validation.columns)
    platt = calibrate.fit(validation.labels, margin) if validation.bad >= calibrate.PLATT_MIN_POSITIVES else None
    calibration = platt or calibrate.IDENTITY
    alone = metrics(validation.labels, calibration.probability(margin))
    network = _graph_network(schema, label, fit, validation, margin, seed, progress) if label in GNN_LABELS else None
    if label not in GNN_LABELS:
        verdict = "none for this label"
    elif validation.bad < calibrate.STACK_MIN_POSITIVES:
        verdict = f"left out, {validation.bad} bad rows to validate where {calibrate.STACK_MIN_POSITIVES} are needed"
    elif network is None or network.metrics["auprc"] <= alone["auprc"]:
        network, verdict = None, "left out, it does not raise the AUPRC of the trees"
    else:
        calibration, verdict = network.calibration, "kept"
    figures = network.metrics if network else alone
    progress(f"{label}: AUPRC {alone['auprc']:.4f} by trees, {figures['auprc']:.4f} by the bundle; GNN {verdict}")
    model = LabelModel(trees.to_onnx(booster), trees.to_forest(booster), network.onnx if network else None, calibration)
    return model, {
        "gnn": verdict, "calibrated": network is not None or platt is not None,
        "rows": {"fit": len(fit.labels), "fit_bad": fit.bad,
                 "validation": len(validation.labels), "validation_bad": validation.bad},
        "metrics": {"trees": alone, "bundle": figures},
    }  # fmt: skip


def _graph_network(
    schema: Schema, label: str, fit: _Part, validation: _Part, margin: NDArray[np.float64], seed: int,
    progress: Callable[[str], None],
) -> _Network | None:  # fmt: skip
    """The graph network stacked on the trees' margins float64 [N] of the validation rows; None if it cannot help."""
    if validation.bad < calibrate.STACK_MIN_POSITIVES:
        return None
    rows, later = fit.snapshot(), validation.snapshot()
    config = gnn.GNNConfig.of(schema, label, rows)
    network = gnn.fit(config, seed, rows, fit.labels, later, validation.labels, progress)
    logit = gnn.logits(network, later)
    stacked = calibrate.fit(validation.labels, margin, logit)
    if stacked is None:
        return None
    figures = metrics(validation.labels, stacked.probability(margin, logit))
    return _Network(gnn.to_onnx(network, later), stacked, figures)

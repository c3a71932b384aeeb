"""Training: rows of a history become a bundle, trees for every label and a graph network for fraud.

Every row that calibrates or is measured was scored by trees that had not seen it; split by time, these rows are the
last. Where features count other rows, the search too is by time and nothing is learned from later than it is used;
elsewhere its folds are random, which keeps more rows to learn from. Search and encodings stay inside the rows given.
The graph network is kept only if it raises the AUPRC of the trees (R18). The same rows, seed and machine give the same
bundle, byte for byte, unless the search ran out of time.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
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
from models.encode import Categories
from models.evaluate import metrics
from models.search import Pair, Search, forward_pairs, stratified_pairs

GNN_LABELS = ("fraud",)


@dataclass(frozen=True)
class TrainConfig:
    """split: time or stratified; fit_share: by time, the share of the rows, the earliest, to fit on.

    search_seconds: after which no further candidate is tried. categories: by feature, the text of each code of an open
    category, for their order; without it they are told apart by how often they go bad alone.
    """

    seed: int = 0
    split: str = "time"
    fit_share: float = 0.75
    search_seconds: float = 20.0
    categories: Mapping[str, Mapping[int, str]] = field(default_factory=dict)


class TrainingError(ValueError):
    """Rows that no model can be trained on; the message names the label and what is missing."""


def train(
    rows: Rows, out: Path, config: TrainConfig | None = None, *,
    progress: Callable[[str], None] = lambda message: None,
) -> Path:  # fmt: skip
    """Train every label of the schema on its rows with a known label into the bundle folder `out`, which is returned.

    `progress` is told each step. Raises TrainingError, and BundleError if `out` exists and is no bundle.
    """
    config = config or TrainConfig()
    export.check_place(out)
    models, findings = {}, {}
    for label in rows.labels:
        models[label], findings[label] = _train_label(rows, label, config, progress)
    cut = int(len(rows.snapshot) * config.fit_share) if config.split == "time" else 0
    training: dict[str, Any] = {
        "split": config.split, "from_ms": int(rows.event_time_ms[0]), "fit_until_ms": int(rows.event_time_ms[cut]),
        "until_ms": int(rows.event_time_ms[-1]), "rows": len(rows.snapshot), "fit_share": config.fit_share,
        "seed": config.seed,
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
    rows: Rows, label: str, config: TrainConfig, progress: Callable[[str], None]
) -> tuple[LabelModel, dict[str, Any]]:
    """The models of a label, and what the manifest says of them."""
    schema, known = rows.schema, np.flatnonzero(rows.labels[label] >= 0)
    every = _Part(rows, label, known)
    if len(np.unique(every.labels)) < 2:
        raise TrainingError(
            f"label {label}: {len(known)} rows have it, {every.bad} of them bad: needs bad and good rows"
        )
    folds = _folds(schema, label, every.labels, rows.event_time_ms[known], config)
    search = Search(
        every.columns, every.labels, folds.pairs, Categories(schema, label, config.categories),
        trees.monotone(schema, label), config.seed, config.search_seconds, lambda step: progress(f"{label}: {step}"),
    )  # fmt: skip
    found = search.run(refit=folds.forward)
    fit, last = (_Part(rows, label, known[part]) for part in folds.pairs[-1])
    labels, margin = every.labels[folds.validated], found.margins[folds.validated]
    platt = calibrate.fit(labels, margin) if labels.sum() >= calibrate.PLATT_MIN_POSITIVES else None
    calibration = platt or calibrate.IDENTITY
    alone = metrics(labels, calibration.probability(margin))
    network, verdict = None, "none: nothing ties rows together"
    if label in GNN_LABELS and folds.forward and rows.snapshot.neighbor_mask.any():
        network, verdict = _graph_network(schema, label, fit, last, margin, alone["auprc"], config.seed, progress)
    figures = network.metrics if network else alone
    progress(f"{label}: AUPRC {alone['auprc']:.4f} by trees, {figures['auprc']:.4f} by the bundle; GNN {verdict}")
    onnx = trees.to_onnx(found.forest, len(found.encoding.owner))
    model = LabelModel(
        onnx, found.forest, found.encoding, network.onnx if network else None,
        network.calibration if network else calibration,
    )  # fmt: skip
    return model, {
        "gnn": verdict, "folds": "forward" if folds.forward else "random",
        "calibrated": network is not None or platt is not None, "search": found.findings,
        "rows": {"fit": len(fit.labels), "fit_bad": fit.bad,
                 "validation": len(labels), "validation_bad": int(labels.sum())},
        "metrics": {"trees": alone, "bundle": figures},
    }  # fmt: skip


@dataclass(frozen=True)
class _Folds:
    """How the rows of a label are searched; `validated` int64 [n] calibrate and are measured."""

    pairs: list[Pair]
    validated: NDArray[np.int64]
    forward: bool


def _folds(
    schema: Schema, label: str, labels: NDArray[np.int8], times: NDArray[np.int64], config: TrainConfig
) -> _Folds:
    """Forward in time where a row's features count other rows: random folds would fit on the bursts they validate."""
    if config.split != "time":
        return _Folds(stratified_pairs(labels, config.seed), np.arange(len(labels)), False)
    if not any(schema.features[i].origin in ("velocity", "graph") for i in schema.columns(label)):
        late = np.flatnonzero(times >= times[int(len(times) * config.fit_share)])
        return _Folds(stratified_pairs(labels, config.seed), late, False)
    pairs = forward_pairs(labels, times, config.fit_share)
    if not pairs:
        raise TrainingError(
            f"label {label}: needs bad and good rows both before and after {config.fit_share:.0%} of them"
        )
    return _Folds(pairs, pairs[-1][1], True)


def _graph_network(
    schema: Schema, label: str, fit: _Part, validation: _Part, margin: NDArray[np.float64], to_beat: float, seed: int,
    progress: Callable[[str], None],
) -> tuple[_Network | None, str]:  # fmt: skip
    """The graph network stacked on the trees' margins float64 [N] of the validation rows, None if left out, and why."""
    if validation.bad < calibrate.STACK_MIN_POSITIVES:
        wanted = calibrate.STACK_MIN_POSITIVES
        return None, f"left out, {validation.bad} bad rows to validate where {wanted} are needed"
    rows, later = fit.snapshot(), validation.snapshot()
    config = gnn.GNNConfig.of(schema, label, rows)
    network = gnn.fit(config, seed, rows, fit.labels, later, validation.labels, progress)
    logit = gnn.logits(network, later)
    stacked = calibrate.fit(validation.labels, margin, logit)
    figures = {} if stacked is None else metrics(validation.labels, stacked.probability(margin, logit))
    if stacked is None or figures["auprc"] <= to_beat:
        return None, "left out, it does not raise the AUPRC of the trees"
    return _Network(gnn.to_onnx(network, later), stacked, figures), "kept"

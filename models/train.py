"""Training: rows of a history become a bundle, trees for every label and a graph network for fraud.

By time, the first part fits; of the rest, the first half stops and chooses trees and network, the second stacks,
calibrates and decides on the network, kept only if it raises the AUPRC of the trees (R18); the trees are then fitted
anew on all but this half, and calibrated by what they say of it. Labels are those known at the end of the history, so
a row's label may have come in after later rows were made; the features of a row use only what was reported before it.
Where no feature counts other rows, folds are random, which keeps more rows to learn from, and a row calibrates by the
margin of trees that had not seen it. Search and encodings stay inside the rows that choose. The same rows, seed and
machine give the same bundle, byte for byte, unless the search ran out of time.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.application import Snapshot
from features.replay import Rows
from features.schema import Schema
from models import calibrate, export, gnn, trees
from models.bundle import LabelModel, ResidualModel
from models.calibrate import Calibration
from models.encode import Categories
from models.evaluate import metrics
from models.search import Pair, Search, forward_pairs, stratified_pairs

GNN_LABELS = ("fraud",)
NO_GAIN = "left out, it does not raise the AUPRC of the trees"


@dataclass(frozen=True)
class TrainConfig:
    """split: time or stratified; fit_share: by time, the share of the rows, the earliest, to fit on.

    search_seconds: after which no further candidate is tried. trees_max: bounds what a decision costs, 0 for no limit.
    categories: by feature, the text of each code of an open category, for their order; without it they are told apart
    by how often they go bad alone.
    """

    seed: int = 0
    split: str = "time"
    fit_share: float = 0.75
    search_seconds: float = 20.0
    trees_max: int = 0
    categories: Mapping[str, Mapping[int, str]] = field(default_factory=dict)


class TrainingError(ValueError):
    """Rows that no model can be trained on; the message names the label and what is missing."""


def train(
    rows: Rows, out: Path, config: TrainConfig | None = None, *, command: str = "",
    progress: Callable[[str], None] = lambda message: None, residual: ResidualModel | None = None,
) -> Path:  # fmt: skip
    """Train every label of the schema on its rows with a known label into the bundle folder `out`, which is returned.

    `command` is what reproduces the bundle, for its card. `progress` is told each step. Raises TrainingError, and
    BundleError if `out` exists and is no bundle.
    """
    config = config or TrainConfig()
    export.check_place(out)
    models, findings = {}, {}
    for label in rows.labels:
        models[label], findings[label] = _train_label(rows, label, config, progress)
    training: dict[str, Any] = {
        "split": config.split, "from_ms": int(rows.event_time_ms[0]), "fit_until_ms": _cut_ms(rows, config.fit_share),
        "until_ms": int(rows.event_time_ms[-1]), "rows": len(rows.snapshot), "fit_share": config.fit_share,
        "search_seconds": config.search_seconds, "seed": config.seed, "command": command,
    }  # fmt: skip
    return export.write(out, rows.schema, models, training, findings, residual)


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
    """Rows that fit, that stop and choose, and that stack and calibrate."""

    fit: _Part
    stop: _Part
    stack: _Part


@dataclass(frozen=True)
class _Network:
    """A graph network that can join the trees, with the calibration that does it and their figures together."""

    config: gnn.GNNConfig
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
    folds = _folds(rows, label, known, config)
    search = Search(
        every.columns, every.labels, folds.pairs, Categories(schema, label, config.categories),
        trees.monotone(schema, label), config.seed, config.search_seconds, lambda step: progress(f"{label}: {step}"),
    )  # fmt: skip
    found = search.run(folds.learned, config.trees_max)
    parts = _Parts(*(_Part(rows, label, known[part]) for part in (folds.fit, folds.stop, folds.stack)))
    fit, stop, stack, margin = parts.fit, parts.stop, parts.stack, found.margins[folds.stack]
    platt = calibrate.fit(stack.labels, margin) if stack.bad >= calibrate.PLATT_MIN_POSITIVES else None
    calibration = platt or calibrate.IDENTITY
    alone = metrics(stack.labels, calibration.probability(margin))
    network, verdict = None, "none, nothing ties rows together"
    if label not in GNN_LABELS:
        verdict = "none for this label"
    elif config.split != "time":
        verdict = "none, the rows are not split by time"
    elif folds.learned is not None and rows.snapshot.neighbor_mask.any():
        network, verdict = _graph_network(schema, label, parts, margin, config.seed, progress)
    if network is not None and not network.metrics["auprc"] > alone["auprc"]:
        network, verdict = None, NO_GAIN
    figures = network.metrics if network else alone
    progress(f"{label}: AUPRC {alone['auprc']:.4f} by trees, {figures['auprc']:.4f} by the bundle; GNN {verdict}")
    onnx = trees.to_onnx(found.forest, len(found.encoding.owner))
    model = LabelModel(
        onnx, found.forest, found.encoding, network.onnx if network else None,
        network.calibration if network else calibration,
    )  # fmt: skip
    return model, {
        "gnn": verdict, "folds": "random" if folds.learned is None else "forward", "validation": folds.split,
        "learned_until_ms": folds.learned_until_ms, "calibrated": network is not None or platt is not None,
        "rows": {"fit": len(fit.labels), "fit_bad": fit.bad, "stop": len(stop.labels), "stop_bad": stop.bad,
                 "stack": len(stack.labels), "stack_bad": stack.bad},
        "settings": {"trees": [asdict(c) for c in found.configs], "gnn": asdict(network.config) if network else None},
        "search": found.findings,
        "metrics": {"trees": alone, "bundle": figures},
    }  # fmt: skip


@dataclass(frozen=True)
class _Folds:
    """How the rows of a label are used; all int64 of the rows whose label is known.

    pairs: what the search fits and validates on. learned: what the trees are then fitted on, None where those of the
    folds vote. stop and stack are the same rows where too few are bad, which `split` says.
    """

    pairs: list[Pair]
    learned: NDArray[np.int64] | None
    fit: NDArray[np.int64]
    stop: NDArray[np.int64]
    stack: NDArray[np.int64]
    split: str
    learned_until_ms: int


def _cut_ms(rows: Rows, share: float) -> int:
    return int(rows.event_time_ms[int(len(rows.snapshot) * share)])


def _folds(rows: Rows, label: str, known: NDArray[np.int64], config: TrainConfig) -> _Folds:
    """Forward in time where a row's features count other rows: random folds would fit on the bursts they validate."""
    schema, labels, times = rows.schema, rows.labels[label][known], rows.event_time_ms[known]
    end, every = int(rows.event_time_ms[-1]) + 1, np.arange(len(known))
    if config.split == "time" and any(
        schema.features[i].origin in ("velocity", "graph") for i in schema.columns(label)
    ):
        return _forward_folds(rows, label, known, config.fit_share)
    stack = np.flatnonzero(times >= _cut_ms(rows, config.fit_share)) if config.split == "time" else every
    if not len(stack):
        raise TrainingError(
            f"label {label}: no row after {config.fit_share:.0%} of all has it: nothing to calibrate on"
        )
    pairs, split = stratified_pairs(labels, config.seed), "each scored by trees of random folds that had not seen it"
    return _Folds(pairs, None, every, every, stack, split, end)


def _forward_folds(rows: Rows, label: str, known: NDArray[np.int64], fit_share: float) -> _Folds:
    """Rows after `fit_share` of all are halved by time unless too few bad ones would be left in a half."""
    labels, times = rows.labels[label][known], rows.event_time_ms[known]
    cut, end = _cut_ms(rows, fit_share), int(rows.event_time_ms[-1]) + 1
    validation = times[times >= cut]
    middle = int(validation[len(validation) // 2]) if len(validation) else end  # rows of one instant stay together
    halves = [int(labels[part].sum()) for part in ((times >= cut) & (times < middle), times >= middle)]
    needed, split = calibrate.STACK_MIN_POSITIVES, "halved by time"
    stop_until = stack_from = middle
    if min(halves) < needed:
        split = f"whole, as its halves have {halves[0]} and {halves[1]} bad rows where {needed} are needed"
        stop_until, stack_from = end, cut
    earlier = [_cut_ms(rows, 2 * fit_share - 1)] if fit_share > 0.5 else []
    pairs = forward_pairs(labels, times, (*earlier, cut, stop_until))
    if not pairs:
        raise TrainingError(f"label {label}: needs bad and good rows both before and after {fit_share:.0%} of them")
    learned, stack = np.flatnonzero(times < stack_from), np.flatnonzero(times >= stack_from)
    return _Folds(pairs, learned, *pairs[-1], stack, split, stack_from)


def _graph_network(
    schema: Schema, label: str, parts: _Parts, margin: NDArray[np.float64], seed: int,
    progress: Callable[[str], None],
) -> tuple[_Network | None, str]:  # fmt: skip
    """The graph network stacked on the trees' margins float64 [N] of the rows that stack, and what to say of it."""
    fit, stop, stack = parts.fit, parts.stop, parts.stack
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

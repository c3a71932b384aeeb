"""The recipe: the rows of one label become its models, chosen and calibrated on rows that they had not learned from.

By time, the first part fits; of the rest, the first half stops and chooses trees and network, the second stacks,
calibrates and decides on the network, kept only if it raises the AUPRC of the trees (R18); the trees are then fitted
anew on all but this half, and calibrated by what they say of it. Search and encodings stay inside the rows that choose.
Features use only what was reported before their row; labels are those known at the end of the history, of rows old
enough for the schema's `mature_days`. The same rows, seed and machine give the same models, byte for byte, unless the
search ran out of time.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.application import Snapshot
from features.replay import Rows
from features.schema import Schema
from features.specs import DAY_MS
from models import calibrate, networks, trees
from models.attention import Weights
from models.bundle import DEEP, LabelModel
from models.calibrate import Calibration
from models.deep import DeepConfig, DeepGNN
from models.encode import Categories
from models.evaluate import metrics
from models.folds import Folds, TrainingError, aggregate_columns, folds
from models.gnn import GNN, GNNConfig, own_columns, weights_of
from models.probe import random_snapshot
from models.search import STEPS_MAX, Found, Search

NETWORKS: Mapping[str, tuple[Any, Any]] = {"gnn": (GNNConfig, GNN), DEEP: (DeepConfig, DeepGNN)}
GNN_LABELS = ("fraud",)
EXAMPLE_ROWS = 16  # that show the exporter the shapes
CLASS_MIN = 2  # bad and good rows: every fold then has one of each to fit on
NO_GAIN = "left out, it does not raise the AUPRC of the trees"
TREES, AGGREGATES, NETWORK = "trees", "trees + aggregates", "trees + aggregates + GNN"  # each with more to look at

Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class TrainConfig:
    """split: time or stratified; fit_share: by time, the share of the rows, the earliest, to fit on.

    test_share: of the rows, by time the latest, to test the recipe on; the bundle itself learns from all. 0: no test.
    search_seconds: after which no further candidate is tried. trees_max: bounds what a decision costs, 0 for no limit.
    keep_gnn: the graph network stays although it does not raise the AUPRC. network: which of NETWORKS, where "deep"
    needs rows with hops; device: cpu, cuda or cuda:N, where it is trained. categories: by feature, the text of each
    code of an open category, for their order; without it they are told apart by how often they go bad alone.
    """

    seed: int = 0
    split: str = "time"
    fit_share: float = 0.75
    test_share: float = 0.0
    search_seconds: float = 30.0
    trees_max: int = 0
    keep_gnn: bool = False
    network: str = "gnn"
    device: str = "cpu"
    categories: Mapping[str, Mapping[int, str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Trained:
    """The models of one label.

    variants: a model by each name above that was tried, of which the bundle takes `chosen`. learned, stack: int64 of
    the rows it learned from and of those that calibrated; validation: by variant, float64 [stack] their probabilities
    by models that had not seen them. findings: what the manifest says.
    """

    variants: Mapping[str, LabelModel]
    chosen: str
    learned: NDArray[np.int64]
    stack: NDArray[np.int64]
    validation: Mapping[str, Doubles]
    findings: Mapping[str, Any]

    @property
    def model(self) -> LabelModel:
        """What the bundle scores with."""
        return self.variants[self.chosen]


def steps_at_most(schema: Schema, config: TrainConfig) -> int:
    """How often `progress` is told of a step, at most: candidates and epochs, with and without a test part."""
    epochs = NETWORKS[config.network][0].epochs if config.split == "time" else 0
    labels = [STEPS_MAX + (epochs if label in GNN_LABELS else 0) + 1 for label in schema.labels]
    return 1 + sum(labels) * (2 if config.test_share else 1)


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
class _Network:
    """A graph network that can join the trees, and the calibration that does it."""

    config: Any
    onnx: bytes
    weights: Weights | None
    calibration: Calibration
    probability: Doubles


def known_rows(rows: Rows, label: str) -> NDArray[np.int64]:
    """int64 [n]: rows whose label is known and that are old enough for it to be so whichever it is."""
    mature_ms = rows.ended_ms - rows.schema.labels[label].mature_days * DAY_MS
    return np.flatnonzero((rows.labels[label] >= 0) & (rows.event_time_ms <= mature_ms))


def train_label(
    rows: Rows, label: str, config: TrainConfig, progress: Callable[[str], None], *, ablate: bool = False
) -> Trained:
    """The models of a label. `ablate` adds the trees that see nothing of other rows. Raises TrainingError."""
    known = known_rows(rows, label)
    every = _Part(rows, label, known)
    if min(every.bad, len(known) - every.bad) < CLASS_MIN:
        raise TrainingError(
            f"label {label}: {len(known)} rows have it, {every.bad} of them bad: needs {CLASS_MIN} bad and good rows"
        )
    plan = folds(rows, label, known, config.split, config.fit_share, config.seed)
    found = _search(rows.schema, label, every.columns, every.labels, plan, config, progress)
    aggregates = aggregate_columns(rows.schema, label)
    name = AGGREGATES if aggregates.any() else TREES
    labels = every.labels[plan.stack]
    calibrated, platt = _calibrated(labels, found.margins[plan.stack])
    variants, validation = {name: _model(found, calibrated)}, {name: calibrated.probability(found.margins[plan.stack])}
    if ablate and name == AGGREGATES:
        blind = np.where(aggregates, np.float32(np.nan), every.columns)
        alone = _search(rows.schema, label, blind, every.labels, plan, config, progress, found.configs)
        own, _ = _calibrated(labels, alone.margins[plan.stack])
        variants = {TREES: _model(alone, own), **variants}
        validation = {TREES: own.probability(alone.margins[plan.stack]), **validation}
    network, verdict = _admitted(rows, label, known, plan, found, config, progress)
    chosen = name
    if network is not None:
        joined = replace(
            variants[name],
            gnn_onnx=network.onnx,
            calibration=network.calibration,
            gnn_weights=network.weights,
            deep=config.network == DEEP,
        )
        variants, validation = variants | {NETWORK: joined}, validation | {NETWORK: network.probability}
        gain = metrics(labels, network.probability)["auprc"] > metrics(labels, validation[name])["auprc"]
        verdict = verdict if gain else "kept, as asked" if config.keep_gnn else NO_GAIN
        chosen = NETWORK if gain or config.keep_gnn else name
    figures = {variant: metrics(labels, probability) for variant, probability in validation.items()}
    progress(f"{label}: AUPRC {figures[name]['auprc']:.4f} by trees, {figures[chosen]['auprc']:.4f} by the bundle")
    findings = {
        "gnn": verdict, "chosen": chosen, "folds": "random" if plan.learned is None else "forward",
        "validation": plan.split, "learned_until_ms": plan.learned_until_ms,
        "calibrated": platt or chosen == NETWORK,
        "rows": {part: len(at) for part, at in (("fit", plan.fit), ("stop", plan.stop), ("stack", plan.stack))}
        | {f"{part}_bad": int(every.labels[at].sum())
           for part, at in (("fit", plan.fit), ("stop", plan.stop), ("stack", plan.stack))},
        "settings": {"trees": [asdict(c) for c in found.configs],
                     "gnn": asdict(network.config) if network and chosen == NETWORK else None},
        "network": config.network if chosen == NETWORK else None,
        "search": found.findings, "metrics": figures,
    }  # fmt: skip
    learned = known if plan.learned is None else known[plan.learned]
    return Trained(variants, chosen, learned, known[plan.stack], validation, findings)


def _search(
    schema: Schema, label: str, columns: NDArray[np.float32], labels: NDArray[np.int8], plan: Folds,
    config: TrainConfig, progress: Callable[[str], None], finalists: Sequence[trees.TreesConfig] | None = None,
) -> Found:  # fmt: skip
    search = Search(
        columns, labels, plan.pairs, Categories(schema, label, config.categories), trees.monotone(schema, label),
        config.seed, config.search_seconds, lambda step: progress(f"{label}: {step}"),
    )  # fmt: skip
    return search.run(plan.learned, config.trees_max, finalists)


def _calibrated(labels: NDArray[np.int8], margin: Doubles) -> tuple[Calibration, bool]:
    """The calibration of trees alone, and whether there were bad rows enough to fit it."""
    platt = calibrate.fit(labels, margin) if int(labels.sum()) >= calibrate.PLATT_MIN_POSITIVES else None
    return platt or calibrate.IDENTITY, platt is not None


def _model(found: Found, calibration: Calibration) -> LabelModel:
    onnx = trees.to_onnx(found.forest, len(found.encoding.owner))
    return LabelModel(onnx, found.forest, found.encoding, None, calibration)


def _admitted(
    rows: Rows, label: str, known: NDArray[np.int64], plan: Folds, found: Found, config: TrainConfig,
    progress: Callable[[str], None],
) -> tuple[_Network | None, str]:  # fmt: skip
    """The graph network stacked on the trees' margins, where there can be one, and what to say of it."""
    if label not in GNN_LABELS:
        return None, "none for this label"
    if config.split != "time":
        return None, "none, the rows are not split by time"
    if plan.learned is None or not rows.snapshot.neighbor_mask.any():
        return None, "none, nothing ties rows together"
    fit, stop, stack = (_Part(rows, label, known[part]) for part in (plan.fit, plan.stop, plan.stack))
    if stack.bad < calibrate.STACK_MIN_POSITIVES:
        return None, f"left out, {stack.bad} bad rows to validate where {calibrate.STACK_MIN_POSITIVES} are needed"
    if not own_columns(rows.schema, label):
        return None, "left out, no column of the request is free of constraints"
    earlier, later, margin = fit.snapshot(), stack.snapshot(), found.margins[plan.stack]
    settings_of, network_of = NETWORKS[config.network]
    settings = settings_of.of(rows.schema, label, earlier)
    network = networks.fit(
        lambda: network_of(settings), config.seed, earlier, fit.labels, stop.snapshot(), stop.labels, progress,
        networks.device(config.device),
    )  # fmt: skip
    logit = networks.logits(network, later)
    stacked = calibrate.fit(stack.labels, margin, logit)
    if stacked is None:
        return None, NO_GAIN
    probability = stacked.probability(margin, logit)
    stacked = replace(stacked, gnn_mean=float(networks.logits(network, earlier).mean()))
    example = random_snapshot(rows.schema, EXAMPLE_ROWS, 0, deep=config.network == DEEP)
    weights = weights_of(network) if isinstance(network, GNN) else None
    return _Network(settings, networks.to_onnx(network, example), weights, stacked, probability), "kept"

"""Serving side of a bundle: probabilities and contributions of a batch. Loads neither torch nor a training library.

A Scorer is made only where the bundle's probe comes out as it did when the bundle was written (see probe.py).

Invariant: a row's answer does not depend, in any bit, on the batch it came in. The graph network is built for that
(see gnn.py); the trees' sums run in one order; the rest is elementwise.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as onnx_errors

from features.application import Reason, Snapshot
from features.hops import INPUTS as HOP_INPUTS
from features.schema import Schema
from models.bundle import Bundle, BundleError, LabelModel, ResidualModel
from models.conformal import QUANTILES
from models.device import CPU, Device, Network, open_session
from models.device import TOLERANCE as LOGITS_APART
from models.probe import TOLERANCE, furthest, probe
from models.reasons import feature_reasons, graph_reason
from models.shap import Explainer
from models.walker import Walker

if TYPE_CHECKING:
    from models.device_scorer import DeviceScorer

Fit = TypeVar("Fit")
LABELS = ("fraud", "default")
PART, DEEP_PART = 1024, 128
PROBE_DIGITS = 7
_NAN = np.float32(np.nan)
UNFIT = (  # what onnxruntime raises at a model that it cannot load or run
    onnx_errors.EPFail, onnx_errors.Fail, onnx_errors.InvalidArgument, onnx_errors.InvalidGraph,
    onnx_errors.InvalidProtobuf, onnx_errors.NotImplemented, onnx_errors.RuntimeException, ValueError,
)  # fmt: skip


@dataclass(frozen=True)
class Scores:
    """Calibrated probabilities, float64 [B], 0–1; NaN where the bundle has no model of that label.

    graph: float64 [B] log-odds by the graph network of each label that has one. contributions: float64 [B, m] of the
    columns of each label's trees, where a device has computed them with the probabilities.
    """

    fraud_probability: NDArray[np.float64]
    default_probability: NDArray[np.float64]
    graph: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    contributions: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)

    @staticmethod
    def join(parts: Sequence["Scores"]) -> "Scores":
        """Those of some parts of the rows, in order, by one bundle."""
        graph = {label: np.concatenate([part.graph[label] for part in parts]) for label in parts[0].graph}
        fraud, default = (np.concatenate([getattr(part, f"{label}_probability") for part in parts]) for label in LABELS)
        return Scores(fraud, default, graph)

    def take(self, rows: NDArray[np.int64] | slice) -> "Scores":
        """Those of some of the rows."""
        graph, parts = ({label: a[rows] for label, a in some.items()} for some in (self.graph, self.contributions))
        return Scores(self.fraud_probability[rows], self.default_probability[rows], graph, parts)


class Scorer:
    """Scores and explains snapshots of the bundle's schema. Safe to share between threads.

    models: by label. `deep`: whether one needs snapshots with hops. `there` is the same on `device`, where that is no
    CPU and the schema fits one. Raises BundleError naming the label, or residual_value, whose models this runtime
    cannot run or whose probe it scores otherwise; DeviceError where a device that must be used cannot.
    """

    def __init__(self, bundle: Bundle, device: Device = CPU) -> None:
        self.device, self.deep = device, bundle.deep
        self._schema = bundle.schema
        self.models: dict[str, LabelScorer] = {}
        for label, model in bundle.models.items():
            said = bundle.manifest["labels"][label]["probe"]
            self.models[label] = _fit(bundle, label, partial(_probed, bundle.schema, label, model), said)
        self._residual = None
        if bundle.residual is not None:
            said = bundle.manifest["residual_value"]["probe"]
            probed = partial(_residual_probed, bundle.schema, bundle.residual)
            self._residual = _fit(bundle, "residual_value", probed, said)
        self.there = None if device.index is None else _joined(device, bundle.schema, self.models)

    def score(self, snapshot: Snapshot) -> Scores:
        """The probabilities of B applications."""
        probabilities, graph = {}, {}
        for label, model in self.models.items() if len(snapshot) else ():
            probabilities[label], logit = model.score_with_graph(snapshot)
            if logit is not None:
                graph[label] = logit
        if len(probabilities) < len(LABELS):
            probabilities = dict.fromkeys(LABELS, np.full(len(snapshot), np.nan)) | probabilities
        return Scores(probabilities["fraud"], probabilities["default"], graph)

    def residual_value(self, snapshot: Snapshot) -> NDArray[np.float64]:
        """float64 [B, 3], the QUANTILES of what the cars fetch, in the currency; NaN where that is not known."""
        if self._residual is None or not len(snapshot):
            return np.full((len(snapshot), len(QUANTILES)), np.nan)
        return self._residual.score(snapshot)

    def explain(self, label: str, snapshot: Snapshot) -> NDArray[np.float64]:
        """float64 [B, n]: log-odds that each of `schema.columns(label)` adds to the label's log-odds by the trees.

        With the calibrated bias they sum to the trees' part of the log-odds. Raises KeyError for an unknown label.
        """
        return self.models[label].explain(snapshot)

    def reasons(self, label: str, snapshot: Snapshot, scores: Scores, top: int = 4) -> list[list[Reason]]:
        """For each of B applications and their scores at most `top` reasons that moved the label's log-odds up, the
        strongest first. Raises KeyError for an unknown label.
        """
        model = self.models[label]
        parts = model.explain(snapshot, scores.contributions.get(label))
        found = feature_reasons(self._schema, model.columns, parts, snapshot.features, top, label)
        if label in scores.graph:
            for row, graph in enumerate(model.above_mean(scores.graph[label]).tolist()):
                if graph > 0:
                    found[row].append(graph_reason(self._schema, graph, snapshot, row, label))
                    found[row] = sorted(found[row], key=lambda r: -r.contribution)[:top]
        return found


def probe_scores(schema: Schema, label: str, model: LabelModel) -> list[float]:
    """Probabilities of the probe, for the manifest."""
    _, found = _probed(schema, label, model)
    return [round(float(p), PROBE_DIGITS) for p in found]


def residual_probe(schema: Schema, model: ResidualModel) -> list[list[float]]:
    """Logarithms of the probe's shares by the trees, for the manifest."""
    _, found = _residual_probed(schema, model)
    return [[round(float(number), PROBE_DIGITS) for number in row] for row in found]


def _fit(bundle: Bundle, part: str, probed: Callable[[], tuple[Fit, NDArray[np.float64]]], said: Sequence[Any]) -> Fit:
    """The scorer that `probed` makes, if it says of the probe what the manifest says."""
    try:
        scorer, found = probed()
        apart = furthest(found, said)
    except UNFIT as error:
        raise BundleError(f"bundle {bundle.version}: {part}: cannot be scored here: {error}") from error
    if apart > TOLERANCE:
        raise BundleError(f"bundle {bundle.version}: {part}: the probe differs by {apart:.2g} here")
    return scorer


def _residual_probed(schema: Schema, model: ResidualModel) -> tuple["ResidualScorer", NDArray[np.float64]]:
    scorer = ResidualScorer(model, schema)
    return scorer, scorer.log_shares(scorer.rows(probe(schema)))


def _joined(device: Device, schema: Schema, models: Mapping[str, "LabelScorer"]) -> "DeviceScorer | None":
    """The models on a device; None where that is not there or not for this schema."""
    from models.device_scorer import DeviceScorer, unfit  # with the kernels, which no CPU needs

    if unfit(schema):
        return None
    there = DeviceScorer(schema, models)
    device.join(there)
    return None if device.index is None else there


def _probed(schema: Schema, label: str, model: LabelModel) -> tuple["LabelScorer", NDArray[np.float64]]:
    scorer, rows = LabelScorer(model, schema.columns(label)), probe(schema, deep=model.deep)
    (margin,) = open_session(model.trees_onnx).run(None, {"row": scorer.rows(rows)})
    apart = furthest(scorer.margins(rows), margin[:, 0])
    if apart > TOLERANCE:
        raise ValueError(f"the forest's margins differ by {apart:.2g} from its ONNX")
    if scorer.network is not None:
        given = network_inputs(rows, scorer.network.inputs)
        if not (apart := np.abs(scorer.network.run(given) - scorer.network.by_onnx(given)).max()) <= LOGITS_APART:
            raise ValueError(f"the network's logits differ by {apart:.2g} from its ONNX")
    return scorer, scorer.score(rows)


class LabelScorer:
    """The models of one label. `columns`: those of the schema that they read, int64 [n]."""

    def __init__(self, model: LabelModel, columns: NDArray[np.int64]) -> None:
        self.columns, self.encoding, self.forest = columns, model.encoding, model.forest
        self.calibration, self.deep = model.calibration, model.deep
        self.network = None if model.gnn_onnx is None else Network(model.gnn_onnx, model.gnn_weights)
        self._owner = model.encoding.owner[len(columns) :]
        self._trees = Walker(model.forest, len(model.encoding.owner))

    @cached_property
    def explainer(self) -> Explainer:
        """Made when first asked, which takes a while: on the CPU a challenger explains nothing."""
        return Explainer(self.forest, len(self.encoding.owner))

    def rows(self, snapshot: Snapshot) -> NDArray[np.float32]:
        """float32 [B, m] columns of the trees."""
        return self.encoding(snapshot.features.take(self.columns, axis=1))  # an index would leave it in other order

    def margins(self, snapshot: Snapshot) -> NDArray[np.float64]:
        """float64 [B] log-odds by the trees."""
        return self._trees.margins(self.rows(snapshot))

    def score(self, snapshot: Snapshot) -> NDArray[np.float64]:
        """float64 [B] probabilities."""
        return self.score_with_graph(snapshot)[0]

    def score_with_graph(self, snapshot: Snapshot) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
        """float64 [B] probabilities, and float64 [B] log-odds by the graph network where there is one."""
        trees = self.margins(snapshot)
        if self.network is None:
            return self.calibration.probability(trees), None
        graph = self.network.run(network_inputs(snapshot, self.network.inputs))
        return self.calibration.probability(trees, graph), graph

    def explain(self, snapshot: Snapshot, known: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
        """float64 [B, n] log-odds by `columns`, as `Scorer.explain` says; known: of the trees' columns, [B, m]."""
        parts = self.explainer.contributions(self.rows(snapshot)) if known is None else known.copy()
        own = parts[:, : len(self.columns)]
        for i, owner in enumerate(self._owner):  # a category may stand in two columns; it is one reason
            own[:, owner] += parts[:, len(self.columns) + i]
        return self.calibration.weights[0] * own

    def graph(self, snapshot: Snapshot) -> NDArray[np.float64]:
        """float64 [B] log-odds by the graph network above its mean; 0 without a network or a known mean."""
        logit = self.score_with_graph(snapshot)[1]
        return np.zeros(len(snapshot)) if logit is None else self.above_mean(logit)

    def above_mean(self, logit: NDArray[np.float64]) -> NDArray[np.float64]:
        """As `graph`, of the network's log-odds."""
        mean = self.calibration.gnn_mean
        return np.zeros(len(logit)) if mean is None else self.calibration.weights[1] * (logit - mean)


def network_inputs(snapshot: Snapshot, names: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Contiguous arrays, as onnxruntime takes them, by name: fields of Snapshot, or what its hops give.

    Raises ValueError where a deep network is asked about a snapshot without hops.
    """
    hops = {}
    if not {*names}.isdisjoint(HOP_INPUTS):
        if snapshot.hops is None:
            raise ValueError("the deep network needs a snapshot with two hops")
        hops = snapshot.hops.given()
    return {name: np.ascontiguousarray(hops[name] if name in hops else getattr(snapshot, name)) for name in names}


def in_parts(score: Callable[[Snapshot], NDArray[np.float64]], snapshot: Snapshot) -> NDArray[np.float64]:
    """What `score` says of a snapshot, asked for some rows at a time: a network's memory grows with them."""
    size = PART if snapshot.hops is None else DEEP_PART
    starts = range(0, max(len(snapshot), 1), size)
    return np.concatenate([score(snapshot.take(slice(i, i + size))) for i in starts])


class ResidualScorer:
    """What cars fetch. Rows are float32 [N, n], the features of the schema's residual_value in its order."""

    def __init__(self, model: ResidualModel, schema: Schema) -> None:
        spec = schema.residual_value
        if spec is None:
            raise ValueError(f"{schema.name} has no residual_value")
        names = list(spec.features)
        self._columns = np.array([schema.column[name] for name in names], dtype=np.int64)
        self._kind, self._list_price = names.index(spec.kind), names.index(spec.list_price)
        self._trees = open_session(model.onnx)
        self._conformal, presence = model.conformal, np.array(model.presence)
        self._needed, self._ignored = presence > 0, presence < 0

    def score(self, snapshot: Snapshot) -> NDArray[np.float64]:
        """float64 [B, 3] quantiles in the currency, ascending, NaN where nothing is known."""
        rows = self.rows(snapshot)
        return self.shares(rows) * rows[:, self._list_price, None]

    def rows(self, snapshot: Snapshot) -> NDArray[np.float32]:
        """float32 [B, n] of a snapshot."""
        return snapshot.features.take(self._columns, axis=1)

    def shares(self, rows: NDArray[np.float32]) -> NDArray[np.float64]:
        """float64 [N, 3] quantiles as shares of the list price."""
        missing = np.isnan(rows)
        kind = np.where(missing[:, self._kind], 0, rows[:, self._kind]).astype(np.int64)
        shares = np.exp(self._conformal(self.log_shares(np.where(self._ignored[kind], _NAN, rows)), kind))
        shares[(missing & self._needed[kind]).any(axis=1)] = np.nan
        return shares

    def log_shares(self, rows: NDArray[np.float32]) -> NDArray[np.float64]:
        """float64 [N, 3] logarithms of the shares as the trees alone say."""
        (margins,) = self._trees.run(None, {"row": rows})
        return np.asarray(margins, dtype=np.float64)

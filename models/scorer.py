"""Serving side of a bundle: probabilities and contributions of a batch. Loads neither torch nor a training library.

A Scorer is made only where the bundle's probe comes out as it did when the bundle was written (see probe.py).

Invariant: a row's answer does not depend, in any bit, on the batch it came in. The graph network is built for that
(see gnn.py); the trees' sums run in one order on one thread; the rest is elementwise.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as onnx_errors

from features.application import Reason, Snapshot
from features.schema import Schema
from models.bundle import Bundle, BundleError, LabelModel
from models.probe import TOLERANCE, furthest, probe
from models.reasons import Explainer, feature_reasons, graph_reason

LABELS = ("fraud", "default")
PROBE_DIGITS = 7
UNFIT = (  # what onnxruntime raises at a model that it cannot load or run
    onnx_errors.EPFail, onnx_errors.Fail, onnx_errors.InvalidArgument, onnx_errors.InvalidGraph,
    onnx_errors.InvalidProtobuf, onnx_errors.NotImplemented, onnx_errors.RuntimeException, ValueError,
)  # fmt: skip


@dataclass(frozen=True)
class Scores:
    """Calibrated probabilities, float64 [B], 0–1; NaN where the bundle has no model of that label."""

    fraud_probability: NDArray[np.float64]
    default_probability: NDArray[np.float64]


class Scorer:
    """Scores and explains snapshots of the bundle's schema. Safe to share between threads.

    Raises BundleError naming the label whose models this runtime cannot run or whose probe it scores otherwise.
    """

    def __init__(self, bundle: Bundle) -> None:
        self._schema = bundle.schema
        self._models = {}
        for label, model in bundle.models.items():
            try:
                self._models[label], found = _probed(bundle.schema, label, model)
            except UNFIT as error:
                raise BundleError(f"bundle {bundle.version}: {label}: cannot be scored here: {error}") from error
            apart = furthest(found, bundle.manifest["labels"][label]["probe"])
            if apart > TOLERANCE:
                raise BundleError(f"bundle {bundle.version}: {label}: the probe differs by {apart:.2g} here")

    def score(self, snapshot: Snapshot) -> Scores:
        """The probabilities of B applications."""
        unknown = np.full(len(snapshot), np.nan)
        if not len(snapshot):
            return Scores(unknown, unknown)
        return Scores(*(self._models[la].score(snapshot) if la in self._models else unknown for la in LABELS))

    def explain(self, label: str, snapshot: Snapshot) -> NDArray[np.float64]:
        """float64 [B, n]: log-odds that each of `schema.columns(label)` adds to the label's log-odds by the trees.

        With the calibrated bias they sum to the trees' part of the log-odds. Raises KeyError for an unknown label.
        """
        return self._models[label].explain(snapshot)

    def reasons(self, label: str, snapshot: Snapshot, top: int = 4) -> list[list[Reason]]:
        """For each of B applications at most `top` reasons that moved the label's log-odds up, the strongest first.

        Raises KeyError for an unknown label.
        """
        model = self._models[label]
        found = []
        for row, parts, graph in zip(snapshot.features, model.explain(snapshot), model.graph(snapshot), strict=True):
            some = feature_reasons(self._schema, model.columns, parts, row, top, label)
            if graph > 0:
                some.append(graph_reason(self._schema, float(graph), row, label))
            found.append(sorted(some, key=lambda r: -r.contribution)[:top])
        return found


def probe_scores(schema: Schema, label: str, model: LabelModel) -> list[float]:
    """Probabilities of the probe, for the manifest."""
    _, found = _probed(schema, label, model)
    return [round(float(p), PROBE_DIGITS) for p in found]


def _probed(schema: Schema, label: str, model: LabelModel) -> tuple["_LabelScorer", NDArray[np.float64]]:
    scorer = _LabelScorer(model, schema.columns(label))
    return scorer, scorer.score(probe(schema))


class _LabelScorer:
    def __init__(self, model: LabelModel, columns: NDArray[np.int64]) -> None:
        self.columns = columns
        self._encoding = model.encoding
        self._owner = model.encoding.owner[len(columns) :]
        self._trees = _session(model.trees_onnx)
        self._gnn = None if model.gnn_onnx is None else _session(model.gnn_onnx)
        self._gnn_inputs = [] if self._gnn is None else [i.name for i in self._gnn.get_inputs()]
        self._calibration = model.calibration
        self._forest = model.forest

    @cached_property
    def _explainer(self) -> Explainer:
        """Made when first asked, which takes a while: a challenger explains nothing."""
        return Explainer(self._forest, len(self._encoding.owner))

    def score(self, snapshot: Snapshot) -> NDArray[np.float64]:
        (margin,) = self._trees.run(None, {"row": self._encoding(snapshot.features[:, self.columns])})
        inputs = [margin[:, 0].astype(np.float64)]
        if self._gnn is not None:
            inputs.append(self._logit(self._gnn, snapshot))
        return self._calibration.probability(*inputs)

    def explain(self, snapshot: Snapshot) -> NDArray[np.float64]:
        parts = self._explainer.contributions(self._encoding(snapshot.features[:, self.columns]))
        own = parts[:, : len(self.columns)]
        for i, owner in enumerate(self._owner):  # a category may stand in two columns; it is one reason
            own[:, owner] += parts[:, len(self.columns) + i]
        return self._calibration.weights[0] * own

    def graph(self, snapshot: Snapshot) -> NDArray[np.float64]:
        """float64 [B] log-odds by the graph network above its mean; 0 without a network or a known mean."""
        mean = self._calibration.gnn_mean
        if self._gnn is None or mean is None or not len(snapshot):
            return np.zeros(len(snapshot))
        return self._calibration.weights[1] * (self._logit(self._gnn, snapshot) - mean)

    def _logit(self, gnn: onnxruntime.InferenceSession, snapshot: Snapshot) -> NDArray[np.float64]:
        # onnxruntime takes contiguous arrays only; the names are the fields of Snapshot
        given = {name: np.ascontiguousarray(getattr(snapshot, name)) for name in self._gnn_inputs}
        (logit,) = gnn.run(None, given)
        return np.asarray(logit, dtype=np.float64)


def _session(model: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # the event loop owns the core; a second thread would also reorder sums
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

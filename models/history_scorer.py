"""Scores the snapshots of whole histories: on a CUDA device while that works, else as the service does, on the CPU.

Margins of trees are the CPU's bit for bit; a network's log-odds may differ in their last digits (models.device). The
device is entered with the bundle's probe, and only where it says of it what the CPU says. One that fails costs no
scores: the part that met the failure and all later ones are scored on the CPU, with a warning.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.application import Snapshot
from features.place import HERE, Place
from gpu_kernels.device import Device as Kernels
from gpu_kernels.trees import DeviceTrees
from models.bundle import Bundle, LabelModel
from models.device import TOLERANCE, Device, DeviceError, Network
from models.probe import furthest, probe
from models.scorer import LABELS, PART, Scorer, Scores
from models.shap import Explainer

DEVICE_PART = 4096  # rows scored in one call on a device: a network keeps some 50 kB a row there
Doubles = NDArray[np.float64]


class HistoryScorer:
    """A bundle at a place. Raises BundleError as Scorer does."""

    def __init__(self, bundle: Bundle, place: Place = HERE) -> None:
        self._bundle, self._place, self._here = bundle, place, Scorer(bundle)
        self._there: dict[str, _Label] = {}
        if place.device is None:
            return
        self._networks = Device(place.choice)
        try:
            kernels = place.device
            self._there = {
                label: _Label(model, bundle.schema.columns(label), kernels, self._networks)
                for label, model in bundle.models.items()
            }
            self._try_out()
        except place.failures as error:
            self._leave(error)

    def probability(self, snapshot: Snapshot, label: str) -> NDArray[np.float64]:
        """float64 [N] probabilities of a label."""
        return np.asarray(getattr(self.score(snapshot), f"{label}_probability"))

    def score(self, snapshot: Snapshot) -> Scores:
        """The probabilities of N applications."""
        part = DEVICE_PART if self._there else PART
        parts = [self._part(snapshot.take(slice(i, i + part))) for i in range(0, max(len(snapshot), 1), part)]
        return Scores.join(parts)

    def residual_value(self, snapshot: Snapshot) -> NDArray[np.float64]:
        """As Scorer.residual_value, on the CPU: those trees are ONNX Runtime's."""
        return self._here.residual_value(snapshot)

    def _part(self, snapshot: Snapshot) -> Scores:
        if self._there and len(snapshot):
            try:
                return self._on_device(snapshot)
            except self._place.failures as error:
                self._leave(error)
        return self._here.score(snapshot)

    def _on_device(self, snapshot: Snapshot) -> Scores:
        found, graph = dict.fromkeys(LABELS, np.full(len(snapshot), np.nan)), {}
        for label, model in self._there.items():
            found[label], logit = model.score(snapshot)
            if logit is not None:
                graph[label] = logit
        if not self._networks.working:
            raise DeviceError(self._networks.problem)
        return Scores(found["fraud"], found["default"], graph)

    def _try_out(self) -> None:
        """Raises DeviceError where the device says something else of the probe."""
        rows = probe(self._bundle.schema)
        found, expected = self._on_device(rows), self._here.score(rows)
        for label in self._there:
            apart = furthest(getattr(found, f"{label}_probability"), getattr(expected, f"{label}_probability"))
            if apart > TOLERANCE:
                raise DeviceError(f"device and CPU differ by {apart:.2g} of {label}")

    def _leave(self, error: Exception) -> None:
        self._there = {}
        self._place.lost(error)


class _Label:
    """One label's trees on a device, and its network where `networks` says. columns: of the schema, int64 [n]."""

    def __init__(self, model: LabelModel, columns: NDArray[np.int64], kernels: Kernels, networks: Device) -> None:
        self._model, self._columns, self._kernels = model, columns, kernels
        width = len(model.encoding.owner)
        self._trees = DeviceTrees(kernels, model.forest, Explainer(model.forest, width).tables, width)
        self._network = None if model.gnn_onnx is None else Network(networks, model.gnn_onnx)

    def score(self, snapshot: Snapshot) -> tuple[Doubles, Doubles | None]:
        """As LabelScorer.score_with_graph."""
        rows: Any = self._model.encoding(snapshot.features.take(self._columns, axis=1))
        margins = self._trees.margins(self._kernels.xp.array(rows, order="C"))
        trees = self._kernels.host(margins).astype(np.float64)
        if self._network is None:
            return self._model.calibration.probability(trees), None
        given = {name: np.ascontiguousarray(getattr(snapshot, name)) for name in self._network.inputs}
        graph = self._network.run(given)
        return self._model.calibration.probability(trees, graph), graph

"""Scores the snapshots of whole histories: on a CUDA device while that works, else as the service does, on the CPU.

Margins of trees are the CPU's bit for bit; a network's log-odds may differ in their last digits (models.device_scorer).
One that fails costs no scores: the part that met the failure and all later ones are scored on the CPU, with a warning.
"""

import numpy as np
from numpy.typing import NDArray

from features.application import Snapshot
from features.place import HERE, Place
from gpu_kernels.device import Device as Kernels
from models.bundle import Bundle
from models.device import CPU
from models.device_scorer import DeviceScorer
from models.scorer import DEEP_PART, PART, Scorer, Scores

DEVICE_PART = 4096  # rows scored in one call on a device: a network keeps some 50 kB a row there


class HistoryScorer:
    """A bundle at a place. Raises BundleError as Scorer does."""

    def __init__(self, bundle: Bundle, place: Place = HERE) -> None:
        self._place, self._here = place, Scorer(bundle)
        self._there = DeviceScorer(bundle.schema, self._here.models)
        if place.device is not None:
            try:
                self._there.enter(CPU, place.device)
            except place.failures as error:
                place.lost(error)

    def probability(self, snapshot: Snapshot, label: str) -> NDArray[np.float64]:
        """float64 [N] probabilities of a label."""
        return np.asarray(getattr(self.score(snapshot), f"{label}_probability"))

    def score(self, snapshot: Snapshot) -> Scores:
        """The probabilities of N applications."""
        sizes = (PART, DEVICE_PART) if snapshot.hops is None else (DEEP_PART, PART)
        part = sizes[self._place.device is not None]
        parts = [self._part(snapshot.take(slice(i, i + part))) for i in range(0, max(len(snapshot), 1), part)]
        return Scores.join(parts)

    def residual_value(self, snapshot: Snapshot) -> NDArray[np.float64]:
        """As Scorer.residual_value, on the CPU: those trees are ONNX Runtime's."""
        return self._here.residual_value(snapshot)

    def _part(self, snapshot: Snapshot) -> Scores:
        if self._place.device is not None and len(snapshot):
            try:
                return self._on_device(self._place.device, snapshot)
            except self._place.failures as error:
                self._place.lost(error)
        return self._here.score(snapshot)

    def _on_device(self, kernels: Kernels, snapshot: Snapshot) -> Scores:
        with kernels.deciding():
            asked = self._there.ask_snapshot(snapshot)
            found = kernels.fetch(list(asked.arrays.values()))
        return self._there.scores(asked, dict(zip(asked.arrays, found, strict=True)))

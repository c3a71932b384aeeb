"""Scores applications whose neighbourhood lies on a device: gather, columns, trees and network without a round trip.

The host gives what it alone knows, the columns of request, sources and crosses; the device adds the columns of the
graph, runs the trees and hands its own arrays to the network. Margins and logits come back once, to be calibrated.
On the same network the probabilities equal Scorer's bit for bit.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.neighborhood import NEIGHBOR_COLUMNS
from features.schema import Schema
from features.statistics import ENTITY_STATS, GRAPH_STATS
from gpu_kernels.assemble import LINKS, Assemble
from gpu_kernels.device import Device as Kernels
from gpu_kernels.gather import View
from gpu_kernels.trees import DeviceTrees
from models.bundle import Bundle, LabelModel
from models.device import Device, Network
from models.scorer import LABELS, Scores
from models.shap import Explainer

Rows = NDArray[np.float32]


class DeviceScorer:
    """A bundle on the device `kernels`; `runs_on` says where its networks run, with the CPU behind them.

    Raises ValueError for a schema in which arithmetic reads what the graph counts: the host computes that.
    """

    def __init__(self, bundle: Bundle, kernels: Kernels, runs_on: Device) -> None:
        schema, counted = bundle.schema, counted_columns(bundle.schema)
        at = {column for column, *_ in counted}
        for column, expression in schema.crosses:
            if any(schema.column[name] in at for name in expression.names):
                raise ValueError(f"{schema.features[column].name} is computed from what the graph counts")
        self._kernels, self._schema = kernels, schema
        self._features = Assemble(kernels, counted)
        self._models = {label: _Label(m, schema, label, kernels, runs_on) for label, m in bundle.models.items()}

    def score(self, view: View, features: Rows) -> Scores:
        """The probabilities of B applications: their view, and float32 [B, F] of the schema's features, in which
        nothing need stand where the graph counts.
        """
        unknown = np.full(len(features), np.nan)
        if not len(features):
            return Scores(unknown, unknown)
        xp, schema = self._kernels.xp, self._schema
        slots, columns = schema.slots, len(NEIGHBOR_COLUMNS) + len(schema.record)
        given = {
            "features": self._features.fill(view, xp.array(features, order="C")),
            "entity_state": xp.ascontiguousarray(view.entity_state[:, :slots]),
            "neighbor_state": xp.ascontiguousarray(view.neighbor_state[:, :slots, :, :columns]),
            "neighbor_mask": xp.ascontiguousarray(view.neighbor_mask[:, :slots]).view(np.bool_),
        }
        probabilities, graph = dict.fromkeys(LABELS, unknown), {}
        for label, model in self._models.items():
            probabilities[label], logit = model.score(view, features, given)
            if logit is not None:
                graph[label] = logit
        return Scores(probabilities["fraud"], probabilities["default"], graph)


Logits = NDArray[np.float64]


class _Label:
    def __init__(self, model: LabelModel, schema: Schema, label: str, kernels: Kernels, runs_on: Device) -> None:
        self._kernels, self._model, self._columns = kernels, model, schema.columns(label)
        place = {int(column): i for i, column in enumerate(self._columns)}
        counted = [(place[c], first, last, stat) for c, first, last, stat in counted_columns(schema) if c in place]
        width = len(model.encoding.owner)
        self._rows = Assemble(kernels, counted)
        self._trees = DeviceTrees(kernels, model.forest, Explainer(model.forest, width).tables, width)
        self._gnn = None if model.gnn_onnx is None else Network(runs_on, model.gnn_onnx)

    def score(self, view: View, features: Rows, given: dict[str, Any]) -> tuple[Logits, Logits | None]:
        """As LabelScorer.score_with_graph."""
        # categories are the request's own, so their encoding needs no column of the graph
        rows = self._kernels.xp.array(self._model.encoding(features[:, self._columns]), order="C")
        # this copy waits for the device, so what the network reads on a stream of its own is there
        trees = self._kernels.host(self._trees.margins(self._rows.fill(view, rows))).astype(np.float64)
        if self._gnn is None:
            return self._model.calibration.probability(trees), None
        graph = self._gnn.run({name: given[name] for name in self._gnn.inputs})
        return self._model.calibration.probability(trees, graph), graph


def counted_columns(schema: Schema) -> list[tuple[int, int, int, int]]:
    """Columns of the schema's features that the graph fills, as gpu_kernels.assemble.Assemble takes them."""
    found = []
    for column, feature in enumerate(schema.features):
        if feature.origin == "velocity":
            entity = schema.entities[feature.entity]
            last = entity.first_slot + entity.slots - 1
            found.append((column, entity.first_slot, last, list(ENTITY_STATS).index(feature.stat)))
        elif feature.origin == "graph":
            found.append((column, LINKS, LINKS, list(GRAPH_STATS).index(feature.stat)))
    return found

"""Scores applications whose neighbourhood lies on a device: columns, trees and network without a round trip.

The host gives what it alone knows, the columns of request, sources and crosses; the device adds the columns of the
graph, runs the trees and hands its own arrays to the network, all on one stream. Nothing waits: margins, contributions
and logits are fetched with the view, and the host calibrates them. Margins and contributions equal the host's bit for
bit; a network's logits but for their last digits.
"""

import threading
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from types import MappingProxyType
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from features.application import Snapshot
from features.assemble import count, snapshot
from features.hops import chosen, places
from features.neighborhood import NEIGHBOR_COLUMNS, Neighborhood, empty_view
from features.schema import Schema
from features.statistics import ENTITY_STATS, GRAPH_STATS
from gpu_kernels.assemble import LINKS, Assemble
from gpu_kernels.device import Device as Kernels
from gpu_kernels.gather import View
from gpu_kernels.hops import DeviceHops
from gpu_kernels.trees import DeviceTrees
from models.device import TOLERANCE, Device, DeviceError, Network
from models.probe import probe
from models.scorer import LABELS, LabelScorer, Scores, network_inputs

Rows = NDArray[np.float32]
Key = tuple[str, str]  # label; margins, contributions or graph
_NO_HOPS: Mapping[str, Any] = MappingProxyType({})
_NO_WAIT = onnxruntime.RunOptions()  # what comes next on the stream waits by itself
_NO_WAIT.add_run_config_entry("disable_synchronize_execution_providers", "1")


@dataclass(frozen=True)
class Asked:
    """What the device was asked for of B applications: arrays of it, to be fetched."""

    rows: int
    arrays: Mapping[Key, Any]


class DeviceScorer:
    """The models of a bundle on the device that it entered last, `kernels`. models: those of the host, by label.

    Views need a schema that is not `unfit`; snapshots any.
    """

    def __init__(self, schema: Schema, models: Mapping[str, LabelScorer]) -> None:
        self.kernels: Kernels | None = None
        self._schema, self._models = schema, models
        self._there: dict[str, _Label] = {}
        self._entering = threading.Lock()  # a reload and a retry may meet

    def enter(self, device: Device, kernels: Kernels) -> None:
        """Bring the models to a device. Raises DeviceError where it does not say of the probe what the host says."""
        with self._entering:
            self.kernels = None
            with kernels.beside():
                self._there = {label: _Label(m, self._schema, kernels, device) for label, m in self._models.items()}
                self._features = Assemble(kernels, counted_columns(self._schema))
            with kernels.deciding():
                self._check(kernels)
            self.kernels = kernels

    def ask(self, view: View, features: Rows) -> Asked:
        """Begin to score B applications: their view, and float32 [B, F] of the schema's features, in which nothing need
        stand where the graph counts.
        """
        if self.kernels is None:
            raise DeviceError("the models are not there")
        return self._ask(self.kernels, view, features) if len(features) else Asked(0, {})

    def _ask(self, kernels: Kernels, view: View, features: Rows, hops: Mapping[str, Any] = _NO_HOPS) -> Asked:
        xp, schema = kernels.xp, self._schema
        slots, columns = schema.slots, len(NEIGHBOR_COLUMNS) + len(schema.record)
        given = {
            "features": self._features.fill(view, _brought(kernels, features)),
            "entity_state": xp.ascontiguousarray(view.entity_state[:, :slots]),
            "neighbor_state": xp.ascontiguousarray(view.neighbor_state[:, :slots, :, :columns]),
            "neighbor_mask": xp.ascontiguousarray(view.neighbor_mask[:, :slots]).view(np.bool_),
        }
        given |= hops if view.hops is None else hop_inputs(xp, view.hops, slots, columns)
        arrays: dict[Key, Any] = {}
        for label, model in self._there.items():
            arrays |= {(label, kind): array for kind, array in model.ask(view, features, given).items()}
        return Asked(len(features), arrays)

    def ask_snapshot(self, snapshot: Snapshot) -> Asked:
        """Begin to score B applications that are whole, without contributions."""
        if self.kernels is None:
            raise DeviceError("the models are not there")
        kernels, arrays = self.kernels, dict[Key, Any]()
        given = self._given(kernels, snapshot)
        for label, model in self._there.items():
            arrays |= {(label, kind): array for kind, array in model.ask_rows(snapshot.features, given).items()}
        return Asked(len(snapshot), arrays)

    def _given(self, kernels: Kernels, snapshot: Snapshot) -> dict[str, Any]:
        """What networks read of a snapshot, brought to the device."""
        names = {name for model in self._models.values() if model.network is not None for name in model.network.inputs}
        return {name: _brought(kernels, array) for name, array in network_inputs(snapshot, sorted(names)).items()}

    def scores(self, asked: Asked, fetched: Mapping[Key, NDArray[Any]]) -> Scores:
        """The probabilities, once what was asked for is on the host."""
        probabilities = dict.fromkeys(LABELS, np.full(asked.rows, np.nan))
        graph, contributions = {}, {}
        for label, model in self._models.items() if asked.rows else ():
            given = [fetched[label, "margins"].astype(np.float64)]
            if (label, "graph") in fetched:
                graph[label] = fetched[label, "graph"].astype(np.float64)
                given.append(graph[label])
            probabilities[label] = model.calibration.probability(*given)
            if (label, "contributions") in fetched:
                contributions[label] = fetched[label, "contributions"]
        return Scores(probabilities["fraud"], probabilities["default"], graph, contributions)

    def _check(self, kernels: Kernels) -> None:
        """Raises DeviceError where trees differ from the host's in any bit, or a network by more than TOLERANCE."""
        made = probe(self._schema, deep=any(model.deep for model in self._models.values()))
        rows = np.arange(len(made))
        host, slots, columns = empty_view(len(made), rows), made.entity_state.shape[1], made.neighbor_state.shape[3]
        host.entity_state[:, :slots], host.neighbor_mask[:, :slots] = made.entity_state, made.neighbor_mask
        host.neighbor_state[:, :slots, :, :columns] = made.neighbor_state
        state, links, neighbors = (_brought(kernels, a) for a in host[:3])
        view = View(state, links, neighbors, _brought(kernels, host.neighbor_mask.view(np.uint8)), rows, host.time_ms)
        hops = {} if made.hops is None else {n: _brought(kernels, array) for n, array in made.hops.given().items()}
        asked = self._ask(kernels, view, made.features, hops)
        fetched = dict(zip(asked.arrays, kernels.fetch(list(asked.arrays.values())), strict=True))
        count(self._schema, made.features, host, rows)
        expected = replace(snapshot(self._schema, made.features, made.source_state, host, rows), hops=made.hops)
        for label, model in self._models.items():
            same = np.array_equal(fetched[label, "margins"].astype(np.float64), model.margins(expected))
            parts = model.explainer.contributions(model.rows(expected))
            if not same or not np.array_equal(fetched[label, "contributions"], parts):
                raise DeviceError(f"{label}: device and CPU differ in the trees")
            logit = model.score_with_graph(expected)[1]
            apart = 0.0 if logit is None else np.abs(fetched[label, "graph"] - logit).max(initial=0.0)
            if not apart <= TOLERANCE:
                raise DeviceError(f"device and CPU differ by {apart:.2g}")


def fetched(
    kernels: Kernels, view: View, asked: Mapping[str, Asked]
) -> tuple[Neighborhood, dict[str, dict[Key, NDArray[Any]]]]:
    """A view and what was asked for by name, on the host, with one wait."""
    shown = [f.name for f in fields(view) if f.name not in ("as_of", "time_ms", "hops")]
    places = [(name, key) for name, some in asked.items() for key in some.arrays]
    arrays = [getattr(view, name) for name in shown] + [asked[name].arrays[key] for name, key in places]
    found = kernels.fetch(arrays)
    told: dict[str, dict[Key, NDArray[Any]]] = {name: {} for name in asked}
    for (name, key), array in zip(places, found[len(shown) :], strict=True):
        told[name][key] = array
    of_view: dict[str, Any] = dict(zip(shown, found, strict=False))
    of_view["neighbor_mask"] = of_view["neighbor_mask"].view(np.bool_)
    return Neighborhood(**of_view, as_of=view.as_of, time_ms=view.time_ms), told


def hop_inputs(xp: Any, hops: DeviceHops, slots: int, columns: int) -> dict[str, Any]:
    """As features.hops.Hops.given, arrays of the device: of the applications asked about, by their first `slots`, with
    so many columns of a neighbour. Waits for the device, which alone knows how many there are.
    """
    rows = xp.asarray(hops.rows)
    near, far = chosen(xp, hops.near_count, hops.far_count, rows, slots)
    counts = hops.near_count[rows][:, :slots], hops.far_count[near][:, :slots]
    return {
        "near_state": xp.ascontiguousarray(hops.near_state[near][:, :columns]),
        "far_state": xp.ascontiguousarray(hops.far_state[far][:, :columns]),
        **places(xp, *counts),
    }


class _Label:
    """One label's models on a device."""

    def __init__(self, model: LabelScorer, schema: Schema, kernels: Kernels, device: Device) -> None:
        self._kernels, self._model = kernels, model
        place = {int(column): i for i, column in enumerate(model.columns)}
        counted = [(place[c], first, last, stat) for c, first, last, stat in counted_columns(schema) if c in place]
        self._rows = Assemble(kernels, counted)
        self._trees = DeviceTrees(kernels, model.forest, model.explainer.tables, len(model.encoding.owner))
        self._network = model.network
        self._session = None if model.network is None else device.session(model.network.model, kernels)

    def ask(self, view: View, features: Rows, given: Mapping[str, Any]) -> dict[str, Any]:
        """margins float32 [B], contributions float64 [B, m] by the trees' columns, graph float32 [B] where there is a
        network, of the device.
        """
        # categories are the request's own, so their encoding needs no column of the graph
        rows = self._rows.fill(view, self._encoded(features))
        return self._answers(rows, given) | {"contributions": self._trees.contributions(rows)}

    def ask_rows(self, features: Rows, given: Mapping[str, Any]) -> dict[str, Any]:
        """margins and graph, as `ask`, of whole rows."""
        return self._answers(self._encoded(features), given)

    def _encoded(self, features: Rows) -> Any:
        return _brought(self._kernels, self._model.encoding(features.take(self._model.columns, axis=1)))

    def _answers(self, rows: Any, given: Mapping[str, Any]) -> dict[str, Any]:
        found = {"margins": self._trees.margins(rows)}
        if self._network is not None:
            found["graph"] = _run(self._kernels, self._network, self._session, given)
        return found


def _run(kernels: Kernels, network: Network, session: Any, given: Mapping[str, Any]) -> Any:
    """float32 [B] of a network on arrays of the device, of the device."""
    binding, out = session.io_binding(), kernels.xp.empty(len(given["features"]), dtype=np.float32)
    for name in network.inputs:
        array = given[name]
        at = kernels.address(array)
        binding.bind_input(name, kernels.memory, kernels.index, np.dtype(array.dtype), array.shape, at)
    binding.bind_output(network.output, kernels.memory, kernels.index, np.float32, out.shape, kernels.address(out))
    session.run_with_iobinding(binding, _NO_WAIT)
    return out


def _brought(kernels: Kernels, array: NDArray[Any]) -> Any:
    """A copy on the device."""
    staged = kernels.staging(array.nbytes).view(array.dtype).reshape(array.shape)
    staged[:] = array
    there = kernels.xp.empty(array.shape, dtype=array.dtype)
    kernels.fill(there, staged)
    return there


def unfit(schema: Schema) -> str:
    """Why views of a schema are not scored on a device; empty where they are."""
    at = {column for column, *_ in counted_columns(schema)}
    for column, expression in schema.crosses:
        if any(schema.column[name] in at for name in expression.names):
            return f"{schema.features[column].name} is computed from what the graph counts"
    return ""


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

"""A graph of the host on its way to a device, while it goes on recording.

What is copied while events are recorded may be half of before and half of after them. So in the end, with nothing
recorded meanwhile, whatever these events touched is copied again: their applications, those that they report on, and
the entities of both. Who is forgotten touches more than an event tells: then all is copied again.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from gpu_kernels.device import Device
from gpu_kernels.graph import APPLICATION, FORGOTTEN, DeviceGraph

RECORDS = 1 << 18  # copied at a time: they lie on the device twice


class Kept(Protocol):
    """What features.graph.EntityGraph shows of itself."""

    sequence: int
    last_ms: int

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Records of nodes and applications, of_sequence (application + 1, 0 for none) and totals."""
        ...

    def tokens(self) -> NDArray[np.uint64]:
        """uint64 [nodes]."""
        ...


class Copy:
    """Begun while nothing is recorded."""

    def __init__(self, device: Device, graph: Kept) -> None:
        self._device, self._graph, self._arrays = device, graph, graph.arrays()
        self._tokens, self._sequence = graph.tokens(), graph.sequence

    def take(self) -> DeviceGraph:
        """Copy all that stood there when it was begun, whatever is recorded meanwhile: to be finished."""
        there = DeviceGraph(self._device)
        nodes, applications = len(self._tokens), len(self._arrays["applications"])
        there.reserve(nodes, applications, self._sequence)
        for name in ("nodes", "applications"):
            records = self._arrays[name]
            for start in range(0, len(records), RECORDS):
                some = records[start : start + RECORDS]
                self._put(there, some, slice(start, start + len(some)))
        self._number(there, self._arrays["of_sequence"], 0)
        self._name(there, self._tokens, np.arange(nodes))
        return there

    def finish(self, there: DeviceGraph, since: Sequence[NDArray[np.void]] = ()) -> DeviceGraph:
        """The graph as it is now, which equals the host's from here on. Nothing may be recorded meanwhile.

        since: features.events.EVENT [n], stretches of the log that were recorded since it was begun.
        """
        if any((events["kind"] == FORGOTTEN).any() for events in since):
            return at_once(self._device, self._graph)
        graph, now, known = self._graph, self._graph.arrays(), len(self._tokens)
        rows = now["applications"]
        fresh = np.arange(len(self._arrays["applications"]), len(rows))
        there.reserve(len(now["nodes"]), len(rows), graph.sequence)
        touched = np.union1d(fresh, [row for events in since for row in _reported(events, now["of_sequence"])])
        touched = touched.astype(np.int64)
        named = np.unique(rows["node"][touched])
        for records, places in ((rows, touched), (now["nodes"], named[named >= 0])):
            if len(places):
                self._put(there, records[places], self._device.xp.asarray(places.astype(np.int64)))
        self._number(there, now["of_sequence"], self._sequence + 1)
        there.put("totals", slice(None), self._brought(now["totals"]))
        nodes, first = np.unique(rows["node"][fresh], return_index=True)
        tokens = [events["tokens"][events["kind"] == APPLICATION] for events in since]
        if (nodes >= known).any():
            self._name(there, np.concatenate(tokens).reshape(-1)[first[nodes >= known]], nodes[nodes >= known])
        there.stand(len(now["nodes"]), len(rows), graph.sequence, graph.last_ms)
        return there

    def _put(self, there: DeviceGraph, records: NDArray[np.void], at: Any) -> None:
        """Records as they lie, taken apart on the device."""
        raw, xp = self._brought(records.view(np.uint8).reshape(len(records), -1)), self._device.xp
        for name, (dtype, offset, *_) in (records.dtype.fields or {}).items():
            column = xp.ascontiguousarray(raw[:, offset : offset + dtype.itemsize]).view(dtype.base)
            there.put(name, at, column.reshape(-1, *dtype.shape))

    def _number(self, there: DeviceGraph, of_sequence: NDArray[np.int32], start: int) -> None:
        if start < len(of_sequence):
            numbers = self._brought(of_sequence[start:]) - np.int32(1)
            there.put("of_sequence", slice(start, len(of_sequence)), numbers)

    def _name(self, there: DeviceGraph, tokens: NDArray[np.uint64], nodes: NDArray[np.int64]) -> None:
        if len(tokens):
            there.name(self._brought(tokens), self._brought(nodes.astype(np.int32)))

    def _brought(self, array: NDArray[Any]) -> Any:
        made = self._device.xp.empty(array.shape, dtype=array.dtype)
        self._device.fill(made, np.ascontiguousarray(array))
        return made


def at_once(device: Device, graph: Kept) -> DeviceGraph:
    """A graph of the host on a device, with nothing recorded meanwhile."""
    copy = Copy(device, graph)
    return copy.finish(copy.take())


def _reported(events: NDArray[np.void], of_sequence: NDArray[np.int32]) -> list[int]:
    """The applications that reports are about."""
    subject = events["subject"]
    about = subject[(events["kind"] != APPLICATION) & (subject > 0) & (subject < events["sequence"])]
    rows = of_sequence[about] - 1
    return [int(row) for row in rows[rows >= 0]]

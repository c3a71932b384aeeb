"""Launches gather.cu: the view of each row strictly before it, with nothing copied to the host."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gpu_kernels.apply import RECORD, SLOTS
from gpu_kernels.device import Device
from gpu_kernels.layout import FOLDER
from gpu_kernels.stage import Shapes, Staged

if TYPE_CHECKING:
    from gpu_kernels.hops import DeviceHops

RING, FANOUT, ENTITY, GRAPH, NEIGHBOR = 16, 8, 22, 6, 7 + RECORD


@dataclass(frozen=True)
class View:
    """What was known strictly before each of B applications; the first four are arrays of the device.

    entity_state: float32 [B, 16, 22], NaN where nothing; graph_state: float32 [B, 6]; neighbor_state: float32
    [B, 16, 8, 15], newest first; neighbor_mask: uint8 [B, 16, 8]; as_of, time_ms: int64 [B] on the host; hops where the
    graph was asked for them. As features.neighborhood.Neighborhood.
    """

    entity_state: Any
    graph_state: Any
    neighbor_state: Any
    neighbor_mask: Any
    as_of: NDArray[np.int64]
    time_ms: NDArray[np.int64]
    hops: "DeviceHops | None" = None

    @classmethod
    def empty(cls, xp: Any, as_of: NDArray[np.int64], time_ms: NDArray[np.int64]) -> "View":
        """To be filled in."""
        rows = len(as_of)
        return cls(
            xp.full((rows, SLOTS, ENTITY), np.nan, dtype=np.float32), xp.zeros((rows, GRAPH), dtype=np.float32),
            xp.zeros((rows, SLOTS, FANOUT, NEIGHBOR), dtype=np.float32),
            xp.zeros((rows, SLOTS, FANOUT), dtype=np.uint8), as_of, time_ms,
        )  # fmt: skip

    def take(self, xp: Any, rows: NDArray[np.int64]) -> "View":
        """Of some of the rows, int64 [n]."""
        there = xp.asarray(rows)
        return View(
            self.entity_state[there], self.graph_state[there], self.neighbor_state[there], self.neighbor_mask[there],
            self.as_of[rows], self.time_ms[rows], None if self.hops is None else self.hops.take(rows),
        )  # fmt: skip

    def rows(self, part: slice) -> dict[str, Any]:
        """The device's arrays for some rows, by field of Batch."""
        names = ("entity_state", "graph_state", "neighbor_state", "neighbor_mask")
        return {name: getattr(self, name)[part] for name in names}


def scratch(rows: int) -> Shapes:
    """What gather.cu needs beside the batch's own arrays."""
    recent = (np.int32, (rows, SLOTS, RING))
    return {
        "row_node": (np.int32, (rows, SLOTS)), "recent": recent, "linked": recent,
        "link_count": (np.int32, (rows, GRAPH)),
    }  # fmt: skip


@dataclass(frozen=True)
class Gather:
    """The kernels of gather.cu on a device. state, batch: structs of graph.cuh."""

    launch: Any

    @classmethod
    def on(cls, device: Device) -> "Gather":
        """Compiled for the device."""
        return cls(device.kernels(FOLDER / "gather.cu"))

    def neighbors(self, state: int, batch: Staged, rows: int) -> None:
        """What needs rings and labels as they were before the batch."""
        self.launch("prepare_rows", rows * SLOTS, state, batch.address)
        self.launch("neighbors", rows * SLOTS * RING, state, batch.address)
        self.launch("recents", rows * SLOTS, state, batch.address)
        self.launch("count_links", rows * SLOTS * RING, state, batch.address)
        self.launch("finish_links", rows, state, batch.address)

    def counters(self, state: int, batch: Staged, rows: int) -> None:
        """The counters of rows that are no events of the batch."""
        self.launch("counters", rows * SLOTS, state, batch.address)

    def outcomes(self, state: int, batch: Staged, rows: int) -> None:
        """What needs the batch's chain of totals."""
        self.launch("outcomes", rows * SLOTS, state, batch.address)

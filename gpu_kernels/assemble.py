"""Launches assemble.cu: the columns of entities and links, from a view that never leaves the device."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from gpu_kernels.apply import SLOTS
from gpu_kernels.device import Device
from gpu_kernels.gather import ENTITY, GRAPH, View
from gpu_kernels.layout import FOLDER, Struct
from gpu_kernels.stage import stage

_COLUMNS, _FILLED = (Struct.read(FOLDER / "assemble.cu", name) for name in ("Columns", "Filled"))
LINKS = -1  # as first slot: a statistic of links


class Assemble:
    """Fills `columns` of rows: (column, first slot or LINKS, last slot inclusive, statistic) each."""

    def __init__(self, device: Device, columns: Sequence[tuple[int, int, int, int]]) -> None:
        table = np.array(columns, dtype=np.int32).reshape(-1, 4)
        names = ("column", "first_slot", "last_slot", "stat")
        given = {name: np.ascontiguousarray(table[:, i]) for i, name in enumerate(names)}
        integers = {"columns": len(table), "entity_stats": ENTITY, "graph_stats": GRAPH, "slots": SLOTS}
        self._columns, self._count, self._device = stage(device, _COLUMNS, integers, given, {}, {}), len(table), device
        self._launch = device.kernels(FOLDER / "assemble.cu")

    def fill(self, view: View, rows: Any) -> Any:
        """`rows`, float32 [B, n] on the device, with the columns written into it."""
        given = {"entity_state": view.entity_state, "graph_state": view.graph_state, "row": rows}
        filled = stage(self._device, _FILLED, {"rows": len(rows), "width": rows.shape[1]}, {}, {}, given)
        self._launch("fill", len(rows) * self._count, self._columns.address, filled.address)
        return rows

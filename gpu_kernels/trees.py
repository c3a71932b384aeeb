"""Launches trees.cu: margins and contributions of rows that lie on the device."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu_kernels.device import Device
from gpu_kernels.layout import FOLDER, Struct
from gpu_kernels.stage import stage

_FOREST, _ROWS = (Struct.read(FOLDER / "trees.cu", name) for name in ("Forest", "Rows"))
_NODES = ("left", "right", "feature", "threshold", "value")
Forest = Any  # models.shap.Forest: trees as flat arrays over all nodes; models stands above this layer


class DeviceTrees:
    """A forest and its tables of contributions (models.shap.Explainer.tables) on a device."""

    def __init__(self, device: Device, forest: Forest, tables: Mapping[str, NDArray[Any]], columns: int) -> None:
        blocks = len(tables["split_at"]) - 1
        width = np.diff(tables["columns_at"])
        column, block = tables["column"], np.repeat(np.arange(blocks), width)
        place = np.arange(len(column)) - np.repeat(tables["columns_at"][:-1], width)
        order = np.argsort(column, kind="stable")  # of one column the blocks stay in order
        given = {
            "root": forest.roots, "default_left": forest.default_left, "base": np.array([forest.base], np.float32),
            **{name: getattr(forest, name) for name in _NODES}, "width": width, "entry_block": block[order],
            "entry_place": place[order], "entry_at": np.searchsorted(column[order], np.arange(columns + 1)),
            **{name: tables[name] for name in ("split_at", "split", "table_at", "table")},
        }  # fmt: skip
        integers = {"trees": len(forest.roots), "blocks": blocks, "columns": columns}
        typed = {name: np.ascontiguousarray(a, dtype=_FOREST.fields[name]) for name, a in given.items()}
        self._forest = stage(device, _FOREST, integers, typed, {}, {})
        self._sizes, self._device = integers, device
        self._launch = device.kernels(FOLDER / "trees.cu")

    def margins(self, rows: Any) -> Any:
        """float32 [B] log-odds, on the device, of its rows float32 [B, n]."""
        leaf, margin = (np.float32, (self._sizes["trees"], len(rows))), (np.float32, (len(rows),))
        given = self._rows(rows, {"leaf": leaf, "margin": margin})
        self._launch("find_leaf", self._sizes["trees"] * len(rows), self._forest.address, given.address)
        self._launch("add_leaves", len(rows), self._forest.address, given.address)
        return given.array("margin")

    def contributions(self, rows: Any) -> Any:
        """float64 [B, columns] log-odds that each column adds, on the device, of its rows float32 [B, n]."""
        answer = (np.int32, (self._sizes["blocks"], len(rows)))
        given = self._rows(rows, {"answer": answer, "contribution": (np.float64, (len(rows), self._sizes["columns"]))})
        self._launch("ask_splits", self._sizes["blocks"] * len(rows), self._forest.address, given.address)
        self._launch("contribute", self._sizes["columns"] * len(rows), self._forest.address, given.address)
        return given.array("contribution")

    def _rows(self, rows: Any, scratch: Mapping[str, Any]) -> Any:
        return stage(self._device, _ROWS, {"rows": len(rows), "width": rows.shape[1]}, {}, scratch, {"row": rows})

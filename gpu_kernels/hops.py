"""Launches hops.cu: two hops around each row, as features.hops, in ragged lists that lie on the device.

Their lengths are asked for twice a batch, as memory is taken for what there is and not for what there could be.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu_kernels.apply import SLOTS
from gpu_kernels.device import Device
from gpu_kernels.gather import NEIGHBOR
from gpu_kernels.layout import FOLDER, Struct
from gpu_kernels.stage import Staged

NEAR, FAR = 32, 4
_HOPS = Struct.read(FOLDER / "hops.cu", "Hops")
_OF_ROWS = ("row_application", "row_masked", "row_event", "row_time")
_OF_REPORTS = ("report_event", "report_head", "label_after")


@dataclass(frozen=True)
class DeviceHops:
    """What B applications see at two hops; arrays of the device, near ones by row, by slot, newest first, far ones by
    the near one, by its slot, newest first.

    near_count: uint8 [B, 16]; near: int32 [M], number of the application; near_code: uint8 [M], flags from bit 0 on, as
    features.hops.Hops; near_state: float32 [M, 15]. far_count: uint8 [M, 16]; far: int32 [N]; far_code: uint8 [N];
    far_state: float32 [N, 15]. rows: int64 [n] on the host, which of the B are asked about.
    """

    near_count: Any
    near: Any
    near_code: Any
    near_state: Any
    far_count: Any
    far: Any
    far_code: Any
    far_state: Any
    rows: NDArray[np.int64]

    def take(self, rows: NDArray[np.int64]) -> "DeviceHops":
        """Asked about some of the rows; nothing is moved before the lists are used."""
        return replace(self, rows=self.rows[rows])

    @staticmethod
    def join(xp: Any, parts: "Sequence[DeviceHops]") -> "DeviceHops":
        """Those of some stretches of the log, in order."""
        if len(parts) == 1:
            return parts[0]
        names = [f.name for f in fields(DeviceHops) if f.name != "rows"]
        joined = {name: xp.concatenate([getattr(part, name) for part in (nothing(xp), *parts)]) for name in names}
        return DeviceHops(**joined, rows=np.arange(len(joined["near_count"])))


def nothing(xp: Any) -> DeviceHops:
    """Of no application."""
    count, item = xp.empty((0, SLOTS), dtype=np.uint8), xp.empty(0, dtype=np.int32)
    code, state = xp.empty(0, dtype=np.uint8), xp.empty((0, NEIGHBOR), dtype=np.float32)
    return DeviceHops(count, item, code, state, count, item, code, state, np.arange(0))


@dataclass(frozen=True)
class HopGather:
    """The kernels of hops.cu on a device. state: struct of graph.cuh."""

    device: Device
    launch: Any

    @classmethod
    def on(cls, device: Device) -> "HopGather":
        """Compiled for the device."""
        return cls(device, device.kernels(FOLDER / "hops.cu"))

    def gather(self, state: int, batch: Staged, rows: int, reports: int, masked: bool) -> DeviceHops:
        """The hops of `rows` rows of a batch with so many reports, after Apply.move and before Apply.commit. masked: of
        applications of before, without their own marks. Waits for the device twice.
        """
        xp = self.device.xp
        given = {name: batch.array(name) for name in (*_OF_ROWS, *(_OF_REPORTS if reports else ()))}
        known: dict[str, Any] = {"near_count": xp.empty((rows, SLOTS), dtype=np.uint8)}
        self._launch("count_near", rows * SLOTS, state, masked, given, known)
        near = self._summed("near", known)
        known |= {"near": self._empty(np.int32, near), "near_row": self._empty(np.int32, near)}
        known |= {"near_code": self._empty(np.uint8, near), "near_state": self._empty(np.float32, near, NEIGHBOR)}
        known["far_count"] = self._empty(np.uint8, near, SLOTS)
        self._launch("fill_near", rows * SLOTS, state, masked, given, known)
        self._launch("count_far", near * SLOTS, state, masked, given, known)
        far = self._summed("far", known)
        known |= {"far": self._empty(np.int32, far), "far_near": self._empty(np.int32, far)}
        known |= {"far_code": self._empty(np.uint8, far), "far_state": self._empty(np.float32, far, NEIGHBOR)}
        self._launch("fill_far", near * SLOTS, state, masked, given, known)
        self._launch("describe_near", near, state, masked, given, known)
        self._launch("describe_far", far, state, masked, given, known)
        kept = {f.name: known[f.name] for f in fields(DeviceHops) if f.name != "rows"}
        return DeviceHops(**kept, rows=np.arange(rows))

    def _summed(self, name: str, known: dict[str, Any]) -> int:
        """How many there are; the running sum of their counts becomes known."""
        ends = self.device.xp.cumsum(known[f"{name}_count"].reshape(-1), dtype=np.int32)
        known[f"{name}_end"] = ends
        return int(self.device.host(ends[-1:])[0]) if len(ends) else 0

    def _empty(self, dtype: Any, *shape: int) -> Any:
        return self.device.xp.empty(shape, dtype=dtype)

    def _launch(
        self, kernel: str, threads: int, state: int, masked: bool, given: Mapping[str, Any], known: Mapping[str, Any]
    ) -> None:
        words = self.device.xp.asarray(_HOPS.words({"masked": int(masked), **given, **known}, self.device.address))
        self.launch(kernel, threads, state, self.device.address(words))

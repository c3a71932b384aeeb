"""Launches apply.cu: the order of its kernels, and the sorts and running sums between them.

`begin` records the applications and numbers new entities, and works out what reports make of labels; then gather may
look; `finish` moves rings, counters and labels on. Sorted keys carry their own place, so no sort moves a second array.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from gpu_kernels.device import Device
from gpu_kernels.layout import FOLDER
from gpu_kernels.stage import Shapes, Staged

SLOTS, RECORD, TOTALS = 16, 8, 5


def scratch(applications: int, reports: int) -> Shapes:
    """What apply.cu needs beside the batch's own arrays."""
    uses, changes = (applications, SLOTS), (reports, SLOTS)
    return {
        "at": (np.int32, uses), "fresh": (np.int32, uses), "rank": (np.int32, uses), "app_node": (np.int32, uses),
        "use_key": (np.uint64, uses), "report_application": (np.int32, (reports,)),
        "label_before": (np.int8, (reports, 2)), "label_after": (np.int8, (reports, 2)),
        "label_key": (np.uint64, changes), "chain_key": (np.uint64, changes),
        "count_before": (np.int32, (*changes, 2, 2)), "count_after": (np.int32, (*changes, 2, 2)),
        "totals_after": (np.float64, (reports * SLOTS, 2, TOTALS)), "totals_new": (np.float64, (SLOTS, 2, TOTALS)),
    }  # fmt: skip


@dataclass(frozen=True)
class Apply:
    """The kernels of apply.cu on a device. state, batch: structs of graph.cuh."""

    device: Device
    launch: Any

    @classmethod
    def on(cls, device: Device) -> "Apply":
        """Compiled for the device."""
        return cls(device, device.kernels(FOLDER / "apply.cu"))

    def begin(self, state: int, batch: Staged, applications: int, reports: int) -> None:
        """Record n applications and settle r reports; rings, counters and known labels stay as before the batch."""
        uses, xp = applications * SLOTS, self.device.xp
        if applications:
            self.launch("resolve", uses, state, batch.address)
            self.launch("mark_first", uses, state, batch.address)
            rank = batch.array("rank").reshape(-1)
            xp.cumsum(batch.array("fresh").reshape(-1), out=rank, dtype=rank.dtype)
            self.launch("number", uses, state, batch.address)
            self.launch("record", uses, state, batch.address)
            batch.array("use_key").reshape(-1).sort()
        self.launch("relabel", reports, state, batch.address)

    def move(self, state: int, batch: Staged, applications: int, reports: int) -> None:
        """Rings, counters and counts of labels move on, the own rows' counters written as each comes."""
        self.launch("use", applications * SLOTS, state, batch.address)
        if reports:
            self.launch("touch", reports * SLOTS, state, batch.address)
            batch.array("label_key").reshape(-1).sort()
            self.launch("count_labels", reports * SLOTS, state, batch.address)
            batch.array("chain_key").reshape(-1).sort()
            self.launch("chain", 2 * SLOTS, state, batch.address)

    def commit(self, state: int, batch: Staged, reports: int) -> None:
        """Labels, totals and sizes move on: after this nothing of before the batch is left."""
        self.launch("commit", max(reports, 2 * SLOTS * TOTALS), state, batch.address)

    def rehash(self, state: int, batch: Staged, places: int) -> None:
        """Put the keys of a former, smaller hash (`use_key`, `at`) into the state's."""
        self.launch("rehash", places, state, batch.address)

    def uses_of(self, state: int, batch: Staged) -> int:
        """Uses of the entity of the batch's first token. Waits for the device."""
        self.launch("uses_of", 1, state, batch.address)
        return int(self.device.host(batch.array("at")).flat[0])

    def forget(self, state: int, batch: Staged) -> None:
        """Empty slots of an applicant's applications (apply.cu says where it is told which)."""
        self.launch("forget", 1, state, batch.address)

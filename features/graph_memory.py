"""Where the graph's arrays live: one record an entity and one an application, so that what is counted together lies
together, in memory that grows without being copied.

A graph waits for memory as long as it takes to fetch it, not as many arrays as there are; and a graph of ten million
entities doubles by moving page tables (mremap), not bytes. Pages that nobody has touched cost nothing.
"""

import mmap
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.graph_kernels import NODE, PLACE, RING, ROW, State
from features.schema import SLOTS_MAX

ROOM = (1 << 17, 1 << 14, 1 << 15)  # nodes, applications and events that an empty graph has place for
IDLE = 2  # places of an old hash that is none: of fewer the arrays would be of another type, compiled for itself
_MIN_BYTES = 1 << 21  # of one huge page


class Rows:
    """`room` zeroed records of a dtype; `huge`: in huge pages, for what is filled from its beginning on."""

    def __init__(self, dtype: np.dtype[Any], room: int, huge: bool = True) -> None:
        self._dtype, self._huge = dtype, huge
        self.array: NDArray[Any] = np.empty(0, dtype=dtype)
        self._memory = self._map(room)
        self._show(room)

    def forget(self, first: int, end: int) -> None:
        """Give back the memory of records that nobody needs, nor any before them, as far as they fill pages."""
        size, page = self._dtype.itemsize, mmap.PAGESIZE
        start, stop = first * size // page * page, end * size // page * page
        if stop > start:
            self._memory.madvise(mmap.MADV_DONTNEED, start, stop - start)

    def __len__(self) -> int:
        return len(self.array)

    def grow(self, room: int) -> None:
        """Make room for more. Whoever still holds `array` or a view of it makes this copy instead of move."""
        before, self.array = self.array, np.empty(0, dtype=self._dtype)
        used = len(before)
        try:
            del before
            self._memory.resize(self._bytes(room))
        except (BufferError, OSError, SystemError, ValueError):
            old = np.frombuffer(self._memory, dtype=self._dtype, count=used)
            self._memory = self._map(room)
            np.frombuffer(self._memory, dtype=self._dtype, count=used)[:] = old
        else:
            self._advise()
        self._show(room)

    def _map(self, room: int) -> mmap.mmap:
        self._memory = mmap.mmap(-1, self._bytes(room), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._advise()
        return self._memory

    def _advise(self) -> None:
        if self._huge and len(self._memory) > _MIN_BYTES and hasattr(mmap, "MADV_HUGEPAGE"):
            self._memory.madvise(mmap.MADV_HUGEPAGE)

    def _bytes(self, room: int) -> int:
        return max(room * self._dtype.itemsize, mmap.PAGESIZE)

    def _show(self, room: int) -> None:
        self.array = np.frombuffer(self._memory, dtype=self._dtype, count=room)


class GraphMemory:
    """The memory of one graph. The hash has at least twice as many places as there is room for nodes."""

    def __init__(self) -> None:
        self._sizes, self._given_back = np.array([0, 0, IDLE]), 0
        self._totals = np.zeros((SLOTS_MAX, 2, 5), dtype=np.float64)
        self._work, self._sums = np.zeros((7, SLOTS_MAX * RING), dtype=np.int64), np.zeros(5, dtype=np.float64)
        nodes, applications, events = ROOM
        self._nodes, self._rows = Rows(NODE, nodes), Rows(ROW, applications)
        self._sequences = Rows(np.dtype(np.int32), events)
        self._hash, self._old_hash = Rows(PLACE, 2 * nodes, huge=False), Rows(PLACE, IDLE)

    @property
    def moving(self) -> bool:
        """Whether an outgrown hash still holds what the present one does not."""
        return bool(self._sizes[2] < len(self._old_hash))

    def fits(self, nodes: int, applications: int, sequences: int) -> bool:
        """Whether there is room for so many."""
        room, rows = len(self._nodes.array), len(self._rows.array)
        return nodes <= room and applications <= rows and sequences <= len(self._sequences.array)

    def grow(self, nodes: int, applications: int, sequences: int) -> None:
        """Double what is too small for so many. The old hash must have moved, and no State of here may be held."""
        for rows, need in ((self._nodes, nodes), (self._rows, applications), (self._sequences, sequences)):
            if len(rows) < need:
                rows.grow(_doubled(len(rows), need))
        if len(self._hash) < 2 * len(self._nodes):
            # its pages are touched at random: large ones would all be fetched, and zeroed, at once, which suits a start
            before, self._hash = self._hash, Rows(PLACE, 2 * len(self._nodes), huge=not self._sizes[0])
            if self._sizes[0]:
                self._old_hash = before
                self._sizes[2] = self._given_back = 0

    def moved(self, state: State) -> State:
        """The state without the old hash, where all of that has moved; else without the memory of what has: to give
        all back at once would take as long as to fetch it.
        """
        if self.moving:
            self._old_hash.forget(self._given_back, int(self._sizes[2]))
            self._given_back = int(self._sizes[2])
            return state
        if len(self._old_hash) == IDLE:
            return state
        self._old_hash, self._sizes[2] = Rows(PLACE, IDLE), IDLE
        return self.state()

    def used(self, sequence: int) -> dict[str, NDArray[Any]]:
        """All but the hash, as far as it is in use; `sequence`: the number of the last event."""
        nodes, rows = self._sizes[:2].tolist()
        of_sequence = self._sequences.array[: sequence + 1]
        return {
            "nodes": self._nodes.array[:nodes], "applications": self._rows.array[:rows], "of_sequence": of_sequence,
            "totals": self._totals,
        }  # fmt: skip

    def state(self) -> State:
        """The arrays for the compiled functions."""
        names = {"of_sequence": self._sequences.array, "sizes": self._sizes, "totals": self._totals}
        names |= {"work": self._work, "sums": self._sums}
        for records in (self._nodes.array, self._rows.array, self._hash.array):
            names |= {name: records[name] for name in records.dtype.names or ()}
        return State(old_key=self._old_hash.array["key"], old_place=self._old_hash.array["place"], **names)


def _doubled(room: int, need: int) -> int:
    while room < need:
        room *= 2
    return room

"""Two hops around an application: up to NEAR applications of each of its entities, and up to FAR before each of these.

What the deep graph network looks at. Applications are only ever appended and each keeps where each of its entities was
used before it (`State.previous`), so what was most recent as of any application is walked at any later time, without
more memory than the graph has. A near application is looked at as of its own time (after TGAT, Xu et al. 2020); results
are those known strictly before the application that asks. Whatever is forgotten or masked is as if it had never come.
The lists are ragged: most entities are new, so dense arrays would hold little but padding.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from features.neighborhood import NEIGHBOR_COLUMNS

NEAR, FAR = 32, 4  # most recent applications of an entity: before the application, and before each of these
HOUR_MS = 3_600_000.0
INPUTS = ("near_state", "near_place", "far_state", "far_slot", "far_place")  # what `Hops.given` makes
_FLAGS = slice(2, 7)  # of NEIGHBOR_COLUMNS: same applicant, and the results, a bit each of a code


class Hops(NamedTuple):
    """What B applications see at two hops. Near ones stand by application, by slot, newest first; far ones by the near
    one, by its slot, newest first.

    near_count: uint8 [B, E]; near: int32 [M], place in the table; near_code: uint8 [M], the flags of NEIGHBOR_COLUMNS
    from bit 0 on. far_count: uint8 [M, E]; far: int32 [N]; far_code: uint8 [N]. now_ms: int64 [B], when asked.
    The table, of the A applications that occur: application: int64 [A], their number in the log from 0; time_ms: int64
    [A]; amount: float32 [A]; record: float32 [A, R].
    """

    near_count: NDArray[np.uint8]
    near: NDArray[np.int32]
    near_code: NDArray[np.uint8]
    far_count: NDArray[np.uint8]
    far: NDArray[np.int32]
    far_code: NDArray[np.uint8]
    now_ms: NDArray[np.int64]
    application: NDArray[np.int64]
    time_ms: NDArray[np.int64]
    amount: NDArray[np.float32]
    record: NDArray[np.float32]

    def take(self, rows: NDArray[np.int64] | slice, slots: int | None = None) -> "Hops":
        """Those of some of the applications; `slots`: of the first so many slots alone. The table stays."""
        at = np.arange(len(self.near_count))[rows]
        near, far = chosen(np, self.near_count, self.far_count, at, slots)
        return self._replace(
            near_count=self.near_count[at, :slots], near=self.near[near], near_code=self.near_code[near],
            far_count=self.far_count[near, :slots], far=self.far[far], far_code=self.far_code[far],
            now_ms=self.now_ms[at],
        )  # fmt: skip

    def of(self, rows: NDArray[np.int64], slots: int, record: int) -> "Hops":
        """Those of applications of one schema, of so many slots and columns of a record."""
        return self.take(rows, slots)._replace(record=self.record[:, :record])

    def without(self, emptied: NDArray[np.uint64], by_application: NDArray[np.uint64]) -> "Hops":
        """Without what is seen by slots that are empty, a bit each: uint64 [B] of the applications that see, and by
        number of those that are seen.
        """
        slots = np.arange(self.near_count.shape[1], dtype=np.uint64)
        near_count, far_count = self.near_count.copy(), self.far_count.copy()
        near_count[emptied[:, None] >> slots & np.uint64(1) == 1] = 0
        far_count[by_application[self.application[self.near]][:, None] >> slots & np.uint64(1) == 1] = 0
        near = np.repeat(near_count.ravel() > 0, self.near_count.ravel())
        far_count[~near] = 0
        far = np.repeat(far_count.ravel() > 0, self.far_count.ravel())
        return self._replace(
            near_count=near_count, near=self.near[near], near_code=self.near_code[near], far_count=far_count[near],
            far=self.far[far], far_code=self.far_code[far],
        )  # fmt: skip

    def given(self) -> dict[str, NDArray[Any]]:
        """INPUTS of the network: near_state, float32 [M, 7 + R], and far_state, float32 [N, 7 + R], NEIGHBOR_COLUMNS
        and the record, a far one's gap counted from the near one; and what `places` says of them.
        """
        asked = np.repeat(self.now_ms, self.near_count.sum(1, dtype=np.int64))
        seen = np.repeat(self.time_ms[self.near], self.far_count.sum(1, dtype=np.int64))
        return {
            "near_state": self._state(self.near, self.near_code, asked),
            "far_state": self._state(self.far, self.far_code, seen),
            **places(np, self.near_count, self.far_count),
        }

    def _state(self, at: NDArray[np.int32], code: NDArray[np.uint8], now_ms: NDArray[np.int64]) -> NDArray[np.float32]:
        state = np.empty((len(at), len(NEIGHBOR_COLUMNS) + self.record.shape[1]), dtype=np.float32)
        state[:, 0] = (now_ms - self.time_ms[at]) / HOUR_MS
        state[:, 1] = self.amount[at]
        state[:, _FLAGS] = code[:, None] >> np.arange(_FLAGS.stop - _FLAGS.start, dtype=np.uint8) & 1
        state[:, _FLAGS.stop :] = self.record[at]
        return state

    @staticmethod
    def join(parts: "Sequence[Hops]") -> "Hops":
        """The applications of some, in order."""
        if len(parts) == 1:
            return parts[0]
        first = np.cumsum([0, *(len(part.time_ms) for part in parts)])
        moved = [
            part._replace(near=part.near + np.int32(at), far=part.far + np.int32(at))
            for part, at in zip(parts, first, strict=False)
        ]
        columns: Any = zip(*moved, strict=True)
        return Hops(*(np.concatenate(column) for column in columns))

    @classmethod
    def none(cls, rows: int, slots: int, record: int) -> "Hops":
        """Of so many applications that see nothing, in E slots, with R columns of a record."""
        nothing, code = np.empty(0, dtype=np.int32), np.empty(0, dtype=np.uint8)
        return cls(
            np.zeros((rows, slots), np.uint8), nothing, code, np.zeros((0, slots), np.uint8), nothing, code,
            np.zeros(rows, np.int64), np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32),
            np.empty((0, record), np.float32),
        )  # fmt: skip


def chosen(xp: Any, near_count: Any, far_count: Any, rows: Any, slots: int | None = None) -> tuple[Any, Any]:
    """int64: which of the M near and which of the N far applications those of `rows`, int64 [n], see by their first
    `slots`. xp: numpy or cupy, whose arrays they are.
    """
    width = near_count.shape[1]
    asked = xp.arange(width if slots is None else slots)
    near = _picked(xp, near_count.ravel(), (xp.asarray(rows)[:, None] * width + asked).ravel())
    return near, _picked(xp, far_count.ravel(), (near[:, None] * width + asked).ravel())


def places(xp: Any, near_count: Any, far_count: Any) -> dict[str, Any]:
    """Where the network finds what belongs together: near_place, int64 [B, E, NEAR], the near applications of each
    entity, -1 where there is none; far_place, int64 [M, E * FAR], the far ones of each near one; far_slot, int64 [N].
    """
    slots = near_count.shape[1]
    ends = xp.cumsum(far_count.ravel().astype(np.int64))
    group = xp.searchsorted(ends, xp.arange(int(ends[-1]) if len(ends) else 0), side="right")
    near = _padded(xp, near_count.ravel(), NEAR).reshape(-1, slots, NEAR)
    return {
        "near_place": near, "far_place": _padded(xp, far_count.sum(1, dtype=np.int64), slots * FAR),
        "far_slot": (group % slots).astype(np.int64),
    }  # fmt: skip


def _padded(xp: Any, counts: Any, most: int) -> Any:
    """int64 [G, most]: the places of each of G groups that stand one after the other, -1 behind them."""
    counts = counts.astype(np.int64)
    first, step = xp.cumsum(counts) - counts, xp.arange(most)
    return xp.where(step < counts[:, None], first[:, None] + step, -1)


def _picked(xp: Any, counts: Any, groups: Any) -> Any:
    """int64 [n]: the places of some groups of items that stand one after the other, group by group."""
    counts = counts.astype(np.int64)
    first, some = xp.cumsum(counts) - counts, counts[groups]
    ends = xp.cumsum(some)
    at = xp.arange(int(ends[-1]) if len(ends) else 0)
    which = xp.searchsorted(ends, at, side="right")
    return at - (ends - some)[which] + first[groups][which]

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
from numba import njit
from numpy.typing import NDArray

from features.events import APPLICATION, FORGOTTEN, LABEL_UNKNOWN, settle
from features.neighborhood import NEIGHBOR_COLUMNS
from features.schema import SLOTS_MAX

NEAR, FAR = 32, 4  # most recent applications of an entity: before the application, and before each of these
HOUR_MS = 3_600_000.0
INPUTS = ("near_state", "near_place", "far_state", "far_slot", "far_place")  # what `Hops.given` makes
_FLAGS = slice(2, 7)  # of NEIGHBOR_COLUMNS: same applicant, and the results, a bit each of a code

# see features.graph_kernels; compiled functions that share inlined parts stand in one file here too
_whole = njit(cache=True, nogil=True, error_model="numpy", _nrt=False)  # type: ignore[call-overload]
_part = njit(inline="always", error_model="numpy", _nrt=False)  # type: ignore[call-overload]


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


def labels_before(state: Any, fields: NDArray[np.void]) -> NDArray[np.int8]:
    """int8 [n, 2]: the labels of what each of EVENT [n] reports on, before any of them is recorded."""
    label = np.full((len(fields), 2), LABEL_UNKNOWN, dtype=np.int8)
    _remember(state, fields, label)
    return label


def gather(
    state: Any, fields: NDArray[np.void], own: NDArray[np.int64], before: NDArray[np.int8], now_ms: NDArray[np.int64]
) -> Hops:
    """What each own application, int64 [B] sequence numbers, saw strictly before it, after EVENT [n] were recorded of
    which none but the first forgets. before: what `labels_before` said of them. now_ms: int64 [B].
    """
    applications = state.of_sequence[own].astype(np.int64) - 1
    found = _room(state, applications, False)
    _fill_in_order(state, fields, own, applications, before, *found)
    return _compact(state, found, now_ms)


def review(state: Any, applications: NDArray[np.int64], now_ms: NDArray[np.int64]) -> Hops:
    """What applications, int64 [B], recorded before, would see now, each with its own marks masked out."""
    found = _room(state, applications, True)
    _fill_now(state, applications, *found)
    return _compact(state, found, now_ms)


def _room(state: Any, applications: NDArray[np.int64], masked: bool) -> tuple[NDArray[Any], ...]:
    """near_count, and arrays for near, near_code, far_count, far and far_code."""
    near_count = np.zeros((len(applications), SLOTS_MAX), dtype=np.uint8)
    near, far = _count(state, applications, masked, near_count)
    return (
        near_count, np.empty(near, np.int32), np.empty(near, np.uint8), np.zeros((near, SLOTS_MAX), np.uint8),
        np.empty(far, np.int32), np.empty(far, np.uint8),
    )  # fmt: skip


def _compact(state: Any, found: tuple[NDArray[Any], ...], now_ms: NDArray[np.int64]) -> Hops:
    near_count, near, near_code, far_count, far, far_code = found
    occurs = np.zeros(state.sizes[1], dtype=np.bool_)
    occurs[near] = occurs[far] = True
    which, place = np.flatnonzero(occurs), np.empty(len(occurs), dtype=np.int32)
    place[which] = np.arange(len(which))
    return Hops(
        near_count, place[near], near_code, far_count, place[far], far_code, now_ms,
        which, state.time_ms[which], state.amount[which].astype(np.float32), state.record[which],
    )  # fmt: skip


@_part
def _use_before(s, place, n):  # type: ignore[no-untyped-def]
    """int: the place of node `n`'s use before the one at `place`, -1 where that was its first (which names place 0)."""
    earlier = np.int64(s.previous[place // SLOTS_MAX, place % SLOTS_MAX])
    if earlier >= place or s.node[earlier // SLOTS_MAX, earlier % SLOTS_MAX] != n:
        earlier = np.int64(-1)
    return earlier


@_part
def _latest(s, a, e, masked):  # type: ignore[no-untyped-def]
    """int: where the walk over the uses of application `a`'s entity in slot `e` begins: before it or, with it `masked`,
    at the last; -1 for none.
    """
    n, place = s.node[a, e], np.int64(-1)
    if n >= 0:
        place = np.int64(s.newest[n]) if masked else _use_before(s, a * SLOTS_MAX + e, n)
    return place


@_part
def _far(s, a, j, f, out, at):  # type: ignore[no-untyped-def]
    """int: how many of the uses before application `j` of its entity in slot `f` count; from `at` on into `out`, int32,
    where there is room. Application `a` is left out.
    """
    found, place = 0, _latest(s, j, f, False)
    while place >= 0 and found < FAR:
        k = place // SLOTS_MAX
        if k != j and k != a:
            if at + found < len(out):
                out[at + found] = k
            found += 1
        place = _use_before(s, place, s.node[j, f])
    return found


@_whole
def _count(s, applications, masked, near_count):  # type: ignore[no-untyped-def]
    """(M, N), and near_count written."""
    near, far, nowhere = 0, 0, s.of_sequence[:0]
    for row in range(len(applications)):
        a = applications[row]
        for e in range(SLOTS_MAX if a >= 0 else 0):
            found, place = 0, _latest(s, a, e, masked)
            while place >= 0 and found < NEAR:
                j = place // SLOTS_MAX
                if j != a:
                    found += 1
                    for f in range(SLOTS_MAX):
                        far += _far(s, a, j, f, nowhere, 0)
                place = _use_before(s, place, s.node[a, e])
            near_count[row, e] = found
            near += found
    return near, far


@_part
def _code(s, applicant, j):  # type: ignore[no-untyped-def]
    """uint8: whether application `j` is of the node `applicant`, and what is known of it, a bit each."""
    code = 1 if s.node[j, 0] == applicant else 0
    for which in range(2):
        code |= (s.label[j, which] == 1) << (1 + 2 * which) | (s.label[j, which] == 0) << (2 + 2 * which)
    return code


@_part
def _fill(s, a, masked, m, n, near, near_code, far_count, far, far_code):  # type: ignore[no-untyped-def]
    """(m, n) after application `a`, whose near ones go to place `m` and on, far ones to `n` and on."""
    for e in range(SLOTS_MAX if a >= 0 else 0):
        found, place = 0, _latest(s, a, e, masked)
        while place >= 0 and found < NEAR:
            j = place // SLOTS_MAX
            if j != a:
                found += 1
                near[m] = j
                near_code[m] = _code(s, s.node[a, 0], j)
                for f in range(SLOTS_MAX):
                    some = _far(s, a, j, f, far, n)
                    far_count[m, f] = some
                    for i in range(n, n + some):
                        far_code[i] = _code(s, s.node[a, 0], far[i])
                    n += some
                m += 1
            place = _use_before(s, place, s.node[a, e])
    return m, n


@_part
def _reported(s, event):  # type: ignore[no-untyped-def]
    """int: the application that an event reports on, -1 for none."""
    a = -1
    if event["kind"] != APPLICATION and event["kind"] != FORGOTTEN and 0 < event["subject"] < event["sequence"]:
        a = s.of_sequence[event["subject"]] - 1
    return a


@_whole
def _remember(s, events, label):  # type: ignore[no-untyped-def]
    for i in range(len(events)):
        a = _reported(s, events[i])
        for which in range(2 if a >= 0 else 0):
            label[i, which] = s.label[a, which]


@_whole
def _fill_in_order(  # type: ignore[no-untyped-def]
    s, events, own, applications, before, near_count, near, near_code, far_count, far, far_code
):
    """The labels go back to what they were and come again, so each row sees those of before it."""
    for i in range(len(events)):
        a = _reported(s, events[i])
        for which in range(2 if a >= 0 else 0):
            s.label[a, which] = before[i, which]
    row, m, n = 0, 0, 0
    for i in range(len(events)):
        event = events[i]
        if row < len(own) and event["sequence"] == own[row]:
            m, n = _fill(s, applications[row], False, m, n, near, near_code, far_count, far, far_code)
            row += 1
        a = _reported(s, event)
        if a >= 0:
            s.label[a, 0] = settle(s.label[a, 0], event["fraud"])
            s.label[a, 1] = settle(s.label[a, 1], event["default"])


@_whole
def _fill_now(s, applications, near_count, near, near_code, far_count, far, far_code):  # type: ignore[no-untyped-def]
    m, n = 0, 0
    for row in range(len(applications)):
        m, n = _fill(s, applications[row], True, m, n, near, near_code, far_count, far, far_code)

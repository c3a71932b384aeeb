"""Walks the graph for hops: compiled functions that read a State (features.graph_kernels), and what calls them.

They stand in a file of their own, with all that they share: numba's cache does not see a change in another. The labels
of a State go back to what they were and come again while a batch is walked, so that each row sees those of before it.
"""

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from features.events import APPLICATION, FORGOTTEN, LABEL_UNKNOWN, settle
from features.hops import FAR, NEAR, Hops
from features.schema import SLOTS_MAX

# see features.graph_kernels
_whole = njit(cache=True, nogil=True, error_model="numpy", _nrt=False)  # type: ignore[call-overload]
_part = njit(inline="always", error_model="numpy", _nrt=False)  # type: ignore[call-overload]


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

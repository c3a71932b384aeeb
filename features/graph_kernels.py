"""The graph's arrays and the compiled functions that walk them: over events, and for each own one a row of a view.

All of it stands in this file: numba's cache sees neither a change of a compiled function in another file nor one in the
order of the arrays. EntityGraph (features.graph) says what the columns mean and keeps the log's order.
"""

from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray

from features.events import APPLICATION, FORGOTTEN, LABEL_UNKNOWN, settle
from features.neighborhood import FANOUT
from features.schema import RECORD_MAX, SLOTS_MAX

# Numba counts references to every array of a State wherever one is looked at, which costs more than all else here.
# The caller holds them, so what allocates nothing does without, and is written into its caller.
_whole = njit(cache=True, nogil=True, error_model="numpy", _nrt=False)  # type: ignore[call-overload]
_part = njit(inline="always", error_model="numpy", _nrt=False)  # type: ignore[call-overload]
_allocating = njit(cache=True, nogil=True, error_model="numpy", _nrt=True)  # type: ignore[call-overload]
RING = 16  # most recent applications of an entity that count
KEPT = RING + 1  # one more is kept, so that with one masked there are still RING
BUCKETS = 6
HOUR_MS = 3_600_000.0
WIDTHS_MS = np.array([1, 24, 168, 720], dtype=np.int64) * 3_600_000 // BUCKETS
SPREAD_MIN = 1e-6  # variance of amounts over their squared mean
RATE_PRIOR, RATE_WEIGHT = 0.5, 10.0  # smoothed rate = (bad + 0.5) / (labelled + 10)
KNOWN_MIN, BAD_MIN = 20, 5  # entities with results, second results, bad ones: with less, the prior is the rate's
WEIGHT_RANGE = (2.0, 1000.0)  # results that an estimated prior may count for


# What is kept of an entity: four cache lines that are fetched together.
NODE = np.dtype(
    [
        ("first_ms", "i8", 2), ("amount_sum", "f8", 2), ("amount_max", "f8", 2), ("uses", "i4"), ("newest", "i4"),
        ("slot", "i1"), ("bucket_epoch", "i4", 4), ("label_count", "i4", (2, 2)), ("ring", "i4", KEPT),
        ("bucket", "i4", (4, BUCKETS)),
    ],
    align=True,
)  # fmt: skip
# What is kept of an application; what its neighbours look at stands in the first line.
ROW = np.dtype(
    [
        ("time_ms", "i8"), ("amount", "f8"), ("record", "f4", RECORD_MAX), ("label", "i1", 2),
        ("node", "i4", SLOTS_MAX), ("previous", "i4", SLOTS_MAX), ("schema", "u8"),
    ],
    align=True,
)  # fmt: skip
MOVED = 4 * SLOTS_MAX  # places of an outgrown hash that move with an event: all have before the next is outgrown
PLACE = np.dtype([("key", "u8"), ("place", "i4")], align=True)


class State(NamedTuple):
    """The arrays, most of them columns of NODE [N], ROW [A] and PLACE [H]; Q sequence numbers.

    While a hash moves into a larger one, a token is in the new one, or in the old one as well or alone.
    """

    sizes: NDArray[np.int64]  # [3] nodes, applications, and how many places of the old hash have moved
    key: NDArray[np.uint64]  # [H], 0 empty
    place: NDArray[np.int32]  # [H] node
    old_key: NDArray[np.uint64]  # [H / 2], or [2] and empty where all have moved
    old_place: NDArray[np.int32]
    uses: NDArray[np.int32]  # [N] applications of the entity
    first_ms: NDArray[np.int64]  # [N, 2] of the first and second application
    amount_sum: NDArray[np.float64]  # [N, 2] of amounts and of their squares
    amount_max: NDArray[np.float64]  # [N, 2] the largest and the second largest
    bucket: NDArray[np.int32]  # [N, 4, BUCKETS]
    bucket_epoch: NDArray[np.int32]  # [N, 4] number of the newest bucket
    label_count: NDArray[np.int32]  # [N, 2, 2] fraud/default, good/bad
    ring: NDArray[np.int32]  # [N, KEPT] applications
    slot: NDArray[np.int8]  # [N] in which the entity was first seen
    newest: NDArray[np.int32]  # [N] place of the entity's last use: application * SLOTS_MAX + slot
    totals: NDArray[np.float64]  # [SLOTS_MAX, 2, 5] over a slot's entities with n results, b bad: Σ 1, n, b, n², b²/n
    time_ms: NDArray[np.int64]  # [A]
    amount: NDArray[np.float64]  # [A]
    schema: NDArray[np.uint64]  # [A] fingerprint
    node: NDArray[np.int32]  # [A, SLOTS_MAX], -1 absent
    previous: NDArray[np.int32]  # [A, SLOTS_MAX] place of the entity's use before this one; its first has none
    record: NDArray[np.float32]  # [A, RECORD_MAX]
    label: NDArray[np.int8]  # [A, 2] fraud/default
    of_sequence: NDArray[np.int32]  # [Q] application + 1, 0 for other events
    work: NDArray[
        np.int64
    ]  # [7, SLOTS_MAX * RING] to be written over: nodes, epochs (2), recent, whose, linked, shared
    sums: NDArray[np.float64]  # [5] to be written over


def _fetcher(lines: int):  # type: ignore[no-untyped-def]
    """A function of (array, at) that begins to load so many cache lines from array[at] on: they are needed soon."""

    item: Any = cgutils.get_item_pointer
    function: Any = cgutils.get_or_insert_function

    @intrinsic
    def fetch(typing, array, at):  # type: ignore[no-untyped-def]
        def generate(context, builder, signature, given):  # type: ignore[no-untyped-def]
            held = context.make_array(signature.args[0])(context, builder, given[0])
            pointer = item(context, builder, signature.args[0], held, [given[1]], wraparound=False)
            first, number = builder.bitcast(pointer, cgutils.voidptr_t), ir.IntType(32)
            kind = ir.FunctionType(ir.VoidType(), [cgutils.voidptr_t, number, number, number])
            into = function(builder.module, kind, "llvm.prefetch.p0")
            for line in range(lines):
                there = builder.gep(first, [ir.Constant(ir.IntType(64), 64 * line)])
                builder.call(into, [there, *(ir.Constant(number, n) for n in (0, 3, 1))])  # to read, keep, as data
            return context.get_dummy_value()

        return types.void(array, types.intp), generate

    return fetch


_fetch_entity, _fetch_line = _fetcher(4), _fetcher(1)


@_part
def _place(key, token):  # type: ignore[no-untyped-def]
    """int: where a token is looked for first."""
    return ((token * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(32)) * np.uint64(len(key)) >> np.uint64(32)


@_part
def _find(key, token):  # type: ignore[no-untyped-def]
    """int: where `token` is in the hash, or the empty place where it would go. Linear probing, power-of-two size.

    Places follow the order of the hashed tokens, so a hash moves into a larger one from its beginning to its end.
    """
    at = _place(key, token)
    while key[at] != 0 and key[at] != token:
        at = (at + np.uint64(1)) & np.uint64(len(key) - 1)
    return at


@_part
def _node_of(s, token):  # type: ignore[no-untyped-def]
    """int: the node of a token, -1 where it has none; 0 is no token."""
    at = _find(s.key, token)
    if s.key[at] == token and token != 0:
        return s.place[at]
    if s.sizes[2] < len(s.old_key):
        at = _find(s.old_key, token)
        if s.old_key[at] == token and token != 0:
            return s.old_place[at]
    return np.int32(-1)


@_part
def _put(key, place, token, node):  # type: ignore[no-untyped-def]
    at = _find(key, token)
    key[at] = token
    place[at] = node


@_whole
def move(s, places):  # type: ignore[no-untyped-def]
    """Put what the next so many places of the old hash hold into the new one, and go on to an empty place: nothing
    behind it was looked for before it, so the memory of what has moved may go.
    """
    i = s.sizes[2]
    end = i + places
    while i < len(s.old_key) and (i < end or s.old_key[i - 1] != 0):
        if s.old_key[i] != 0:
            _put(s.key, s.place, s.old_key[i], s.old_place[i])
        i += 1
    s.sizes[2] = i


@_whole
def index(key, place, tokens):  # type: ignore[no-untyped-def]
    """Put tokens, uint64 [nodes], into an empty hash."""
    for n in range(len(tokens)):
        if n + 16 < len(tokens):
            _fetch_line(key, _place(key, tokens[n + 16]))
        _put(key, place, tokens[n], n)


@_whole
def follow(events, sequence, own):  # type: ignore[no-untyped-def]
    """bool: whether EVENT [n] continue a log after `sequence`, and int64 [B] `own` are some of them, ascending."""
    at = 0
    for i in range(len(events)):
        if events[i]["sequence"] != sequence + 1 + i:
            return False
        if at < len(own) and own[at] == sequence + 1 + i:
            at += 1
    return at == len(own)


@_whole
def walk(  # type: ignore[no-untyped-def]
    s, events, time_ms, own, links, entity_state, graph_state, neighbor_state, neighbor_mask, view_ms
):
    move(s, MOVED * len(events))
    nodes, epochs = s.work[0], s.work[1:3]
    row, none = np.int64(0), np.int64(-1)  # as literals each would have `gather` compiled again
    for i in range(len(events)):
        event = events[i]
        is_own = row < len(own) and event["sequence"] == own[row]
        _ahead(s, events, i)
        if event["kind"] == APPLICATION:
            _entities(s, event["tokens"], nodes)
            if is_own:
                gather(s, row, nodes, time_ms[i], event["amount"], none, links,
                        entity_state, graph_state, neighbor_state, neighbor_mask)  # fmt: skip
            _epochs(time_ms[i], epochs)
            _record(s, event, nodes, time_ms[i], epochs)
        elif event["kind"] == FORGOTTEN:
            _forget(s, event["tokens"][0], event["tokens"][1], event["schema"])
        elif 0 < event["subject"] < event["sequence"] and s.of_sequence[event["subject"]] > 0:
            _relabel(s, s.of_sequence[event["subject"]] - 1, 0, event["fraud"])
            _relabel(s, s.of_sequence[event["subject"]] - 1, 1, event["default"])
        if is_own:
            view_ms[row] = time_ms[i]
            row += 1


@_part
def _entities(s, tokens, nodes):  # type: ignore[no-untyped-def]
    """Write the node of each token, which a new one gets, -1 where there is none."""
    for e in range(SLOTS_MAX):
        nodes[e] = -1
        if tokens[e] != 0:
            nodes[e] = _node_of(s, tokens[e])
            if nodes[e] < 0:
                nodes[e] = s.sizes[0]
                _put(s.key, s.place, tokens[e], nodes[e])
                s.sizes[0] += 1
            if s.uses[nodes[e]] == 0:
                s.slot[nodes[e]] = e


@_part
def _ahead(s, events, i):  # type: ignore[no-untyped-def]
    """Fetch what the events after event `i` are likely to look at: places of the hash, then the entities there."""
    if i + 2 < len(events) and events[i + 2]["kind"] == APPLICATION:
        for e in range(SLOTS_MAX):
            _fetch_line(s.key, _place(s.key, events[i + 2]["tokens"][e]))
    if i + 1 < len(events) and events[i + 1]["kind"] == APPLICATION:
        for e in range(SLOTS_MAX):
            at = _place(s.key, events[i + 1]["tokens"][e])
            if s.key[at] != 0:
                _fetch_entity(s.uses, s.place[at])


@_part
def _epochs(time_ms, out):  # type: ignore[no-untyped-def]
    """int64 [2, 4]: the number of the bucket of each window at a time, and where in its ring it stands."""
    for w in range(4):
        out[0, w] = time_ms // WIDTHS_MS[w]
        out[1, w] = out[0, w] % BUCKETS


@_part
def _record(s, event, nodes, time_ms, epochs):  # type: ignore[no-untyped-def]
    """Append an application to the arrays, and count it at each of its entities."""
    a = s.sizes[1]
    s.sizes[1] += 1
    s.of_sequence[event["sequence"]] = a + 1
    s.time_ms[a] = time_ms
    s.amount[a] = event["amount"]
    s.schema[a] = event["schema"]
    for r in range(RECORD_MAX):
        s.record[a, r] = event["record"][r]
    s.label[a, 0] = s.label[a, 1] = LABEL_UNKNOWN
    for e in range(SLOTS_MAX):
        s.node[a, e] = nodes[e]
        if nodes[e] >= 0:
            _use(s, nodes[e], a, e, epochs)


@_part
def _use(s, n, a, e, epochs):  # type: ignore[no-untyped-def]
    """Add application `a`, of the time of `epochs`, which names node `n` in slot `e`, to its ring, sums and buckets."""
    time_ms, amount, uses = s.time_ms[a], s.amount[a], s.uses[n]
    if uses < 2:
        s.first_ms[n, uses] = time_ms
    s.previous[a, e] = s.newest[n]
    s.newest[n] = a * SLOTS_MAX + e
    s.ring[n, uses % KEPT] = a
    s.uses[n] = uses + 1
    s.amount_sum[n, 0] += amount
    s.amount_sum[n, 1] += amount * amount
    if amount > s.amount_max[n, 0]:
        s.amount_max[n, 0], s.amount_max[n, 1] = amount, s.amount_max[n, 0]
    elif amount > s.amount_max[n, 1]:
        s.amount_max[n, 1] = amount
    for w in range(4):
        spot = epochs[1, w]
        if uses > 0:  # else all are empty
            for _ in range(min(epochs[0, w] - s.bucket_epoch[n, w], BUCKETS)):
                s.bucket[n, w, spot] = 0
                spot = spot - 1 if spot > 0 else BUCKETS - 1
        s.bucket_epoch[n, w] = epochs[0, w]
        s.bucket[n, w, epochs[1, w]] += 1


@_allocating
def _forget(s, applicant, slots, schema):  # type: ignore[no-untyped-def]
    """Empty `slots`, a bit each, of the applicant's applications of one schema or (0) of all, and count again."""
    n = _node_of(s, applicant)
    if n < 0:
        return
    named = np.empty(s.uses[n] * SLOTS_MAX, dtype=np.int32)
    found, use = 0, s.newest[n]
    for _ in range(s.uses[n]):
        a, own_slot = use // SLOTS_MAX, use % SLOTS_MAX
        use = s.previous[a, own_slot]
        if own_slot != 0 or (schema != 0 and s.schema[a] != schema):
            continue
        for e in range(SLOTS_MAX):
            if s.node[a, e] >= 0 and (slots >> np.uint64(e)) & np.uint64(1):
                named[found] = s.node[a, e]
                s.node[a, e] = -1
                found += 1
    for node in np.unique(named[:found]):
        _count_again(s, node)


@_allocating
def _count_again(s, n):  # type: ignore[no-untyped-def]
    """Make node `n` what it would be, had only the applications that still name it come."""
    places, left, use = np.empty(s.uses[n], dtype=np.int32), 0, s.newest[n]
    for _ in range(s.uses[n]):
        a, e = use // SLOTS_MAX, use % SLOTS_MAX
        if s.node[a, e] == n:
            places[left] = use
            left += 1
        use = s.previous[a, e]
    s.uses[n] = s.newest[n] = 0
    s.first_ms[n], s.amount_sum[n], s.amount_max[n] = 0, 0.0, 0.0
    s.bucket[n], s.bucket_epoch[n], s.ring[n] = 0, 0, 0
    for which in range(2):
        counts = s.label_count[n, which]
        _total(s.totals[s.slot[n], which], counts[1], counts[0] + counts[1], -1.0)
        counts[:] = 0
    if left > 0:
        s.slot[n] = places[left - 1] % SLOTS_MAX
    epochs = np.empty((2, 4), dtype=np.int64)
    for i in range(left - 1, -1, -1):
        a = places[i] // SLOTS_MAX
        _epochs(s.time_ms[a], epochs)
        _use(s, n, a, places[i] % SLOTS_MAX, epochs)
        for which in range(2):
            _count_label(s, n, which, s.label[a, which], 1)


@_part
def _relabel(s, a, which, reported):  # type: ignore[no-untyped-def]
    """Set one label of application `a`; what it counted before is taken back."""
    value = settle(s.label[a, which], reported)
    if value == s.label[a, which]:
        return
    for e in range(SLOTS_MAX):
        n = s.node[a, e]
        if n >= 0:
            _count_label(s, n, which, s.label[a, which], -1)
            _count_label(s, n, which, value, 1)
    s.label[a, which] = value


@_part
def _count_label(s, n, which, value, by):  # type: ignore[no-untyped-def]
    """Count `by` (1 or -1) results `value` of node `n`, in its own counts and in its slot's totals; none if unknown."""
    if value >= 0:
        counts, totals = s.label_count[n, which], s.totals[s.slot[n], which]
        _total(totals, counts[1], counts[0] + counts[1], -1.0)
        counts[value] += by
        _total(totals, counts[1], counts[0] + counts[1], 1.0)


@_part
def _total(totals, bad, results, by):  # type: ignore[no-untyped-def]
    """Put an entity into the totals of its slot (`by` 1) or take it out (-1)."""
    if results > 0:
        totals[0] += by
        totals[1] += by * results
        totals[2] += by * bad
        totals[3] += by * results * results
        totals[4] += by * bad * bad / results


@_part
def _recent(s, n, masked, out):  # type: ignore[no-untyped-def]
    """int: how many of node `n`'s latest applications, newest first and without `masked`, went into int32 [RING]."""
    found = 0
    for j in range(1, min(s.uses[n], KEPT) + 1):
        a = s.ring[n, (s.uses[n] - j) % KEPT]
        if a != masked and found < RING:
            out[found] = a
            found += 1
    return found


@_whole
def gather(  # type: ignore[no-untyped-def]
    s, row, nodes, now_ms, amount, masked, links, entity_state, graph_state, neighbor_state, neighbor_mask
):
    """Write one row of a Neighborhood; application `masked` (-1: none) is left out as if it had never come."""
    recent, linked, shared = s.work[3], s.work[5], s.work[6]
    n_linked = 0
    for e in range(SLOTS_MAX):
        if nodes[e] >= 0:
            for j in range(min(s.uses[nodes[e]], KEPT)):
                _fetch_line(s.time_ms, s.ring[nodes[e], j])
    for e in range(SLOTS_MAX):
        n = nodes[e]
        if n < 0:
            continue
        found = _recent(s, n, masked, recent)
        _entity(s, n, now_ms, amount, masked, recent[:found], nodes[0], entity_state[row, e])
        for k in range(found):
            a = recent[k]
            same = s.node[a, 0] == nodes[0]
            if k < FANOUT:
                _neighbor(s, a, now_ms, same, neighbor_state[row, e, k])
                neighbor_mask[row, e, k] = True
            if links[row, e] and not same:
                at = 0
                while at < n_linked and linked[at] != a:
                    at += 1
                if at == n_linked:
                    linked[at] = a
                    shared[at] = 0
                    n_linked += 1
                shared[at] += 1
    _links(s, linked[:n_linked], shared[:n_linked], now_ms, graph_state[row])


@_part
def _neighbor(s, a, now_ms, same, out):  # type: ignore[no-untyped-def]
    """float32 [15]: NEIGHBOR_COLUMNS and the record of application `a`."""
    out[0] = (now_ms - s.time_ms[a]) / HOUR_MS
    out[1] = s.amount[a]
    out[2] = 1.0 if same else 0.0
    for which in range(2):
        out[3 + 2 * which] = 1.0 if s.label[a, which] == 1 else 0.0
        out[4 + 2 * which] = 1.0 if s.label[a, which] == 0 else 0.0
    for r in range(RECORD_MAX):
        out[7 + r] = s.record[a, r]


@_part
def _entity(s, n, now_ms, amount, masked, recent, applicant, out):  # type: ignore[no-untyped-def]
    """float32 [len(ENTITY_STATS)] of node `n`, in the order of ENTITY_STATS."""
    count, total, squares, largest = s.uses[n], s.amount_sum[n, 0], s.amount_sum[n, 1], s.amount_max[n, 0]
    if masked >= 0:
        count -= 1
        total -= s.amount[masked]
        squares -= s.amount[masked] * s.amount[masked]
        if s.amount[masked] == largest:
            largest = s.amount_max[n, 1]
    for w in range(4):
        now_epoch = now_ms // WIDTHS_MS[w]
        newest = s.bucket_epoch[n, w]
        inside = 0
        for epoch in range(max(newest, now_epoch) - BUCKETS + 1, newest + 1):
            inside += s.bucket[n, w, epoch % BUCKETS]
        if masked >= 0 and s.time_ms[masked] // WIDTHS_MS[w] > max(newest, now_epoch) - BUCKETS:
            inside -= 1
        out[w] = inside
    out[4] = count
    labelled, bad, applicants, others = 0, 0, 0, 0
    for j in range(len(recent)):
        a = recent[j]
        if s.label[a, 0] >= 0:
            labelled += 1
            bad += s.label[a, 0]
        new = True
        for i in range(j):
            new = new and s.node[recent[i], 0] != s.node[a, 0]
        applicants += new
        others += new and s.node[a, 0] != applicant
    out[6] = 0.0
    if len(recent):
        last = recent[0]
        masked_first = masked >= 0 and s.time_ms[masked] == s.first_ms[n, 0]
        out[6] = (now_ms - s.first_ms[n, 1 if masked_first else 0]) / HOUR_MS / 24.0
        out[5] = (now_ms - s.time_ms[last]) / HOUR_MS
        out[7] = total / count
        if total > 0:
            out[8] = amount / (total / count)
        if s.amount[last] > 0:
            out[9] = amount / s.amount[last]
        if largest > 0:
            out[10] = amount / largest
        mean = total / count
        variance = squares / count - mean * mean
        if variance > SPREAD_MIN * mean * mean:  # less is rounding
            out[11] = (amount - mean) / np.sqrt(variance)
    out[14] = (bad + RATE_PRIOR) / (labelled + RATE_WEIGHT)
    _outcomes(s, n, masked, out)
    out[18] = applicants
    out[19] = others


@_part
def _outcomes(s, n, masked, out):  # type: ignore[no-untyped-def]
    """The statistics of the known outcomes of all applications of node `n`."""
    fraud_bad, fraud_good = s.label_count[n, 0, 1], s.label_count[n, 0, 0]
    default_bad, default_good = s.label_count[n, 1, 1], s.label_count[n, 1, 0]
    if masked >= 0:
        fraud_bad -= s.label[masked, 0] == 1
        fraud_good -= s.label[masked, 0] == 0
        default_bad -= s.label[masked, 1] == 1
        default_good -= s.label[masked, 1] == 0
    out[12] = fraud_bad
    out[13] = (fraud_bad + RATE_PRIOR) / (fraud_bad + fraud_good + RATE_WEIGHT)
    out[15] = default_bad
    out[16] = (default_bad + RATE_PRIOR) / (default_bad + default_good + RATE_WEIGHT)
    out[17] = fraud_bad + fraud_good
    mean, weight = _prior(s, s.slot[n], 0, masked)
    out[20] = (fraud_bad + mean * weight) / (fraud_bad + fraud_good + weight)
    mean, weight = _prior(s, s.slot[n], 1, masked)
    out[21] = (default_bad + mean * weight) / (default_bad + default_good + weight)


@_part
def _prior(s, slot, which, masked):  # type: ignore[no-untyped-def]
    """(mean, weight) of the beta prior of a slot's rate; the result of application `masked` is left out.

    With rate p of all results, Σ n (b/n - p)² expects p (1 - p) (K - 1 + rho (N - Σ n² / N - K + 1)), where K entities
    have N results and rho = 1 / (1 + weight) is the correlation of two results of one entity.
    """
    totals = s.totals[slot, which]
    if masked >= 0 and s.label[masked, which] >= 0:
        for i in range(len(s.sums)):
            s.sums[i] = totals[i]
        totals = s.sums
        for e in range(SLOTS_MAX):
            n = s.node[masked, e]
            if n >= 0 and s.slot[n] == slot:
                counts = s.label_count[n, which]
                _total(totals, counts[1], counts[0] + counts[1], -1.0)
                bad = counts[1] - (s.label[masked, which] == 1)
                _total(totals, bad, counts[0] + counts[1] - 1, 1.0)
    known, results, bad, squares, spread = totals[0], totals[1], totals[2], totals[3], totals[4]
    if known < KNOWN_MIN or results - known < KNOWN_MIN or bad < BAD_MIN:
        return RATE_PRIOR / RATE_WEIGHT, RATE_WEIGHT
    mean = bad / results
    repeated = results - squares / results - known + 1.0
    excess = (spread - mean * bad) - mean * (1.0 - mean) * (known - 1.0)
    if excess <= 0.0:  # no more unlike than chance makes them
        return mean, WEIGHT_RANGE[1]
    weight = mean * (1.0 - mean) * repeated / excess - 1.0
    return mean, min(max(weight, WEIGHT_RANGE[0]), WEIGHT_RANGE[1])


@_part
def _links(s, linked, shared, now_ms, out):  # type: ignore[no-untyped-def]
    """float32 [len(GRAPH_STATS)] over the applications of others that share a linking entity."""
    applicants, recent, bad, labelled, most = 0, 0, 0, 0, 0
    for i in range(len(linked)):
        a = linked[i]
        recent += now_ms - s.time_ms[a] <= 24 * HOUR_MS
        if s.label[a, 0] >= 0:
            labelled += 1
            bad += s.label[a, 0]
        most = max(most, shared[i])
        new = True
        for j in range(i):
            new = new and s.node[linked[j], 0] != s.node[a, 0]
        applicants += new
    out[0] = len(linked)
    out[1] = applicants
    out[2] = recent
    out[3] = bad
    out[4] = (bad + RATE_PRIOR) / (labelled + RATE_WEIGHT)
    out[5] = most

"""The policy as numbers, run over a batch: tables, amount, price, votes (policy.program writes the numbers).

Nothing here is made for one policy, so another policy loads without compiling. An application's row of memory holds
its inputs, then what the tables put out and what evidence shows; NaN is missing. All kernels stand in this file, as
numba's cache does not see a change in another one.
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray

from policy.program import Floats, Ints, Judged, Plan, Program

FALSE, HIT, UNKNOWN = 0, 1, 2  # a row; UNKNOWN + k: its k-th output is out of range
APPROVE, LIMIT, REVIEW, DECLINE = 1, 2, 3, 4
# What a vote says: outcome << 40 | kind << 32 | number, which is a row, table or source; bound << 16 | row of `limit`
BY_ROW, MISSING_IN, MISSING_FOR, GAP, SOURCE_MISSING, SOURCE_STALE, NO_CAPACITY, LIMITED, TOO_LOW, TOO_SMALL = range(10)
ABOVE_CAP, FUNDED_LESS, NO_FUNDER = range(10, 13)
NUMBER, LOAD, ADD, SUBTRACT, MULTIPLY, NEGATE = range(6)  # steps of an output; what is none of them divides
STACK = 64  # policy.arithmetic has no more parts

@njit(cache=True, nogil=True, error_model="numpy")
def _computed(p, o, m, stack):  # type: ignore[no-untyped-def]
    """float: output `o`."""
    top = -1
    for k in range(p.step_at[o], p.step_at[o + 1]):
        step, value = p.step[k], p.step_value[k]
        if step == NUMBER or step == LOAD:
            top += 1
            stack[top] = value if step == NUMBER else m[int(value)]
        elif step == NEGATE:
            stack[top] = -stack[top]
        else:
            top -= 1
            if step == ADD:
                stack[top] += stack[top + 1]
            elif step == SUBTRACT:
                stack[top] -= stack[top + 1]
            elif step == MULTIPLY:
                stack[top] *= stack[top + 1]
            else:
                stack[top] /= stack[top + 1]
    return stack[0]


@njit(cache=True, nogil=True, error_model="numpy")
def _row(p, r, m, stack):  # type: ignore[no-untyped-def]
    """int: whether row `r` holds; if so its outputs go to memory."""
    unknown = False
    for t in range(p.test_at[r], p.test_at[r + 1]):
        x = m[p.test_column[t]]
        if x != x:
            if p.test_if_missing[t] == 0:
                return FALSE
            unknown |= p.test_if_missing[t] < 0
            continue
        inside = False
        for s in range(p.span_at[t], p.span_at[t + 1]):
            inside |= p.spans[s, 0] <= x <= p.spans[s, 1]
        if not inside:
            return FALSE
    begin, end = p.output_at[r], p.output_at[r + 1]
    for o in range(begin, end):
        for k in range(p.step_at[o], p.step_at[o + 1]):
            if p.step[k] == LOAD and np.isnan(m[int(p.step_value[k])]):
                unknown = True
    if unknown:
        return UNKNOWN
    for o in range(begin, end):
        value = _computed(p, o, m, stack)
        if not p.output_range[o, 0] <= value <= p.output_range[o, 1]:
            for before in range(begin, o):
                m[p.output_slot[before]] = np.nan
            return UNKNOWN + 1 + o - begin
        m[p.output_slot[o]] = value
    return HIT


@njit(cache=True, nogil=True, error_model="numpy")
def _table(p, t, m, stack, status):  # type: ignore[no-untyped-def]
    """int: the row of a first table that does not say no, -1 for none and for a collect table. status: int8 [rows]."""
    for r in range(p.row_at[t], p.row_at[t + 1]):
        status[r] = _row(p, r, m, stack)
        if p.first[t] and status[r] != FALSE:
            return r
    return -1


@njit(cache=True, nogil=True, error_model="numpy")
def walk(p: Program, values: Floats) -> tuple[NDArray[np.int8], Floats]:
    """What each row of each table says of B inputs, and the memory: int8 [B, rows], float64 [B, width].

    Of a first table only the row that decides says anything.
    """
    batch, inputs = values.shape
    status = np.zeros((batch, len(p.test_at) - 1), dtype=np.int8)
    memory = np.full((batch, p.width), np.nan)
    memory[:, :inputs] = values
    stack = np.empty(STACK)
    for i in range(batch):
        for t in range(len(p.first)):
            _table(p, t, memory[i], stack, status[i])
    return status, memory


@njit(cache=True, nogil=True)
def _vote(votes, n, outcome, kind, number):  # type: ignore[no-untyped-def]
    votes[n] = np.int64(outcome) << 40 | kind << 32 | number
    return n + 1


@njit(cache=True, nogil=True)
def _worst(votes, n):  # type: ignore[no-untyped-def]
    worst = APPROVE
    for k in range(n):
        worst = max(worst, votes[k] >> 40)
    return worst


@njit(cache=True, nogil=True)
def settle(votes: Ints, n: int, person: bool) -> tuple[int, int]:
    """Outcome and number of votes left: the worst first, in their order; who approves is not heard beside who does
    not, nor where a person was asked for. votes: int64 [n], changed in place.
    """
    worst, left = _worst(votes, n), 0
    for k in range(n):
        vote = votes[k]
        if vote >> 40 == APPROVE and (worst > APPROVE or person):
            continue
        at = left
        while at > 0 and votes[at - 1] >> 40 < vote >> 40:
            votes[at] = votes[at - 1]
            at -= 1
        votes[at] = vote
        left += 1
    return REVIEW if person else worst, left


@njit(cache=True, nogil=True, error_model="numpy")
def _collect(p, q, t, m, stack, status, votes, n):  # type: ignore[no-untyped-def]
    """int: votes after those of a collect table, what it lacks first."""
    _table(p, t, m, stack, status)
    for r in range(p.row_at[t], p.row_at[t + 1]):
        if status[r] >= UNKNOWN:
            n = _vote(votes, n, REVIEW, MISSING_IN, t)
            break
    for r in range(p.row_at[t], p.row_at[t + 1]):
        if status[r] == HIT and q.has_reason[r]:
            n = _vote(votes, n, q.outcome[r], BY_ROW, r)
    return n


@njit(cache=True, nogil=True, error_model="numpy")
def _first(p, q, t, m, stack, status, votes, n, undecided):  # type: ignore[no-untyped-def]
    """(row that holds or -1, votes). undecided: bool [width], outputs of tables that did not decide, which said so."""
    r = _table(p, t, m, stack, status)
    if r >= 0 and status[r] == HIT:
        return r, n
    if r < 0:
        n = _vote(votes, n, REVIEW, GAP, t)
    else:
        lacks = status[r] > UNKNOWN
        for k in range(p.test_at[r], p.test_at[r + 1]):
            c = p.test_column[k]
            lacks |= p.test_if_missing[k] < 0 and np.isnan(m[c]) and not undecided[c]
        for o in range(p.output_at[r], p.output_at[r + 1]):
            for k in range(p.step_at[o], p.step_at[o + 1]):
                if p.step[k] == LOAD:
                    c = int(p.step_value[k])
                    lacks |= np.isnan(m[c]) and not undecided[c]
        if lacks:
            n = _vote(votes, n, REVIEW, MISSING_FOR, r)
    for s in range(p.row_at[t], p.row_at[t + 1]):
        for o in range(p.output_at[s], p.output_at[s + 1]):
            undecided[p.output_slot[o]] = True
    return -1, n


@njit(cache=True, nogil=True, error_model="numpy")
def _sources(p, q, m, status, votes, n):  # type: ignore[no-untyped-def]
    """(votes, degraded: two bits a source, 1 missing, 2 stale). A state: 0 fresh, 1 stale, else missing."""
    degraded = 0
    for s in range(len(q.source_column)):
        state = m[q.source_column[s]]
        if state == 0:
            continue
        stale = state == 1
        degraded |= (2 if stale else 1) << (2 * s)
        named = False
        if q.collects[1] >= 0:
            for r in range(p.row_at[q.collects[1]], p.row_at[q.collects[1] + 1]):
                named |= status[r] == HIT and q.names_source[r, s]
        if not named:
            n = _vote(votes, n, REVIEW, SOURCE_STALE if stale else SOURCE_MISSING, s)
    return n, degraded


@njit(cache=True, nogil=True, error_model="numpy")
def _amount(q, m, r, asked, votes, n):  # type: ignore[no-untyped-def]
    """(what may be lent in minor units, 0 where not known or less than the least loan, votes, whether by the cap)."""
    most, bound = m[q.terms[0]], 0
    for c in range(len(q.capacity_slot)):
        share = m[q.capacity_slot[c]]
        if share != share:  # blank: does not bind this row
            continue
        least = np.inf
        for k in range(q.capacity_at[c], q.capacity_at[c + 1]):
            x = m[q.capacity_column[k]]
            if not np.isfinite(x):
                return 0, _vote(votes, n, REVIEW, NO_CAPACITY, (c + 2) << 16 | r), False
            least = min(least, x)
        # 0.7 × 100 000 is 70 000 and not one rounding step less: a thousandth of a fen is binary noise
        carries = least * share * q.minor_per_major + 0.001
        if carries < most:
            most, bound = carries, c + 2
    if q.terms[1] >= 0:
        if not np.isfinite(m[q.exposure_column]):
            return 0, _vote(votes, n, REVIEW, NO_CAPACITY, 1 << 16 | r), False
        left = m[q.terms[1]] - m[q.exposure_column]
        if left < most:
            most, bound = max(left, 0.0), 1
    rounding, minimum = int(m[q.terms[2]]), m[q.terms[3]]
    amount = asked if asked <= most else int(most // rounding) * rounding
    if amount < asked and amount < minimum:
        n = _vote(votes, n, DECLINE, TOO_LOW, bound << 16 | r)
    elif amount < asked:
        n = _vote(votes, n, LIMIT, LIMITED, bound << 16 | r)
    elif amount < minimum:
        n = _vote(votes, n, DECLINE, TOO_SMALL, r)
    return amount if amount >= minimum else 0, n, amount < asked and bound == 0


@njit(cache=True, nogil=True, error_model="numpy")
def _judge(p, q, i, asked, m, stack, status, votes, undecided, out):  # type: ignore[no-untyped-def]
    """One application up to its price, into row `i` of the arrays of `judge`."""
    n, explain, grade = 0, 0, -1
    if q.collects[0] >= 0:
        n = _collect(p, q, q.collects[0], m, stack, status, votes, n)
    if q.collects[1] >= 0:
        n = _collect(p, q, q.collects[1], m, stack, status, votes, n)
    n, out.degraded[i] = _sources(p, q, m, status, votes, n)
    for k in range(2):
        if q.firsts[k] >= 0:
            r, n = _first(p, q, q.firsts[k], m, stack, status, votes, n, undecided)
            if r >= 0:
                grade = max(grade, q.grade[r])
                explain |= (q.outcome[r] > APPROVE) << k
                if q.has_reason[r]:
                    n = _vote(votes, n, q.outcome[r], BY_ROW, r)
    amount, annual_rate = asked, np.nan
    if _worst(votes, n) == DECLINE:  # nothing can be worse, and a limit is no reason to decline
        amount = 0
    else:
        if q.limit >= 0:
            r, n = _first(p, q, q.limit, m, stack, status, votes, n, undecided)
            amount, n, capped = _amount(q, m, r, asked, votes, n) if r >= 0 else (0, n, False)
            explain |= (capped and q.cap_by_grade) << 1
        if q.price >= 0:
            r, n = _first(p, q, q.price, m, stack, status, votes, n, undecided)
            if r >= 0 and amount > 0:
                annual_rate, out.price_row[i] = m[q.terms[4]], r
    if q.funders >= 0 and _worst(votes, n) <= LIMIT:
        _table(p, q.funders, m, stack, status)
    out.amount[i], out.annual_rate[i], out.grade[i], out.explain[i], out.count[i] = amount, annual_rate, grade, explain, n


@njit(cache=True, nogil=True, error_model="numpy")
def judge(p: Program, q: Plan, values: Floats, asked: Ints, out: Judged) -> None:
    """Every vote on B applications but those on what their loans cost and on funders. Fills `out`."""
    inputs = values.shape[1]
    stack, undecided = np.empty(STACK), np.zeros(p.width, dtype=np.bool_)
    for i in range(len(asked)):
        out.memory[i, :inputs] = values[i]
        out.memory[i, inputs:] = np.nan
        out.memory[i, q.shown] = asked[i]
        undecided[:] = False
        _judge(p, q, i, asked[i], out.memory[i], stack, out.status[i], out.votes[i], undecided, out)


@njit(cache=True, nogil=True, error_model="numpy")
def close(q: Plan, all_in: Floats, person: Ints, out: Judged) -> None:
    """The votes on all-in rates above their caps, and what all votes come to; no amount where nothing is approved.

    all_in: float64 [B], NaN where there is no price.
    """
    for i in range(len(all_in)):
        n, out.memory[i, q.shown + 1] = out.count[i], all_in[i]
        if not np.isnan(out.annual_rate[i]) and not all_in[i] <= out.memory[i, q.terms[5]]:
            n = _vote(out.votes[i], n, REVIEW, ABOVE_CAP, out.price_row[i])
        out.outcome[i], out.count[i] = settle(out.votes[i], n, person[i] != 0)
        if out.outcome[i] > LIMIT:
            out.amount[i] = 0
        if out.outcome[i] > LIMIT or np.isnan(out.annual_rate[i]):
            out.annual_rate[i] = all_in[i] = 0.0

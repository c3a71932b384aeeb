"""The policy as numbers, run over a batch: tables, amount, price, votes (policy.program writes the numbers).

Nothing here is made for one policy, so another policy loads without compiling. Memory is float64 [width, B]: inputs,
then what the tables put out and what evidence shows, NaN where missing; a test is one sweep over a row of it, which
the compiler makes a few vector instructions. All kernels of a decision but those of policy.rates stand in this file,
as numba's cache does not see a change in another one.
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray

from policy import program as at
from policy.program import Floats, Ints, Judged, Plan, Program

FALSE, UNKNOWN, HIT, OUT_OF_RANGE = 0, 1, 2, 3  # a row; OUT_OF_RANGE + k: its k-th output
APPROVE, LIMIT, REVIEW, DECLINE = 1, 2, 3, 4
# What a vote says: outcome << 40 | kind << 32 | number, which is a row, table or source; bound << 16 | row of `limit`
BY_ROW, MISSING_IN, MISSING_FOR, GAP, SOURCE_MISSING, SOURCE_STALE, NO_CAPACITY, LIMITED, TOO_LOW, TOO_SMALL = range(10)
ABOVE_CAP, FUNDED_LESS, NO_FUNDER = range(10, 13)
NUMBER, LOAD, ADD, SUBTRACT, MULTIPLY, DIVIDE, NEGATE = range(7)  # steps of an output, in postfix
STACK = 64  # policy.arithmetic has no more parts


@njit(cache=True, nogil=True, error_model="numpy")
def _rows(p, t, active, memory, status):  # type: ignore[no-untyped-def]
    """Whether the rows of table `t` hold where `active`, bool [B]. Of a first table only the row that decides says
    anything. Every truth is the least of its parts: false, unknown, true.
    """
    rows, tests, steps, batch = p.rows, p.tests, p.steps, len(active)
    begin, end, first = p.tables[t]
    inside, truth, free = np.empty(batch), np.empty(batch), active.astype(np.float64)
    for r in range(begin, end):
        for i in range(batch):
            truth[i], inside[i] = free[i] * HIT, FALSE
        for k in range(rows[r, 0], rows[r, 1]):
            x, if_missing, low, high = memory[int(tests[k, 0])], tests[k, 1], tests[k, 2], tests[k, 3]
            if tests[k, 4] != 0:  # the next one is of the same cell
                for i in range(batch):
                    inside[i] = HIT if low <= x[i] <= high else inside[i]
                continue
            for i in range(batch):
                said = HIT if low <= x[i] <= high else inside[i]
                said = if_missing if x[i] != x[i] else said
                truth[i] = said if said < truth[i] else truth[i]
                inside[i] = FALSE
        for k in range(rows[r, 4], rows[r, 5]):
            if steps[k, 0] == LOAD:
                x = memory[int(steps[k, 1])]
                for i in range(batch):
                    truth[i] = UNKNOWN if x[i] != x[i] and truth[i] > UNKNOWN else truth[i]
        if first:
            for i in range(batch):
                free[i] = free[i] if truth[i] == FALSE else FALSE
        for i in range(batch):
            status[r, i] = np.int8(truth[i])


@njit(cache=True, nogil=True, error_model="numpy")
def _table(p, t, active, memory, status):  # type: ignore[no-untyped-def]
    """What the rows of table `t` say; outputs of rows that hold go to memory."""
    rows, outputs, steps, stack = p.rows, p.outputs, p.steps, np.empty(STACK)
    _rows(p, t, active, memory, status)
    for r in range(p.tables[t, 0], p.tables[t, 1]):
        if rows[r, 2] == rows[r, 3]:
            continue
        for i in range(len(active)):
            o = rows[r, 2]
            while status[r, i] == HIT and o < rows[r, 3]:
                at_step = int(outputs[o, 3])
                if outputs[o, 4] == at_step + 1 and steps[at_step, 0] == NUMBER:
                    memory[int(outputs[o, 0]), i] = steps[at_step, 1]  # literals were checked when the policy loaded
                    o += 1
                    continue
                top = -1
                for k in range(at_step, int(outputs[o, 4])):
                    step, value = steps[k, 0], steps[k, 1]
                    if step <= LOAD:
                        top += 1
                        stack[top] = value if step == NUMBER else memory[int(value), i]
                    elif step == NEGATE:
                        stack[top] = -stack[top]
                    else:
                        top -= 1
                        a, b = stack[top], stack[top + 1]
                        added = a + b if step == ADD else a - b
                        stack[top] = added if step <= SUBTRACT else a * b if step == MULTIPLY else a / b
                memory[int(outputs[o, 0]), i] = stack[0]
                if not outputs[o, 1] <= stack[0] <= outputs[o, 2]:
                    status[r, i] = OUT_OF_RANGE + o - rows[r, 2]
                    for before in range(rows[r, 2], o + 1):
                        memory[int(outputs[before, 0]), i] = np.nan
                o += 1


@njit(cache=True, nogil=True, error_model="numpy")
def walk(p: Program, values: Floats) -> tuple[NDArray[np.int8], Floats]:
    """What each row of each table says of B inputs, and the memory: int8 [rows, B], float64 [width, B].

    values: float64 [B, inputs].
    """
    batch, inputs = values.shape
    status = np.zeros((len(p.rows), batch), dtype=np.int8)
    memory = np.full((p.width, batch), np.nan)
    memory[:inputs] = values.T
    for t in range(len(p.tables)):
        _table(p, t, np.ones(batch, dtype=np.bool_), memory, status)
    return status, memory


@njit(inline="always")
def _vote(votes, ints, i, outcome, kind, number):  # type: ignore[no-untyped-def]
    votes[i, ints[at.COUNT, i]] = outcome << 40 | kind << 32 | number
    ints[at.COUNT, i] += 1
    ints[at.OUTCOME, i] = max(ints[at.OUTCOME, i], outcome)


@njit(cache=True, nogil=True, error_model="numpy")
def _collect(p, q, t, out):  # type: ignore[no-untyped-def]
    """The votes of a collect table, what it lacks first."""
    (begin, end, _), marks, (memory, status, votes, ints, _) = p.tables[t], q.marks, out
    batch = ints.shape[1]
    lacks = np.zeros(batch, dtype=np.bool_)
    _table(p, t, np.ones(batch, dtype=np.bool_), memory, status)
    for r in range(begin, end):
        for i in range(batch):
            lacks[i] |= status[r, i] == UNKNOWN or status[r, i] >= OUT_OF_RANGE
    for i in range(batch):
        if lacks[i]:
            _vote(votes, ints, i, REVIEW, MISSING_IN, t)
    for r in range(begin, end):
        if marks[r, 1]:
            for i in range(batch):
                if status[r, i] == HIT:
                    _vote(votes, ints, i, marks[r, 0], BY_ROW, r)


@njit(cache=True, nogil=True, error_model="numpy")
def _sources(p, q, out):  # type: ignore[no-untyped-def]
    """What is missing or stale votes REVIEW, unless a row that holds names its state. 0 is fresh, 1 stale."""
    columns, names, (memory, status, votes, ints, _) = q.source_column, q.names_source, out
    table, begin, end = q.places[at.SOURCES], 0, 0
    if table >= 0:
        begin, end = p.tables[table, 0], p.tables[table, 1]
    for s in range(len(columns)):
        for i in range(ints.shape[1]):
            state, named = memory[columns[s], i], False
            if state == 0:
                continue
            ints[at.DEGRADED, i] |= (2 if state == 1 else 1) << (2 * s)
            for r in range(begin, end):
                named |= status[r, i] == HIT and names[r, s]
            if not named:
                _vote(votes, ints, i, REVIEW, SOURCE_STALE if state == 1 else SOURCE_MISSING, s)


@njit(cache=True, nogil=True, error_model="numpy")
def _first(p, t, active, undecided, out):  # type: ignore[no-untyped-def]
    """int64 [B]: the row of a first table that holds, -1 where it votes REVIEW or is not active.

    undecided: bool [width, B], outputs of tables that did not decide; who lacks them has voted.
    """
    (begin, end, _), tests, rows, steps = p.tables[t], p.tests, p.rows, p.steps
    memory, status, votes, ints, _ = out
    slots = p.outputs[rows[begin, 2] : rows[end - 1, 3], 0]
    _table(p, t, active, memory, status)
    found = np.full(len(active), -1)
    for i in range(len(active)):
        r = begin
        while r < end and status[r, i] == FALSE:
            r += 1
        if not active[i] or (r < end and status[r, i] == HIT):
            found[i] = r if active[i] else -1
            continue
        if r == end:
            _vote(votes, ints, i, REVIEW, GAP, t)
        else:
            lacks = status[r, i] >= OUT_OF_RANGE
            for k in range(rows[r, 0], rows[r, 1]):
                c = int(tests[k, 0])
                lacks |= tests[k, 1] == UNKNOWN and np.isnan(memory[c, i]) and not undecided[c, i]
            for k in range(rows[r, 4], rows[r, 5]):
                c = int(steps[k, 1])
                lacks |= steps[k, 0] == LOAD and np.isnan(memory[c, i]) and not undecided[c, i]
            if lacks:
                _vote(votes, ints, i, REVIEW, MISSING_FOR, r)
        for slot in slots:
            undecided[int(slot), i] = True
    return found


@njit(cache=True, nogil=True, error_model="numpy")
def _amounts(q, found, asked, out):  # type: ignore[no-untyped-def]
    """What may be lent in minor units, 0 where that is not known or less than the least loan."""
    places, capacities, (memory, _, votes, ints, _) = q.places, q.capacities, out
    for i in range(len(found)):
        r = found[i]
        if r < 0:
            continue
        most, bound, lacks = memory[places[at.CAP_MINOR], i], 0, 0
        for c in range(len(capacities)):
            share, least, known = memory[capacities[c, 0], i], np.inf, True
            for column in capacities[c, 1:]:
                if column >= 0:
                    known &= np.isfinite(memory[column, i])
                    least = min(least, memory[column, i])
            if share == share and not known and not lacks:
                lacks = c + 2
            # 0.7 × 100 000 is 70 000 and not one rounding step less: a thousandth of a fen is binary noise
            carries = least * share * places[at.MINOR_PER_MAJOR] + 0.001
            if carries < most:  # not where its cell is blank: it does not bind this row
                most, bound = carries, c + 2
        if places[at.EXPOSURE_MAX] >= 0:
            left = memory[places[at.EXPOSURE_MAX], i] - memory[places[at.EXPOSURE], i]
            if not np.isfinite(left) and not lacks:
                lacks = 1
            if left < most:
                most, bound = max(left, 0.0), 1
        if lacks:
            _vote(votes, ints, i, REVIEW, NO_CAPACITY, lacks << 16 | r)
            continue
        rounding, minimum = int(memory[places[at.ROUNDING], i]), memory[places[at.MINIMUM], i]
        amount = asked[i] if asked[i] <= most else int(most // rounding) * rounding
        if amount < asked[i]:
            ints[at.EXPLAIN, i] |= (bound == 0 and places[at.CAP_BY_GRADE]) << 1
            too_low = amount < minimum
            number = bound << 16 | r
            _vote(votes, ints, i, DECLINE if too_low else LIMIT, TOO_LOW if too_low else LIMITED, number)
        elif amount < minimum:
            _vote(votes, ints, i, DECLINE, TOO_SMALL, r)
        ints[at.AMOUNT, i] = amount if amount >= minimum else 0


@njit(cache=True, nogil=True, error_model="numpy")
def judge(p: Program, q: Plan, values: Floats, asked: Ints, out: Judged) -> None:
    """Every vote on B applications but those on what their loans cost and on funders. Fills `out`."""
    places, marks, (memory, status, votes, ints, floats) = q.places, q.marks, out
    batch, inputs = values.shape
    undecided = np.zeros(memory.shape, dtype=np.bool_)
    memory[:inputs], memory[inputs:], memory[places[at.SHOWN_AT]] = values.T, np.nan, asked
    ints[:], ints[at.OUTCOME], ints[at.GRADED], floats[at.RATE] = 0, APPROVE, -1, np.nan
    for t in places[at.KNOCKOUTS : at.SOURCES + 1]:
        if t >= 0:
            _collect(p, q, t, out)
    _sources(p, q, out)
    for k in range(2):
        if places[at.FRAUD + k] >= 0:
            found = _first(p, places[at.FRAUD + k], np.ones(batch, dtype=np.bool_), undecided, out)
            for i in range(batch):
                r = found[i]
                if r >= 0:
                    ints[at.GRADED, i] = max(ints[at.GRADED, i], marks[r, 2])
                    ints[at.EXPLAIN, i] |= (marks[r, 0] > APPROVE) << k
                    if marks[r, 1]:
                        _vote(votes, ints, i, marks[r, 0], BY_ROW, r)
    active = ints[at.OUTCOME] < DECLINE  # nothing can be worse, and a limit is no reason to decline
    if places[at.LIMIT_TABLE] >= 0:
        _amounts(q, _first(p, places[at.LIMIT_TABLE], active, undecided, out), asked, out)
    else:
        ints[at.AMOUNT] = asked * active
    if places[at.PRICE] >= 0:
        ints[at.PRICE_ROW] = _first(p, places[at.PRICE], active, undecided, out)
        for i in range(batch):
            if ints[at.PRICE_ROW, i] >= 0 and ints[at.AMOUNT, i] > 0:
                floats[at.RATE, i] = memory[places[at.ANNUAL_RATE], i]
    if places[at.FUNDERS] >= 0:
        _table(p, places[at.FUNDERS], ints[at.OUTCOME] <= LIMIT, memory, status)


@njit(cache=True, nogil=True, error_model="numpy")
def close(q: Plan, person: Ints, out: Judged, begin: int, end: int) -> None:
    """The votes on all-in rates above their caps, and what all votes come to: the worst first, in their order; who
    approves is not heard beside who does not, nor where a person is asked for. No amount where nothing is approved.

    person: int64 [B], not 0 where one is asked for. Of the applications from `begin` to `end`; a rate is NaN where
    there is no price.
    """
    places, (memory, _, votes, ints, floats) = q.places, out
    for i in range(begin, end):
        all_in = memory[places[at.SHOWN_AT] + 1, i] = floats[at.ALL_IN, i]
        if not np.isnan(floats[at.RATE, i]) and not all_in <= memory[places[at.CAP_RATE], i]:
            _vote(votes, ints, i, REVIEW, ABOVE_CAP, ints[at.PRICE_ROW, i])
        worst, left = ints[at.OUTCOME, i], 0
        for n in range(ints[at.COUNT, i]):
            vote = votes[i, n]
            if vote >> 40 == APPROVE and (worst > APPROVE or person[i]):
                continue
            k = left
            while k > 0 and votes[i, k - 1] >> 40 < vote >> 40:
                votes[i, k] = votes[i, k - 1]
                k -= 1
            votes[i, k] = vote
            left += 1
        ints[at.COUNT, i], ints[at.OUTCOME, i] = left, REVIEW if person[i] else worst
        if ints[at.OUTCOME, i] > LIMIT:
            ints[at.AMOUNT, i] = 0
        if ints[at.OUTCOME, i] > LIMIT or np.isnan(floats[at.RATE, i]):
            floats[:, i] = 0.0

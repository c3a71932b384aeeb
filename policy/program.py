"""Checked tables as numbers for policy.kernel."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from policy.arithmetic import OPERATIONS

if TYPE_CHECKING:  # rows know how to run themselves
    from policy.rows import Row, Table

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
MISSING = {False: 0, True: 2, None: 1}  # as policy.kernel counts truths
SHOWN = ("asked", "all_in_rate", "offered", "fundable")  # numbers of an application that only evidence shows


class Program(NamedTuple):
    """Tables → rows → tests, and rows → outputs → steps; the last of two numbers is where the next begins."""

    tables: Ints  # [n, 3]: rows from, to; 1 where the first row that holds decides
    rows: Ints  # [n, 6]: tests from, to; outputs from, to; steps of all its outputs from, to
    tests: Floats  # [n, 5]: column; if missing 0 false, 1 unknown, 2 true; interval from, to; 1 where the next joins it
    outputs: Floats  # [n, 5]: slot; range from, to; steps from, to
    steps: Floats  # [n, 2]: what, see policy.kernel; a number or the column to load
    width: int  # of memory


# What Plan.places holds, in order: tables, columns and slots, -1 where the policy has none.
(
    KNOCKOUTS, SOURCES, FRAUD, GRADE, LIMIT_TABLE, PRICE, FUNDERS, CAP_MINOR, EXPOSURE_MAX, ROUNDING, MINIMUM,
    ANNUAL_RATE, CAP_RATE, EXPOSURE, SHOWN_AT, CAP_BY_GRADE, MINOR_PER_MAJOR,
) = range(17)  # fmt: skip
# Rows of Judged.ints, and of Judged.floats.
OUTCOME, COUNT, AMOUNT, GRADED, EXPLAIN, DEGRADED, PRICE_ROW = range(7)
RATE, ALL_IN = range(2)


class Plan(NamedTuple):
    """Where things stand and what rows say; few arrays, for handing one over costs more than reading it."""

    places: Ints
    marks: Ints  # [rows, 3]: outcome, 1 where it has a reason, grade or -1
    names_source: NDArray[np.bool_]  # [rows, sources]
    source_column: Ints
    capacities: Ints  # [n, 1 + inputs]: slot, then columns, -1 where there are fewer


class Compiled(NamedTuple):
    """A policy as numbers, with the names of its tables and more votes than one application can get."""

    program: Program
    plan: Plan
    names: tuple[str, ...]
    votes_max: int


class Judged(NamedTuple):
    """Of B applications. memory: float64 [width, B]; status: int8 [rows, B] and votes: int64 [B, ·], `COUNT` of them,
    see policy.kernel; ints: int64 [7, B], explain one bit a model of MODEL_OF, degraded two bits a source, 1 missing,
    2 stale; floats: float64 [2, B].
    """

    memory: Floats
    status: NDArray[np.int8]
    votes: Ints
    ints: Ints
    floats: Floats

    @classmethod
    def empty(cls, batch: int, program: Program, votes_max: int) -> "Judged":
        """Room for what `judge` and `close` fill."""
        return cls(
            np.empty((program.width, batch)), np.zeros((len(program.rows), batch), dtype=np.int8),
            np.empty((batch, votes_max), dtype=np.int64), np.empty((7, batch), dtype=np.int64), np.empty((2, batch)),
        )  # fmt: skip


def slots(tables: Sequence["Table"], inputs: Sequence[str]) -> dict[str, int]:
    """Where in memory each input and output stands, by name: `table.field`, of a collect table `table.row.field`.

    Of outputs that are text those alone that a later table reads.
    """
    names = list(inputs)
    read = {name for table in tables for name in table.inputs}
    for table in tables:
        if table.spec.hit_policy == "first":
            every = ((f"{table.name}.{field}", column) for field, column in table.outputs.items())
            names += [name for name, column in every if column.kind == "number" or name in read]
        else:
            names += [output_name(table, row, field) for row in table.rows for field in row.computed]
    return {name: i for i, name in enumerate((*names, *SHOWN))}


def output_name(table: "Table", row: "Row", field: str) -> str:
    """The name of an output in memory."""
    return f"{table.name}.{field}" if table.spec.hit_policy == "first" else f"{table.name}.{row.id}.{field}"


def assemble(tables: Sequence["Table"], slot: Mapping[str, int]) -> Program:
    """The tables in their order."""
    at: list[tuple[int, int, int]] = []
    rows: list[tuple[int, ...]] = []
    tests: list[tuple[float, ...]] = []
    outputs: list[tuple[float, ...]] = []
    steps: list[tuple[float, float]] = []
    for table in tables:
        first = table.spec.hit_policy == "first"
        at.append((len(rows), len(rows) + len(table.rows), int(first)))
        for row in table.rows:
            begin = len(tests), len(outputs), len(steps)
            for name, test in row.tests.items():
                spans = test.spans or ((math.inf, -math.inf),)
                for span in spans:
                    tests.append((slot[name], MISSING[test.if_missing], *span, span is not spans[-1]))
            literals = {f: (table.outputs[f].number(v),) for f, v in row.literals.items() if first}
            for field, written in (literals | {f: a.steps for f, a in row.computed.items()}).items():
                if output_name(table, row, field) not in slot:
                    continue
                start = len(steps)
                steps.extend(_step(step, slot) for step in written)
                place = slot[output_name(table, row, field)]
                outputs.append((place, *table.outputs[field].range, start, len(steps)))
            rows.append((begin[0], len(tests), begin[1], len(outputs), begin[2], len(steps)))
    return Program(
        ints(at).reshape(-1, 3), ints(rows).reshape(-1, 6), _floats(tests, 5), _floats(outputs, 5), _floats(steps, 2),
        len(slot),
    )  # fmt: skip


def _step(step: float | str, slot: Mapping[str, int]) -> tuple[float, float]:
    if not isinstance(step, str):
        return 0, step
    return (2 + OPERATIONS.index(step), 0) if step in OPERATIONS else (1, slot[step])


def ints(numbers: Sequence[int] | Sequence[Sequence[int]] | Ints) -> Ints:
    """As int64."""
    return np.array(numbers, dtype=np.int64)


def _floats(numbers: Sequence[Sequence[float]], width: int) -> Floats:
    return np.array(numbers, dtype=np.float64).reshape(-1, width)

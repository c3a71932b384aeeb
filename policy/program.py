"""Checked tables as numbers for policy.kernel."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from policy.arithmetic import OPERATIONS
from policy.rows import Row, Table

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
MISSING = {False: 0, True: 1, None: -1}
SHOWN = ("asked", "all_in_rate", "offered", "fundable")  # numbers of an application that only evidence shows


class Program(NamedTuple):
    """Tables → rows → tests → spans, and rows → outputs → steps; `a_at` [n + 1] says where the items of each start."""

    first: NDArray[np.bool_]
    row_at: Ints
    test_at: Ints
    test_column: Ints
    test_if_missing: NDArray[np.int8]  # 0 false, 1 true, -1 unknown
    span_at: Ints
    spans: Floats  # [n, 2], closed
    output_at: Ints
    output_slot: Ints
    output_range: Floats  # [n, 2]
    step_at: Ints
    step: NDArray[np.int8]
    step_value: Floats  # a number, or the column to load
    width: int  # of memory


class Plan(NamedTuple):
    """Where the tables and their outputs stand, -1 where the policy has none; outcome, reason and grade by row."""

    collects: Ints  # knockouts and sources
    firsts: Ints  # fraud and grade
    limit: int
    price: int
    funders: int
    outcome: NDArray[np.int8]
    has_reason: NDArray[np.bool_]
    grade: NDArray[np.int8]
    source_column: Ints
    names_source: NDArray[np.bool_]  # [rows, sources]
    terms: Ints  # slots of cap_minor, exposure_max_minor, rounding_minor, minimum_minor, annual_rate, cap_rate
    exposure_column: int
    capacity_slot: Ints
    capacity_at: Ints
    capacity_column: Ints
    minor_per_major: float
    cap_by_grade: bool
    shown: int  # where evidence begins: asked, all-in rate, offered, fundable
    votes_max: int


class Judged(NamedTuple):
    """Of B applications. memory: float64 [B, width]; status: int8 [B, rows], see policy.kernel; votes: int64 [B, ·],
    `count` of them; explain: one bit a model of MODEL_OF; degraded: two bits a source, 1 missing, 2 stale.
    """

    memory: Floats
    status: NDArray[np.int8]
    votes: Ints
    count: Ints
    amount: Ints
    annual_rate: Floats
    outcome: NDArray[np.int8]
    grade: NDArray[np.int8]
    explain: NDArray[np.int8]
    degraded: Ints
    price_row: Ints

    @classmethod
    def empty(cls, batch: int, program: Program, plan: "Plan") -> "Judged":
        """Room for what `judge` and `close` fill."""
        ints, rows = np.empty((4, batch), dtype=np.int64), len(program.test_at) - 1
        small = np.empty((3, batch), dtype=np.int8)
        return cls(
            np.empty((batch, program.width)), np.zeros((batch, rows), dtype=np.int8),
            np.empty((batch, plan.votes_max), dtype=np.int64), ints[0], ints[1], np.empty(batch), small[0], small[1],
            small[2], ints[2],
            ints[3],
        )  # fmt: skip


def slots(tables: Sequence[Table], inputs: Sequence[str]) -> dict[str, int]:
    """Where in memory each input and output stands, by name: `table.field`, of a collect table `table.row.field`."""
    names = list(inputs)
    for table in tables:
        if table.spec.hit_policy == "first":
            names += [f"{table.name}.{field}" for field in table.outputs]
        else:
            names += [output_name(table, row, field) for row in table.rows for field in row.computed]
    return {name: i for i, name in enumerate((*names, *SHOWN))}


def output_name(table: Table, row: Row, field: str) -> str:
    """The name of an output in memory."""
    return f"{table.name}.{field}" if table.spec.hit_policy == "first" else f"{table.name}.{row.id}.{field}"


class _Writer:
    """Arrays that grow row by row."""

    def __init__(self, slot: Mapping[str, int]) -> None:
        self.slot = slot
        self.test_column: list[int] = []
        self.test_if_missing: list[int] = []
        self.spans: list[tuple[float, float]] = []
        self.output_slot: list[int] = []
        self.output_range: list[tuple[float, float]] = []
        self.steps: list[tuple[int, float]] = []
        self.row_at, self.test_at, self.span_at, self.output_at, self.step_at = [0], [0], [0], [0], [0]

    def add(self, table: Table) -> None:
        for row in table.rows:
            for name, test in row.tests.items():
                self.test_column.append(self.slot[name])
                self.test_if_missing.append(MISSING[test.if_missing])
                self.spans.extend(test.spans)
                self.span_at.append(len(self.spans))
            self.test_at.append(len(self.test_column))
            for field, value in row.literals.items():
                if table.spec.hit_policy == "first":
                    self._output(table, row, field, [(0, table.outputs[field].number(value))])
            for field, arithmetic in row.computed.items():
                self._output(table, row, field, [self._step(step) for step in arithmetic.steps])
            self.output_at.append(len(self.output_slot))
        self.row_at.append(len(self.test_at) - 1)

    def _output(self, table: Table, row: Row, field: str, steps: list[tuple[int, float]]) -> None:
        self.output_slot.append(self.slot[output_name(table, row, field)])
        self.output_range.append(table.outputs[field].range)
        self.steps.extend(steps)
        self.step_at.append(len(self.steps))

    def _step(self, step: float | str) -> tuple[int, float]:
        if not isinstance(step, str):
            return 0, step
        return (2 + OPERATIONS.index(step), 0.0) if step in OPERATIONS else (1, self.slot[step])


def assemble(tables: Sequence[Table], slot: Mapping[str, int]) -> Program:
    """The tables in their order."""
    writer = _Writer(slot)
    for table in tables:
        writer.add(table)
    steps = np.array(writer.steps, dtype=np.float64).reshape(-1, 2)
    return Program(
        np.array([table.spec.hit_policy == "first" for table in tables], dtype=np.bool_),
        ints(writer.row_at), ints(writer.test_at), ints(writer.test_column),
        np.array(writer.test_if_missing, dtype=np.int8), ints(writer.span_at), _pairs(writer.spans),
        ints(writer.output_at), ints(writer.output_slot), _pairs(writer.output_range), ints(writer.step_at),
        steps[:, 0].astype(np.int8), steps[:, 1].copy(), len(slot),
    )  # fmt: skip


def ints(numbers: Sequence[int] | Ints) -> Ints:
    """As int64."""
    return np.array(numbers, dtype=np.int64)


def _pairs(pairs: Sequence[tuple[float, float]]) -> Floats:
    return np.array(pairs, dtype=np.float64).reshape(-1, 2)

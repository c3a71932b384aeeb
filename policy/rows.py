"""Checked decision tables: what a table must look like, its rows, and what they hold."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from policy.arithmetic import Arithmetic
from policy.cells import Column, Test, Value
from policy.kernel import FALSE, HIT, OUT_OF_RANGE, walk
from policy.program import Floats, Program, assemble, output_name, slots

Values = Mapping[str, Value | None]


@dataclass(frozen=True)
class Output:
    """An output column: what it holds, whether a table needs it, whether a cell may be empty (then it is absent)."""

    column: Column
    needed: bool = True
    blank: bool = False


@dataclass(frozen=True)
class Spec:
    """What a table of one name must look like. unique: no two rows may hold for one input."""

    hit_policy: str
    outputs: Mapping[str, Output]
    unique: bool = False


@dataclass(frozen=True)
class Row:
    """A checked row: tests by input; `literals` are the outputs that never change, `computed` the others."""

    id: str
    tests: Mapping[str, Test]
    literals: Mapping[str, Value]
    computed: Mapping[str, Arithmetic]

    @property
    def reads(self) -> tuple[str, ...]:
        """The inputs that its outputs are computed from."""
        return tuple(dict.fromkeys(name for arithmetic in self.computed.values() for name in arithmetic.names))

    @property
    def undecided_by(self) -> tuple[str, ...]:
        """The inputs without which it may or may not hold."""
        return tuple(dict.fromkeys([*(n for n, t in self.tests.items() if t.if_missing is None), *self.reads]))

    def lacking(self, said: int, number: Callable[[str], float], written: tuple[str, ...]) -> list[str]:
        """Why it may or may not hold: the inputs missing, or the output out of range, one of those `written`."""
        if said >= OUT_OF_RANGE:
            return [written[said - OUT_OF_RANGE]]
        return [name for name in self.undecided_by if math.isnan(number(name))]


class Hit(NamedTuple):
    """A row that holds: its id, its outputs by field and the inputs its cells tested."""

    row: str
    outputs: Mapping[str, Value]
    tested: tuple[str, ...]


class Undecided(NamedTuple):
    """A row that may or may not hold, because of the missing inputs `missing`."""

    row: str
    missing: tuple[str, ...]


class Result(NamedTuple):
    """What a table said. A `first` table gives one hit, one undecided row, or neither: a gap."""

    hits: tuple[Hit, ...]
    undecided: tuple[Undecided, ...]


@dataclass(frozen=True)
class Table:
    """A checked table. inputs: those that its rows test or read; outputs: what each column holds, strings as far as
    its rows say them.

    Three-valued where zen fails open: a cell that tests a missing input is unknown, a row with a false cell is false,
    else with an unknown cell unknown. A `first` table stops at the first row that is not false; if that is unknown,
    it is undecided. A `collect` table reports unknown rows beside its hits. No row at all is a gap.
    """

    name: str
    spec: Spec
    inputs: Mapping[str, Column]
    outputs: Mapping[str, Column]
    rows: tuple[Row, ...]

    def evaluate(self, values: Values, earlier: Mapping[str, Mapping[str, Value]]) -> Result:
        """The table alone on one input, for whoever looks into it; policy.decide runs all tables over a batch.

        values: None, NaN or absent is missing; earlier: outputs by table.
        """
        status, memory, slot = self.walk(values, earlier)
        hits, undecided = [], []
        for one, said in zip(self.rows, status[:, 0].tolist(), strict=True):
            if said == HIT:
                computed = {f: memory.item(slot[output_name(self, one, f)], 0) for f in one.computed}
                hits.append(Hit(one.id, {**one.literals, **computed}, tuple(one.tests)))
            elif said != FALSE:
                missing = one.lacking(said, lambda name: memory.item(slot[name], 0), self.written(one, slot))
                undecided.append(Undecided(one.id, tuple(missing)))
        return Result(tuple(hits), tuple(undecided))

    def walk(
        self, values: Values, earlier: Mapping[str, Mapping[str, Value]]
    ) -> tuple[NDArray[np.int8], Floats, Mapping[str, int]]:
        """As `evaluate`: what each row says, int8 [rows, 1], the memory, float64 [width, 1], and what stands where."""
        known = dict(values) | {f"{t}.{field}": value for t, said in earlier.items() for field, value in said.items()}
        given = [(column, known.get(name)) for name, column in self.inputs.items()]
        row = [math.nan if value is None else column.number(value) for column, value in given]
        program, slot = self._alone
        return *walk(program, np.array([row], dtype=np.float64).reshape(1, -1)), slot

    def written(self, row: Row, slot: Mapping[str, int]) -> tuple[str, ...]:
        """The outputs of a row that go to memory, in their order there."""
        return tuple(f for f in (*row.literals, *row.computed) if output_name(self, row, f) in slot)

    @cached_property
    def _alone(self) -> tuple[Program, Mapping[str, int]]:
        slot = slots([self], list(self.inputs))
        return assemble([self], slot), slot

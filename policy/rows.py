"""Checked decision tables: what a table must look like, its rows, and what they hold."""

from collections.abc import Mapping
from dataclasses import dataclass

from policy.arithmetic import Arithmetic
from policy.cells import Column, Test, Value


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

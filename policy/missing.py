"""What a missing value does, stated for every input of every table (R24): the report behind `policy check`."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from policy.rows import Row, Table
from policy.specs import AUTHORITY, EXPOSURE, capacities

# What a row does that tests or reads the input; each in English and Chinese.
UNDECIDED = (
    "undecided: votes REVIEW unless another cell of the row is false",
    "无法判定：除非该行另有不满足的单元格，否则转人工复核",
)
NO_LOAN = ("undecided: does not lend", "无法判定：该资金方不出资")
NO_SAY = ("undecided: gives nobody authority", "无法判定：不授予任何人权限")
NOT_HELD = ("the row does not hold, as it asks for != null", "该行不命中（单元格要求 != null）")
HELD = ("the cell holds, as it asks for null", "该单元格满足（单元格接受 null）")
NO_AMOUNT = ("votes REVIEW where the row sets a multiple or cap", "该行设有倍数或上限时转人工复核")


@dataclass(frozen=True)
class Treatment:
    """What rows of a table do where an input is missing."""

    table: str
    input: str
    rows: tuple[str, ...]
    en: str
    zh: str


def treatments(tables: Mapping[str, Table]) -> tuple[Treatment, ...]:
    """Every table and input with all that its missing does; a row that is not named does not look at the input."""
    found: dict[tuple[str, str, tuple[str, str]], list[str]] = {}
    for table in tables.values():
        for name in table.inputs:
            for row in table.rows:
                for effect in _effects(table, row, name):
                    found.setdefault((table.name, name, effect), []).append(row.id)
        if table.name == "limit":
            for bound in (*capacities(tables), *([EXPOSURE] if EXPOSURE.output in table.outputs else [])):
                rows = [row.id for row in table.rows if bound.output in (*row.literals, *row.computed)]
                for name in bound.inputs:
                    found.setdefault((table.name, name, NO_AMOUNT), []).extend(rows)
    return tuple(Treatment(table, name, tuple(rows), *effect) for (table, name, effect), rows in found.items())


def _effects(table: Table, row: Row, name: str) -> Iterator[tuple[str, str]]:
    if name in row.undecided_by:
        yield {"funders": NO_LOAN, AUTHORITY: NO_SAY}.get(table.name, UNDECIDED)
    elif name in row.tests:
        yield HELD if row.tests[name].if_missing else NOT_HELD

"""Decision tables: checked against the names and types they may use, then compiled to one Python function each.

Three-valued where zen fails open: a cell that tests a missing input is unknown, a row with a false cell is false,
else with an unknown cell unknown. A `first` table stops at the first row that is not false; if that is unknown, it is
undecided. A `collect` table reports unknown rows beside its hits. No row at all is a gap, which a `first` table is
checked for when it loads, as for rows that can never be reached (R16).
"""

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from policy.cells import CellError, Column, Test, Value, parse_arithmetic, parse_literal, parse_test
from policy.jdm import PolicyError as PolicyError
from policy.jdm import Sheet, read_sheets

Values = Mapping[str, Value | None]
POINTS_MAX = 200_000  # combinations tried in the check for gaps


@dataclass(frozen=True)
class Output:
    """An output column: what it holds, whether a table needs it, whether a cell may be empty (then it is absent)."""

    column: Column
    needed: bool = True
    blank: bool = False


@dataclass(frozen=True)
class Spec:
    """What a table of one name must look like."""

    hit_policy: str
    outputs: Mapping[str, Output]


@dataclass(frozen=True)
class Hit:
    """A row that holds: its id, its outputs by field and the inputs its cells tested."""

    row: str
    outputs: Mapping[str, Value]
    tested: tuple[str, ...]


@dataclass(frozen=True)
class Undecided:
    """A row that may or may not hold, because of the missing inputs `missing`."""

    row: str
    missing: tuple[str, ...]


class Result(NamedTuple):
    """What a table said. A `first` table gives one hit, one undecided row, or neither: a gap."""

    hits: tuple[Hit, ...]
    undecided: tuple[Undecided, ...]


NOTHING = Result((), ())
Evaluate = Callable[[Values, Mapping[str, Mapping[str, Value]]], Result]


@dataclass(frozen=True)
class Row:
    """A checked row. `literals` are the outputs that never change, `computed` the others as Python source."""

    id: str
    tests: Mapping[str, Test]
    literals: Mapping[str, Value]
    computed: Mapping[str, str]
    reads: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """A compiled table. `evaluate(values, earlier)`: None, NaN or absent is missing; `earlier` are outputs by table."""

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    rows: tuple[Row, ...]
    evaluate: Evaluate


def load_tables(path: Path, raw: bytes, inputs: Mapping[str, Column], specs: Mapping[str, Spec]) -> dict[str, Table]:
    """The tables of a JDM file by name: some of `specs`, in their order. Raises PolicyError."""
    tables: dict[str, Table] = {}
    known = dict(inputs)
    order = list(specs)
    for sheet in read_sheets(path, raw):
        if sheet.name not in specs:
            raise PolicyError(path, f"there is no such table; there are {', '.join(specs)}", sheet.name)
        if any(order.index(name) >= order.index(sheet.name) for name in tables):
            raise PolicyError(path, f"stands twice or out of order; the order is {', '.join(specs)}", sheet.name)
        table = _table(path, sheet, specs[sheet.name], known)
        tables[sheet.name] = table
        if sheet.hit_policy == "first":
            _check_complete(path, table, known)
            known.update(_outputs_as_inputs(table, specs[sheet.name]))
    return tables


def _outputs_as_inputs(table: Table, spec: Spec) -> Iterator[tuple[str, Column]]:
    for field, output in spec.outputs.items():
        values = {row.literals[field] for row in table.rows if field in row.literals}
        texts = tuple(sorted(v for v in values if isinstance(v, str)))
        yield f"{table.name}.{field}", Column(output.column.kind, texts, output.column.range)


def _table(path: Path, sheet: Sheet, spec: Spec, known: Mapping[str, Column]) -> Table:
    if sheet.hit_policy != spec.hit_policy:
        raise PolicyError(path, f"hit policy must be {spec.hit_policy}", sheet.name)
    for field in sheet.inputs.values():
        if field not in known:
            raise PolicyError(path, "unknown input", sheet.name, column=field)
    for field in sheet.outputs.values():
        if field not in spec.outputs:
            raise PolicyError(path, "unknown output", sheet.name, column=field)
    for field, output in spec.outputs.items():
        if output.needed and field not in sheet.outputs.values():
            raise PolicyError(path, "the table needs this output", sheet.name, column=field)
    local: dict[str, str] = {}
    rows = tuple(_row(path, sheet, spec, known, local, row) for row in sheet.rows)
    return Table(
        sheet.name, tuple(local), tuple(sheet.outputs.values()), rows, _compile(path, sheet, spec, rows, local)
    )


def _row(path: Path, sheet: Sheet, spec: Spec, known: Mapping[str, Column], local: dict[str, str], row: str) -> Row:
    """The checked row; every input it reads gets a variable in `local`."""
    tests: dict[str, Test] = {}
    literals: dict[str, Value] = {}
    computed: dict[str, str] = {}
    reads: list[str] = []

    def variable(name: str) -> str:
        return local.setdefault(name, f"x{len(local)}")

    for key, field in [*sheet.inputs.items(), *sheet.outputs.items()]:
        text = sheet.rows[row][key]
        try:
            if key in sheet.inputs:
                if text.strip() and (test := parse_test(text, known[field], variable(field))):
                    tests[field] = test
            elif (value := parse_literal(text)) is not None:
                spec.outputs[field].column.check(value)
                literals[field] = value
            elif text.strip() or not spec.outputs[field].blank:
                arithmetic = parse_arithmetic(text, known)
                spec.outputs[field].column.check_number()
                computed[field] = arithmetic.source(variable)
                reads.extend(arithmetic.names)
        except CellError as error:
            raise PolicyError(path, str(error), sheet.name, row, field) from None
    return Row(row, tests, literals, computed, tuple(reads))


def _compile(path: Path, sheet: Sheet, spec: Spec, rows: tuple[Row, ...], local: Mapping[str, str]) -> Evaluate:
    """The source is written from checked parts only: variables, operators and the repr of literals."""
    scope: dict[str, Any] = {
        "Hit": Hit, "Undecided": Undecided, "Result": Result, "NOTHING": NOTHING, "EMPTY": {}, "inf": math.inf
    }  # fmt: skip
    lines = ["def evaluate(values, earlier):"]
    for name, x in local.items():
        table, dot, field = name.partition(".")
        read = f"earlier.get({table!r}, EMPTY).get({field!r})" if dot else f"values.get({name!r})"
        lines += [f"    {x} = {read}", f"    if {x} != {x}: {x} = None"]
    first = sheet.hit_policy == "first"
    if not first:
        lines.append("    hits = []; undecided = []")
    for i, row in enumerate(rows):
        scope[f"hit{i}"] = Hit(row.id, row.literals, tuple(row.tests))
        scope[f"result{i}"] = Result((scope[f"hit{i}"],), ())
        lines += _row_source(row, i, local, spec, first)
    lines.append("    return NOTHING" if first else "    return Result(tuple(hits), tuple(undecided))")
    exec(compile("\n".join(lines), f"<{path.name} {sheet.name}>", "exec"), scope)
    evaluate: Evaluate = scope["evaluate"]
    return evaluate


def _row_source(row: Row, i: int, local: Mapping[str, str], spec: Spec, first: bool) -> list[str]:
    """One `if` that a false row does not enter; inside, a missing input makes the row undecided."""
    undecided = "return Result((), (Undecided({}, {}),))" if first else "undecided.append(Undecided({}, {}))"
    conditions = []
    for name, test in row.tests.items():
        present = f"{local[name]} is not None and" if test.if_missing is False else f"{local[name]} is None or"
        conditions.append(f"({present} ({test.source}))")
    branches = []
    unknown = [name for name, test in row.tests.items() if test.if_missing is None]
    if needed := list(dict.fromkeys([*unknown, *row.reads])):
        pairs = ", ".join(f"({name!r}, {local[name]})" for name in needed)
        missing = f"tuple([n for n, x in ({pairs},) if x is None])"
        any_missing = " or ".join(f"{local[name]} is None" for name in needed)
        branches.append((f"if {any_missing}", undecided.format(repr(row.id), missing)))
    for field, source in row.computed.items():
        low, high = spec.outputs[field].column.range
        branches.append((f"if not {low!r} <= {source} <= {high!r}", undecided.format(repr(row.id), repr((field,)))))
    hit, result = f"hit{i}", f"result{i}"
    if row.computed:
        outputs = ", ".join(f"{field!r}: {source}" for field, source in row.computed.items())
        hit = f"Hit({row.id!r}, {{**hit{i}.outputs, {outputs}}}, hit{i}.tested)"
        result = f"Result(({hit},), ())"
    branches.append(("if True", f"return {result}" if first else f"hits.append({hit})"))
    lines = [f"    if {' and '.join(conditions) or 'True'}:"]
    for k, (condition, statement) in enumerate(branches):
        lines += [f"        {'el' if k else ''}{condition}:", f"            {statement}"]
    return lines


def _check_complete(path: Path, table: Table, known: Mapping[str, Column]) -> None:
    """Tries one point of every region that the cells cut the inputs into, missing included; exact, as cells test one
    input each. Refuses a combination that no row takes and a row that no combination reaches."""
    points = [
        [*_points(known[name], {n for row in table.rows if name in row.tests for n in row.tests[name].numbers}), None]
        for name in table.inputs
    ]
    if math.prod(map(len, points)) > POINTS_MAX:
        raise PolicyError(path, f"more than {POINTS_MAX} combinations, too many to check for gaps", table.name)
    reached = set()
    for point in itertools.product(*points):
        values: dict[str, Value | None] = dict(zip(table.inputs, point, strict=True))
        earlier: dict[str, dict[str, Value]] = {}
        for name, value in values.items():
            if "." in name and value is not None:
                earlier.setdefault(name.split(".")[0], {})[name.split(".")[1]] = value
        result = table.evaluate(values, earlier)
        if result is NOTHING:
            raise PolicyError(path, f"no row for {', '.join(f'{n}={v}' for n, v in values.items())}", table.name)
        reached |= {hit.row for hit in result.hits}
        if None not in point:
            reached |= {row.row for row in result.undecided}
    for row in table.rows:
        if row.id not in reached:
            raise PolicyError(path, "can never be reached: the rows above take all of it", table.name, row.id)


def _points(column: Column, numbers: set[float]) -> list[Value]:
    """One value of every region between the numbers that the cells name, and those numbers."""
    if column.kind == "boolean":
        return [True, False]
    if column.kind == "string":
        return list(column.values)
    low, high = column.range
    cuts = sorted(n for n in numbers if low <= n <= high) or [max(low, min(high, 0.0))]
    between = [(a + b) / 2 for a, b in itertools.pairwise(cuts)]
    ends = [max(low, cuts[0] - 1), min(high, cuts[-1] + 1)]
    return [*cuts, *between, *ends]

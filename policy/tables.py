"""Decision tables of a file, checked before they are used (R16): names, types, gaps, overlaps, rows never reached."""

from collections.abc import Mapping
from pathlib import Path

from policy.arithmetic import Arithmetic, parse_arithmetic
from policy.cells import CellError, Column, Test, Value, parse_literal, parse_test
from policy.checks import check_overlaps, check_regions
from policy.errors import PolicyError as PolicyError
from policy.jdm import Sheet, read_sheets
from policy.rows import Hit as Hit
from policy.rows import Output as Output
from policy.rows import Result as Result
from policy.rows import Row as Row
from policy.rows import Spec as Spec
from policy.rows import Table as Table
from policy.rows import Undecided as Undecided


def load_tables(path: Path, raw: bytes, inputs: Mapping[str, Column], specs: Mapping[str, Spec]) -> dict[str, Table]:
    """The tables of a JDM file by name: some of `specs`, in their order. Raises PolicyError."""
    tables: dict[str, Table] = {}
    known = dict(inputs)
    order = list(specs)
    names, names_zh = ", ".join(specs), "、".join(specs)
    for sheet in read_sheets(path, raw):
        if sheet.name not in specs:
            raise PolicyError(
                path, f"there is no such table; there are {names}", sheet.name, zh=f"没有这张表；可用的表有 {names_zh}"
            )
        if any(order.index(name) >= order.index(sheet.name) for name in tables):
            zh = f"表重复或顺序不对；顺序应为 {names_zh}"
            raise PolicyError(path, f"stands twice or out of order; the order is {names}", sheet.name, zh=zh)
        table = _table(path, sheet, specs[sheet.name], known)
        tables[sheet.name] = table
        if table.spec.unique:
            check_overlaps(path, table)
        if table.spec.hit_policy == "first":
            check_regions(path, table)
            known.update((f"{table.name}.{field}", column) for field, column in table.outputs.items())
    return tables


def _table(path: Path, sheet: Sheet, spec: Spec, known: Mapping[str, Column]) -> Table:
    name = sheet.name
    if sheet.hit_policy != spec.hit_policy:
        zh = f"命中策略必须是 {spec.hit_policy}"
        raise PolicyError(path, f"hit policy must be {spec.hit_policy}", name, zh=zh)
    for field in sheet.inputs.values():
        if field not in known:
            raise PolicyError(path, "unknown input", name, column=field, zh="不是已知的输入项")
    for field in sheet.outputs.values():
        if field not in spec.outputs:
            raise PolicyError(path, "unknown output", name, column=field, zh="该表没有这个输出项")
    for field, output in spec.outputs.items():
        if output.needed and field not in sheet.outputs.values():
            raise PolicyError(path, "the table needs this output", name, column=field, zh="该表必须有这个输出项")
    named = {field: known[field].naming(row[key] for row in sheet.rows.values()) for key, field in sheet.inputs.items()}
    known = {**known, **named}
    rows = tuple(_row(path, sheet, spec, known, row) for row in sheet.rows)
    used = dict.fromkeys(n for row in rows for n in (*row.tests, *row.reads))
    outputs = {field: _said(spec.outputs[field].column, field, rows) for field in sheet.outputs.values()}
    return Table(name, spec, {n: known[n] for n in used}, outputs, rows)


def _said(column: Column, field: str, rows: tuple[Row, ...]) -> Column:
    """The column with those strings only that a row says."""
    texts = {str(row.literals[field]) for row in rows if field in row.literals} if column.kind == "string" else ()
    return Column(column.kind, tuple(sorted(texts)), column.range)


def _row(path: Path, sheet: Sheet, spec: Spec, known: Mapping[str, Column], row: str) -> Row:
    tests: dict[str, Test] = {}
    literals: dict[str, Value] = {}
    computed: dict[str, Arithmetic] = {}
    for key, field in [*sheet.inputs.items(), *sheet.outputs.items()]:
        text = sheet.rows[row][key]
        try:
            if key in sheet.inputs:
                if (test := parse_test(text, known[field])) is not None:
                    if not (test.if_missing or known[field].has_any(test.spans)):
                        raise CellError(f"{text!r} holds for nothing", f"{text!r} 对任何取值都不成立")
                    tests[field] = test
            elif (value := parse_literal(text)) is not None:
                spec.outputs[field].column.check(value)
                literals[field] = value
            elif text.strip() or not spec.outputs[field].blank:
                computed[field] = parse_arithmetic(text, known)
                spec.outputs[field].column.check_number()
        except CellError as error:
            raise PolicyError(path, error.en, sheet.name, row, field, error.zh) from None
    return Row(row, tests, literals, computed)

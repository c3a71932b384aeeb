"""`python -m policy`: check a policy with its cases, see what a new one changes and would have decided, publish it,
roll it back (R16, R17). A policy is a folder with `policy.json`, or the name of a product: the one in service.
"""

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from features.schema import Schema, SchemaError
from policy import versions
from policy.decide import POLICY, Policy
from policy.errors import PolicyError
from policy.missing import treatments
from policy.simulate_command import simulate

app = typer.Typer(no_args_is_help=True, add_completion=False)
app.command()(simulate)
console = Console()

PoliciesFolder = Annotated[
    Path, typer.Option("--policies", envvar="MIAOPI_POLICIES", help="folder that MIAOPI_POLICIES names")
]
SchemasFolder = Annotated[
    Path, typer.Option("--schemas", envvar="MIAOPI_SCHEMAS", exists=True, help="folder that MIAOPI_SCHEMAS names")
]
SomePolicy = Annotated[str, typer.Argument(help="folder with a policy.json, or a product: the policy in service")]
SomeProduct = Annotated[str, typer.Option("--product", help="of the folder, where its name does not say")]
By = Annotated[str, typer.Option(help="who does it")]
POLICIES, SCHEMAS = Path("policy/products"), Path("features/schemas")


@app.command()
def check(
    policy: SomePolicy,
    product: SomeProduct = "",
    policies: PoliciesFolder = POLICIES,
    schemas: SchemasFolder = SCHEMAS,
) -> None:
    """All checks of loading, what a missing input does, every case, and which rows and reasons the cases reach."""
    from policy.cases import ASKED, CASES, LENT
    from policy.cases import check as check_cases
    from policy.cases import read as read_cases
    from policy.coverage import coverage

    place, product, schema = _find(policy, product, policies, schemas)
    loaded = versions.load(place, product, schema)
    console.print(_missing(loaded))
    if not (place / CASES).exists():
        _warn(f"{place / CASES}: there is none, so the policy cannot be published")
        return
    cases = read_cases(place / CASES, schema, loaded)
    check_cases(place / CASES, cases, loaded)
    reached = coverage(loaded, cases)
    table = Table("table", "rows", "reached by a case")
    for name, rows in reached.rows.items():
        table.add_row(name, str(len(rows)), str(sum(map(bool, rows.values()))))
    table.add_row("reasons", str(len(reached.reasons)), str(sum(map(bool, reached.reasons.values()))))
    console.print(table)
    rows_missed = [f"{name}.{row}" for name, rows in reached.rows.items() for row, count in rows.items() if not count]
    for what, names in (
        ("no case reaches", rows_missed),
        ("no case shows", [code for code, count in reached.reasons.items() if not count]),
        ("the policy does not read",
         sorted(set(cases[0].values) - {*loaded.columns, *ASKED, *(LENT + funder for funder in loaded.funders)})),
    ):  # fmt: skip
        if names:
            _warn(f"{what} {', '.join(names)}")
    _say(f"{product}: {loaded.version}, {len(cases)} cases pass")


@app.command()
def diff(
    old: SomePolicy,
    new: SomePolicy,
    product: SomeProduct = "",
    policies: PoliciesFolder = POLICIES,
    schemas: SchemasFolder = SCHEMAS,
) -> None:
    """What a new policy changes: tables, rows, cells, words of reasons, and which cases come out otherwise."""
    from policy.cases import CASES
    from policy.cases import read as read_cases
    from policy.difference import decided_otherwise, differences

    after, product, schema = _find(new, product, policies, schemas)
    before, _, _ = _find(old, product, policies, schemas)
    policy_of = {place: Policy.load(place, product, schema) for place in (before, after)}
    for line in differences(before, after) or ["nothing differs | 没有不同"]:
        _say(line)
    source = after if (after / CASES).exists() else before
    if not (source / CASES).exists():
        return
    cases = read_cases(source / CASES, schema, policy_of[source])
    otherwise = decided_otherwise(policy_of[before], policy_of[after], cases)
    for line in otherwise:
        _say(line)
    zh = f"{len(cases)} 个案例中 {len(otherwise)} 个结果不同"
    _say(f"{len(otherwise)} of {len(cases)} cases come out otherwise | {zh}")


@app.command()
def publish(
    folder: SomePolicy,
    by: By,
    note: Annotated[str, typer.Option(help="why")],
    product: SomeProduct = "",
    policies: PoliciesFolder = POLICIES,
    schemas: SchemasFolder = SCHEMAS,
) -> None:
    """Put a policy whose cases pass in service; running servers take it over."""
    place, product, schema = _find(folder, product, policies, schemas)
    version, before = versions.publish(policies, place, product, schema, by, note)
    _say(f"{product}: {version} is in service, before: {before.current if before else 'none'}")


@app.command()
def rollback(
    product: Annotated[str, typer.Option(help="of which product")],
    by: By,
    note: Annotated[str, typer.Option(help="why")] = "",
    policies: PoliciesFolder = POLICIES,
    schemas: SchemasFolder = SCHEMAS,
) -> None:
    """Put the version before the present one in service again."""
    roles = versions.rollback(policies, product, _schema_of(product, schemas), by, note)
    _say(f"{product}: {roles.current} is in service again")


@app.command("list")
def list_command(policies: PoliciesFolder = POLICIES) -> None:
    """What is in service, and every change of it: which version, by whom, when and why."""
    table = Table(*(Column(name, overflow="fold") for name in ("product", "version", "change", "by", "when", "note")))
    for folder in sorted(f for f in policies.iterdir() if f.is_dir()):
        roles = versions.read(folder)
        if roles is None:
            table.add_row(folder.name, "a working copy", "", "", "", "")
            continue
        for change in roles.changes:
            mark = " (in service)" if change is roles.changes[-1] else ""
            cells = folder.name, change.version, change.action + mark, change.by, change.when, change.note
            table.add_row(*map(Text, cells))
    console.print(table)


def _find(policy: str, product: str, policies: Path, schemas: Path) -> tuple[Path, str, Schema]:
    """Folder, product and schema of a policy; the product is what the folder is called, or the one that it lies in."""
    folder = Path(policy)
    if not (folder / POLICY).exists():
        if not (policies / policy).is_dir():
            zh = f"没有这个文件，{policies} 中也没有产品 {policy!r}"
            raise PolicyError(folder / POLICY, f"there is none, and no product {policy!r} in {policies}", zh=zh)
        return versions.in_service(policies / policy), policy, _schema_of(policy, schemas)
    known = versions.schemas_of(schemas)
    names = [product] if product else [folder.resolve().name, folder.resolve().parent.name]
    for name in names:
        if name in known:
            return folder, name, known[name]
    zh = f"属于哪个产品？--product 可选 {'、'.join(known)}"
    raise PolicyError(folder, f"of which product? --product is one of {', '.join(known)}", zh=zh)


def _schema_of(product: str, schemas: Path) -> Schema:
    known = versions.schemas_of(schemas)
    if product not in known:
        zh = f"没有 schema 含有产品 {product!r}，现有 {'、'.join(known)}"
        raise PolicyError(schemas, f"no schema has the product {product!r}, there are {', '.join(known)}", zh=zh)
    return known[product]


def _say(message: str) -> None:
    console.print(message, markup=False, highlight=False, soft_wrap=True)


def _missing(policy: Policy) -> Table:
    """What each table does where an input is missing, a line for each input and effect."""
    table = Table("table", "input", "where it is missing", "缺失时", "rows")
    for stated in treatments(policy.tables):
        rows = stated.rows if len(stated.rows) < 4 else (*stated.rows[:2], f"… {len(stated.rows)} rows")
        table.add_row(stated.table, stated.input, stated.en, stated.zh, ", ".join(rows))
    return table


def _warn(message: str) -> None:
    console.print(f"warning: {message}", style="yellow", markup=False, soft_wrap=True)


if __name__ == "__main__":
    try:
        app()
    except (PolicyError, SchemaError, OSError) as error:
        print(error, file=sys.stderr)
        sys.exit(2)

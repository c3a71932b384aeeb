"""`python -m policy simulate`: from the command line to simulation.json and report.html."""

import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from features import schema as schemas
from features.application import InvalidFieldError
from features.archive import ArchiveError
from features.place import Place, PlaceError
from features.schema import Schema, SchemaError
from policy import stress
from policy.archived import from_archive
from policy.dataset import from_table
from policy.errors import PolicyError
from policy.portfolio import Terms
from policy.simulate import SimulationError
from policy.stress import Scenario, StressError, Stresses
from policy.study import RECORDED, Question, Steps, study
from policy.workers import workers

if TYPE_CHECKING:
    from policy.bundles import BundleScore

REFUSED = (ArchiveError, InvalidFieldError, PlaceError, PolicyError, SchemaError, SimulationError, StressError)
PAGE, FINDINGS = "report.html", "simulation.json"
console = Console(stderr=True)


def simulate(
    out: Annotated[Path, typer.Option(help=f"folder of {PAGE} and {FINDINGS}")],
    archive: Annotated[Path | None, typer.Option(exists=True, help="folder of `python -m features archive`")] = None,
    data: Annotated[
        Path | None, typer.Option(exists=True, help="instead: a table of --schema, nothing decided")
    ] = None,
    schema: Annotated[Path | None, typer.Option(exists=True, help="with --data: its schema file")] = None,
    policy: Annotated[
        Path, typer.Option(exists=True, envvar="MIAOPI_POLICIES", help="folder whose policies in service to try")
    ] = Path("policy/products"),
    base: Annotated[str, typer.Option(help="compared with: recorded, or a folder of policies")] = RECORDED,
    bundle: Annotated[list[Path] | None, typer.Option(exists=True, help="scores anew; one of each schema")] = None,
    schema_folder: Annotated[
        Path, typer.Option("--schemas", envvar="MIAOPI_SCHEMAS", exists=True, help="with --archive: schema files")
    ] = Path("features/schemas"),
    stress_file: Annotated[
        Path | None, typer.Option("--stress", exists=True, help=f"scenarios, such as {stress.STRESS_PATH.name}")
    ] = None,
    income: Annotated[float, typer.Option(min=0, max=1, help="a scenario: incomes fall by this share")] = 0,
    unemployment: Annotated[float, typer.Option(min=0, max=1, help="a scenario: share that lose their work")] = 0,
    residual: Annotated[float, typer.Option(min=0, max=1, help="a scenario: cars fetch less by this share")] = 0,
    lgd: Annotated[float, typer.Option(min=0, max=1, help="loss given default")] = Terms.loss_given_default,
    reject_factor: Annotated[
        float, typer.Option(min=1, help="riskier than the model says are those never approved")
    ] = Terms.reject_factor,
    seed: Annotated[int, typer.Option(min=0, help="of who loses work")] = 0,
    amount_minor: Annotated[int, typer.Option(min=0, help="with --data: asked, where it has no amount")] = 0,
    term_months: Annotated[int, typer.Option(min=0, help="with --data: asked, where it has no term_months")] = 0,
    label_delay_rows: Annotated[int, typer.Option(min=1, help="with --data: rows until an outcome is known")] = 500,
    processes: Annotated[int, typer.Option(min=1)] = os.cpu_count() or 1,
    device: Annotated[
        str, typer.Option(help="auto, cpu or cuda:N: where history is walked and scored and tables run")
    ] = "auto",
) -> None:
    """What another policy or bundle would have decided, against what was; the last line is JSON."""
    from policy import bundles, report  # models and plots, for this command alone

    if (archive is None) == (data is None) or (data is None) != (schema is None):
        raise typer.BadParameter("either --archive, or --data and --schema")
    try:
        place = Place.of(device, _warn)
        scores = bundles.by_schema(bundle or (), place)
        stresses = _stresses(stress_file, income, unemployment, residual)
        if archive is not None:
            read = {made.name: made for made in (schemas.load(path) for path in sorted(schema_folder.glob("*.yaml")))}
            read |= {name: score.schema for name, score in scores.items()}
            versions = {name: score.version for name, score in scores.items()}
            records = from_archive(archive, read.values(), versions, bool(stresses.scenarios), _warn, place)
        elif data is not None and schema is not None:
            of = _same(schemas.load(schema), scores)
            records = from_table(of, data, label_delay_rows, amount_minor, term_months, _warn, place)
        against, there = None if base == RECORDED else Path(base), "cpu" if place.device is None else place.choice
        question = Question(policy, against, Terms(lgd, reject_factor), seed, there)
        with workers(processes) as some, _bar() as steps:
            found = study(records, question, scores, stresses, some, steps)
    except (*REFUSED, bundles.BundleError) as error:
        print(error, file=sys.stderr)
        raise typer.Exit(2) from None
    if found["one_process_a_run"] and processes > 1:
        console.print(
            "The policies have funders, who lend in the order of the log: each column was decided by one process."
        )
    _write(out / FINDINGS, json.dumps(found, ensure_ascii=False, indent=1, allow_nan=False) + "\n")
    _write(out / PAGE, report.render(found))
    print(json.dumps(_short(found), ensure_ascii=False, allow_nan=False))


def _same(schema: Schema, scores: "Mapping[str, BundleScore]") -> Schema:
    if schema.name in scores and scores[schema.name].schema.hash != schema.hash:
        version, of = scores[schema.name].version, scores[schema.name].schema.hash
        raise SimulationError(f"bundle {version} was made for schema {of}, {schema.name} is {schema.hash}")
    return schema


def _stresses(file: Path | None, income: float, unemployment: float, residual: float) -> Stresses:
    """The file's scenarios and those of the options, each by itself."""
    read = stress.load(file or stress.STRESS_PATH)
    asked = [
        Scenario(f"incomes fall by {100 * income:g} %", income=income),
        Scenario(f"{100 * unemployment:g} % lose their work", unemployment=unemployment),
        Scenario(f"cars fetch {100 * residual:g} % less", collateral=residual),
    ]
    given = [s for s in asked if s.income or s.unemployment or s.collateral]
    if len(given) > 1:
        given.append(Scenario("all of it", income, unemployment, residual))
    return replace(read, scenarios=(*(read.scenarios if file else ()), *given))


@contextmanager
def _bar() -> Iterator[Steps]:
    columns = TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console) as bars:
        task = bars.add_task("score and decide", total=0)
        total = 0

        def plan(rows: int) -> None:
            nonlocal total
            total += rows
            bars.update(task, total=total)

        yield Steps(plan, lambda rows: bars.advance(task, rows))


def _write(file: Path, text: str) -> None:
    """The whole file or nothing of it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    beside = file.with_name(f".{file.name}")
    beside.write_text(text, encoding="utf-8")
    beside.replace(file)


def _short(found: Mapping[str, Any]) -> dict[str, Any]:
    """The last line: totals of every column, and how many swap."""
    short = {"decisions": found["decisions"], "left_out": sum(found["left_out"].values())}
    short |= {"columns": {name: column["total"] for name, column in found["columns"].items()}}
    return short | {name: found[name]["rows"] for name in ("swap_in", "swap_out") if name in found}


def _warn(message: str) -> None:
    console.print(f"warning: {message}", style="yellow", markup=False, soft_wrap=True)

"""`python -m models communities`: from an archive or a table to communities, ranked, in the terminal and in files."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import polars as pl
import typer
from rich.console import Console
from rich.table import Table

from features import schema as schemas
from models import linked
from models.linked import Linked

console = Console(width=120)
SHOWN = ("community", "score", "applications", "applicants", "shared", "density", "bad_share", "lift", "days")
SUFFIXES = (".csv", ".parquet")


def communities(
    archive: Annotated[Path | None, typer.Option(exists=True, help="folder of `python -m features archive`")] = None,
    data: Annotated[Path | None, typer.Option(exists=True, help="instead: a table of --schema")] = None,
    schema: Annotated[Path | None, typer.Option(exists=True, help="with --data: its schema file")] = None,
    label: Annotated[str, typer.Option(help="fraud or default: what counts as bad")] = "fraud",
    out: Annotated[Path | None, typer.Option(help="CSV or Parquet to write: a row a community")] = None,
    members: Annotated[Path | None, typer.Option(help="CSV or Parquet to write: community of each application")] = None,
    top: Annotated[int, typer.Option(min=0, help="communities to print")] = 20,
    applicants_max: Annotated[int, typer.Option(min=2, help="who share an entity: with more it is a hub")] = 10,
    gap_days: Annotated[float, typer.Option(min=0, help="between two uses of an entity that tie")] = 7.0,
    span_days: Annotated[float, typer.Option(min=0, help="that a ring's burst lasts at most")] = 15.0,
    seed: Annotated[int, typer.Option(min=0, help="of Louvain")] = 0,
) -> None:
    """Communities of a history's graph, those that look like rings first; strictly offline."""
    from models import communities as module  # networkx, for this command alone

    if (archive is None) == (data is None) or (data is None) != (schema is None):
        raise typer.BadParameter("either --archive, or --data and --schema")
    for file in (out, members):
        if file is not None and file.suffix not in SUFFIXES:
            raise typer.BadParameter(f"{file}: must end in {' or '.join(SUFFIXES)}")
    linked.check_label(label)
    if archive is not None:
        made = linked.from_archive(archive, label, _warn)
    elif data is not None and schema is not None:
        made = linked.from_table(schemas.load(schema), data, label, _warn)
    limits = module.Limits(applicants_max, gap_days, span_days, seed)
    with console.status("looking for communities"):
        found = module.communities(made, limits, _warn)
    rows = module.figures(found)
    _show(rows[:top], f"{label}: {len(found)} communities of {len(made)} applications, {module.backend()}")
    if out is not None:
        _write(out, pl.DataFrame(rows, schema=module.FIGURES))
    if members is not None:
        _write(members, _members(made, found))


def _members(made: Linked, found: Sequence[Any]) -> pl.DataFrame:
    pairs = [(number, made.ids[row]) for number, c in enumerate(found, 1) for row in c.rows.tolist()]
    return pl.DataFrame(pairs, schema={"community": pl.Int64, "application": pl.String}, orient="row")


def _show(rows: Sequence[dict[str, Any]], title: str) -> None:
    printed = Table(title=title)
    for name in SHOWN:
        printed.add_column(name.replace("_", " "), justify="left" if name == "shared" else "right")
    for row in rows:
        printed.add_row(*(_text(row[name]) for name in SHOWN))
    console.print(printed)


def _text(value: object) -> str:
    if value is None:
        return "–"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _write(file: Path, frame: pl.DataFrame) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix == ".csv":
        frame.write_csv(file)
    else:
        frame.write_parquet(file)
    console.print(f"{len(frame)} rows into {file}", markup=False, highlight=False, soft_wrap=True)


def _warn(message: str) -> None:
    console.print(f"warning: {message}", style="yellow", markup=False, soft_wrap=True)

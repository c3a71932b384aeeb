"""Command line of the models: train a bundle from a table, evaluate a bundle on one."""

import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import polars as pl
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from features import schema as schemas
from features import table
from features.application import InvalidFieldError, Snapshot
from features.replay import Rows, replay
from features.schema import SPLITS, Schema, SchemaError
from features.table import TableRow
from features.tokens import Tokenizer
from models.bundle import Bundle, BundleError
from models.evaluate import metrics
from models.scorer import LABELS, Scorer
from models.train import TrainConfig, TrainingError, train

SCORED_AT_ONCE = 1024

app = typer.Typer(no_args_is_help=True, add_completion=False)
console = Console()

SchemaFile = Annotated[Path, typer.Option("--schema", exists=True, help="schema file with a table section")]
DataFile = Annotated[Path, typer.Option("--data", exists=True, help="Parquet table of that schema")]
Delay = Annotated[int, typer.Option(min=1, help="rows after which an outcome becomes known")]


@app.command("train")
def train_command(
    schema: SchemaFile,
    data: DataFile,
    out: Annotated[Path, typer.Option(help="folder of the bundle, replaced if it exists")],
    seed: int = 0,
    split: Annotated[str, typer.Option(help="time or stratified; what the schema says unless given")] = "",
    fit_share: Annotated[float, typer.Option(help="by time, share of the rows, the earliest, to fit on")] = 0.75,
    search_seconds: Annotated[float, typer.Option(min=0, help="after which no candidate more is tried")] = 20.0,
    label_delay_rows: Delay = 500,
) -> None:
    """Train a bundle on the rows of a table, replayed in order of time."""
    loaded = schemas.load(schema)
    found = table.read(loaded, data, warn=_warn)
    if split not in ("", *SPLITS):
        raise SchemaError(f"--split: must be {' or '.join(SPLITS)}")
    config = TrainConfig(
        seed, split or (loaded.table.split if loaded.table else ""), fit_share, search_seconds,
        table.category_names(loaded, found),
    )  # fmt: skip
    rows = _replayed(loaded, found, label_delay_rows, settled=True)
    with console.status("training") as status:
        bundle = train(rows, out, config, progress=status.update)
    console.print((bundle / "model_card.md").read_text(encoding="utf-8"), markup=False, soft_wrap=True)


@app.command()
def score(
    bundle: Annotated[Path, typer.Option(exists=True, help="folder of the bundle")],
    data: DataFile,
    out: Annotated[Path, typer.Option(help="CSV to write: id and score, higher is riskier, in the order of the data")],
    history: Annotated[
        Path | None, typer.Option(exists=True, help="earlier rows with labels, to warm the graph")
    ] = None,
    label: Annotated[str, typer.Option(help="fraud or default; the schema's first unless given")] = "",
    label_delay_rows: Delay = 500,
) -> None:
    """Score the rows of a table with a bundle; its columns of labels, if it has them, are not looked at."""
    loaded = Bundle.open(bundle)
    wanted = label or next(iter(loaded.models))
    if wanted not in loaded.models:
        raise BundleError(f"{bundle}: has no model of {wanted!r}, but of {', '.join(loaded.models)}")
    later = table.read(loaded.schema, data, labelled=False, warn=_warn)
    past = table.read(loaded.schema, history, warn=_warn) if history else []
    every = table.merged(past, later)
    rows = _replayed(loaded.schema, every, label_delay_rows)
    chosen = np.array([i for i, row in enumerate(every) if not row.past], dtype=np.int64)
    probability = _scores(Scorer(loaded), rows.snapshot.take(chosen), wanted)
    by_place = sorted(zip((every[i] for i in chosen), probability, strict=True), key=lambda pair: pair[0].position)
    id_column = (loaded.schema.table.id if loaded.schema.table else "") or "row"
    frame = pl.DataFrame({id_column: [r.row_id for r, _ in by_place], "score": [float(p) for _, p in by_place]})
    frame.write_csv(out)
    console.print(f"{len(frame)} rows scored by {loaded.version} into {out}", soft_wrap=True)


@app.command()
def evaluate(
    bundle: Annotated[Path, typer.Option(exists=True, help="folder of the bundle")],
    schema: SchemaFile,
    data: DataFile,
    label_delay_rows: Delay = 500,
) -> None:
    """Score a table with a bundle and print its figures before, in and after the time it was trained on."""
    loaded = Bundle.load(bundle, schemas.load(schema))
    rows = _replayed(loaded.schema, table.read(loaded.schema, data, warn=_warn), label_delay_rows)
    scorer = Scorer(loaded)
    window = loaded.manifest["training"]
    # 0 rows fitted on, 1 rows that stopped and calibrated, 2 rows the bundle has never seen
    period = np.searchsorted([window["fit_until_ms"], window["until_ms"] + 1], rows.event_time_ms, side="right")
    for label in (name for name in LABELS if name in loaded.models):
        probability = _scores(scorer, rows.snapshot, label)
        figures = {}
        for number, name in enumerate(("fitted", "validated", "later")):
            chosen = (period == number) & (rows.labels[label] >= 0)
            if chosen.any():
                figures[name] = metrics(rows.labels[label][chosen], probability[chosen])
        console.print(_figures(f"{label}, bundle {loaded.version}", figures))


def _replayed(schema: Schema, rows: Sequence[TableRow], label_delay_rows: int, *, settled: bool = False) -> Rows:
    tokenizer = Tokenizer(secrets.token_bytes(32))  # tokens tie rows together; none outlives this process
    ordered = list(table.in_log_order(rows, label_delay_rows))
    history = table.history(schema, tokenizer, ordered, settled=settled)
    with Progress(console=console) as progress:
        task = progress.add_task("replay", total=len(history.events))
        return replay(history, lambda done: progress.advance(task, done))[schema.name]


def _scores(scorer: Scorer, snapshot: Snapshot, label: str) -> NDArray[np.float64]:
    """float64 [N] probabilities of a label."""
    starts = range(0, len(snapshot), SCORED_AT_ONCE)
    parts = [scorer.score(snapshot.take(slice(i, i + SCORED_AT_ONCE))) for i in starts]
    return np.concatenate([getattr(part, f"{label}_probability") for part in parts])


def _warn(message: str) -> None:
    console.print(f"warning: {message}", style="yellow", markup=False, soft_wrap=True)


def _figures(title: str, figures: dict[str, dict[str, float]]) -> Table:
    printed = Table("figure", *figures, title=title)
    for name in next(iter(figures.values()), {}):
        printed.add_row(name, *(f"{part[name]:.4g}" for part in figures.values()))
    return printed


if __name__ == "__main__":
    try:
        app()
    except (SchemaError, InvalidFieldError, BundleError, TrainingError) as error:
        raise SystemExit(str(error)) from None

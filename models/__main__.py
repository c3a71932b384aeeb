"""Command line of the models: train a bundle from a table, evaluate a bundle on one."""

import secrets
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from features import schema as schemas
from features import table
from features.replay import Rows, replay
from features.schema import Schema, SchemaError
from features.tokens import Tokenizer
from models.bundle import Bundle, BundleError
from models.evaluate import metrics
from models.scorer import LABELS, Scorer
from models.train import TrainingError, train

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
    fit_share: Annotated[float, typer.Option(help="share of the rows, the earliest, to fit on")] = 0.75,
    label_delay_rows: Delay = 500,
) -> None:
    """Train a bundle on the rows of a table, replayed in order of time."""
    rows = _rows(schemas.load(schema), data, label_delay_rows)
    command = (  # names without folders: a bundle holds no path
        f"python -m models train --schema {schema.name} --data {data.name} --out {rows.schema.name} --seed {seed} "
        f"--fit-share {fit_share} --label-delay-rows {label_delay_rows}"
    )
    with console.status("training") as status:
        bundle = train(rows, out, seed=seed, fit_share=fit_share, command=command, progress=status.update)
    console.print((bundle / "model_card.md").read_text(encoding="utf-8"), markup=False, soft_wrap=True)


@app.command()
def evaluate(
    bundle: Annotated[Path, typer.Option(exists=True, help="folder of the bundle")],
    schema: SchemaFile,
    data: DataFile,
    label_delay_rows: Delay = 500,
) -> None:
    """Score a table with a bundle and print its figures before, in and after the time it was trained on."""
    loaded = Bundle.load(bundle, schemas.load(schema))
    rows = _rows(loaded.schema, data, label_delay_rows)
    scorer = Scorer(loaded)
    starts = range(0, len(rows.snapshot), SCORED_AT_ONCE)
    parts = [scorer.score(rows.snapshot.take(slice(i, i + SCORED_AT_ONCE))) for i in starts]
    window = loaded.manifest["training"]
    # 0 rows fitted on, 1 rows that stopped, stacked and calibrated, 2 rows the bundle has never seen
    period = np.searchsorted([window["fit_until_ms"], window["until_ms"] + 1], rows.event_time_ms, side="right")
    for label in (name for name in LABELS if name in loaded.models):
        probability = np.concatenate([getattr(part, f"{label}_probability") for part in parts])
        figures = {}
        for number, name in enumerate(("fitted", "validated", "later")):
            chosen = (period == number) & (rows.labels[label] >= 0)
            if chosen.any():
                figures[name] = metrics(rows.labels[label][chosen], probability[chosen])
        console.print(_figures(f"{label}, bundle {loaded.version}", figures))


def _rows(schema: Schema, data: Path, label_delay_rows: int) -> Rows:
    tokenizer = Tokenizer(secrets.token_bytes(32))  # tokens tie rows together; none outlives this process
    ordered = list(table.in_log_order(table.read(schema, data), label_delay_rows))
    history = table.history(schema, tokenizer, ordered)
    with Progress(console=console) as progress:
        task = progress.add_task("replay", total=len(history.events))
        return replay(history, lambda done: progress.advance(task, done))[schema.name]


def _figures(title: str, figures: dict[str, dict[str, float]]) -> Table:
    printed = Table("figure", *figures, title=title)
    for name in next(iter(figures.values()), {}):
        printed.add_row(name, *(f"{part[name]:.4g}" for part in figures.values()))
    return printed


if __name__ == "__main__":
    try:
        app()
    except (SchemaError, BundleError, TrainingError) as error:
        raise SystemExit(str(error)) from None

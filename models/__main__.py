"""Command line of the models: train a bundle from a table, score or evaluate one with it."""

import json
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from features import schema as schemas
from features import table
from features.application import InvalidFieldError
from features.columns import read_frame
from features.schema import SchemaError
from features.specs import SPLITS
from models import residual
from models.bundle import Bundle, BundleError
from models.evaluate import metrics
from models.export import figure_words
from models.folds import TrainingError
from models.recipe import TrainConfig
from models.scorer import LABELS, Scorer
from models.tables import LABEL_DELAY_ROWS, probabilities, replayed, score_table, train_table

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
    test_share: Annotated[
        float, typer.Option(min=0, max=0.5, help="of the rows, to test the recipe on for the report; 0: no report")
    ] = 0.2,
    search_seconds: Annotated[float, typer.Option(min=0, help="after which no candidate more is tried")] = 20.0,
    trees_max: Annotated[int, typer.Option(min=0, help="trees kept, which bounds a decision's time; 0: no limit")] = 0,
    keep_gnn: Annotated[bool, typer.Option("--keep-gnn", help="also where it does not raise the AUPRC")] = False,
    label_delay_rows: Delay = LABEL_DELAY_ROWS,
) -> None:
    """Train a bundle on the rows of a table, replayed in order of time."""
    loaded = schemas.load(schema)
    if split not in ("", *SPLITS):
        raise SchemaError(f"--split: must be {' or '.join(SPLITS)}")
    if loaded.table is None:
        raise SchemaError(f"{schema}: table: is missing, so {data} cannot be read")
    config = TrainConfig(seed, split or loaded.table.split, fit_share, test_share, search_seconds, trees_max, keep_gnn)
    command = (  # names without folders: a bundle holds no path
        f"python -m models train --schema {schema.name} --data {data.name} --out {loaded.name} --seed {seed} "
        f"--split {config.split} --fit-share {fit_share} --test-share {test_share} "
        f"--search-seconds {search_seconds} --trees-max {trees_max} {'--keep-gnn ' * keep_gnn}"
        f"--label-delay-rows {label_delay_rows}"
    )
    with console.status("training") as status:
        bundle = train_table(
            loaded, data, out, config, command=command, label_delay_rows=label_delay_rows, warn=_warn,
            progress=status.update,
        )  # fmt: skip
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
    label_delay_rows: Delay = LABEL_DELAY_ROWS,
) -> None:
    """Score the rows of a table with a bundle; its columns of labels, if it has them, are not looked at."""
    loaded = Bundle.open(bundle)
    with console.status("scoring") as status:
        scored = score_table(
            loaded, data, history, label, label_delay_rows=label_delay_rows, warn=_warn, progress=status.update
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    scored.write_csv(out)
    console.print(f"{len(scored)} rows scored by {loaded.version} into {out}", soft_wrap=True)


@app.command()
def evaluate(
    bundle: Annotated[Path, typer.Option(exists=True, help="folder of the bundle")],
    schema: SchemaFile,
    data: DataFile,
    label_delay_rows: Delay = LABEL_DELAY_ROWS,
) -> None:
    """Score a table with a bundle and print its figures of rows learned from, that only calibrated, and later."""
    loaded = Bundle.load(bundle, schemas.load(schema))
    rows = replayed(loaded.schema, table.read(loaded.schema, data, warn=_warn), label_delay_rows, settled=True)
    scorer = Scorer(loaded)
    until_ms = loaded.manifest["training"]["until_ms"]
    for label in (name for name in LABELS if name in loaded.models):
        # 0 rows learned from, 1 rows that stacked and calibrated alone, 2 rows the bundle has never seen
        bounds = [loaded.manifest["labels"][label]["learned_until_ms"], until_ms + 1]
        period = np.searchsorted(bounds, rows.event_time_ms, side="right")
        probability = probabilities(scorer, rows.snapshot, label)
        figures = {}
        for number, name in enumerate(("learned", "calibrated", "later")):
            chosen = (period == number) & (rows.labels[label] >= 0)
            if chosen.any():
                figures[name] = metrics(rows.labels[label][chosen], probability[chosen])
        console.print(_figures(f"{label}, bundle {loaded.version}", figures))


@app.command("residual")
def residual_command(
    schema: Annotated[Path, typer.Option(exists=True, help="schema file with a residual_value section")],
    sales: Annotated[Path, typer.Option(exists=True, help="Parquet or CSV table of sales")],
    seed: int = 0,
) -> None:
    """Train the residual-value model on a table of sales and print its figures; the last line is JSON."""
    with console.status("training"):
        model = residual.train(schemas.load(schema), read_frame(sales), seed, file=sales, warn=_warn)
    printed = Table("figure", "value", title="residual value")
    for name, words in figure_words(model.figures):
        printed.add_row(name, words)
    console.print(printed)
    print(json.dumps(model.figures))


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

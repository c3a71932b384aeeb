"""Command line of the models: train a bundle from a table or an archive, score, evaluate, compare two bundles."""

import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from features import schema as schemas
from features import table
from features.application import InvalidFieldError
from features.archive import ArchiveError
from features.columns import read_frame
from features.schema import SchemaError
from features.specs import SPLITS
from models import compare, residual
from models.archive import train_archive
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
SomeData = Annotated[Path | None, typer.Option("--data", exists=True, help="Parquet table of the schema")]
SomeArchive = Annotated[
    Path | None, typer.Option("--archive", exists=True, help="folder that `python -m features archive` wrote")
]
SomeBundle = Annotated[Path | None, typer.Option(exists=True, help="folder of the bundle")]
Delay = Annotated[int, typer.Option(min=1, help="rows after which an outcome becomes known")]


@app.command("train")
def train_command(
    schema: SchemaFile,
    out: Annotated[Path, typer.Option(help="folder of the bundle, replaced if it exists")],
    data: SomeData = None,
    archive: SomeArchive = None,
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
    """Train a bundle on the rows of a table, replayed in order of time, or on an archive's decisions."""
    source = _one_of(data, archive)
    loaded = schemas.load(schema)
    if split not in ("", *SPLITS):
        raise SchemaError(f"--split: must be {' or '.join(SPLITS)}")
    if data is not None:
        if loaded.table is None:
            raise SchemaError(f"{schema}: table: is missing, so {data} cannot be read")
        split = split or loaded.table.split
    config = TrainConfig(seed, split or "time", fit_share, test_share, search_seconds, trees_max, keep_gnn)
    command = (  # names without folders: a bundle holds no path
        f"python -m models train --schema {schema.name} {'--archive' if data is None else '--data'} {source.name} "
        f"--out {loaded.name} --seed {seed} --split {config.split} --fit-share {fit_share} --test-share {test_share} "
        f"--search-seconds {search_seconds} --trees-max {trees_max}{' --keep-gnn' * keep_gnn}"
        + ("" if data is None else f" --label-delay-rows {label_delay_rows}")
    )
    with console.status("training") as status:
        if data is None:
            bundle = train_archive(loaded, source, out, config, command=command, progress=status.update)
        else:
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


@app.command("compare")
def compare_command(
    champion: SomeBundle = None,
    challenger: SomeBundle = None,
    data: SomeData = None,
    history: Annotated[
        Path | None, typer.Option(exists=True, help="with --data: earlier rows with labels, to warm the graph")
    ] = None,
    archive: SomeArchive = None,
    recorded: Annotated[bool, typer.Option(help="with --archive: what challengers scored in service")] = False,
    stopped_share: Annotated[float, typer.Option(min=0, max=1, help="share that both stop")] = compare.STOPPED_SHARE,
    label_delay_rows: Delay = LABEL_DELAY_ROWS,
) -> None:
    """Compare two bundles on the same rows, or what was recorded of them in service; the last line is JSON."""
    source = _one_of(data, archive)
    if (history and data is None) or (recorded and archive is None):
        raise typer.BadParameter("--history goes with --data, --recorded with --archive")
    if recorded:
        if champion or challenger:
            raise typer.BadParameter("--recorded compares what was scored in service, without bundles")
        contests = compare.recorded(source)
    else:
        if champion is None or challenger is None:
            raise typer.BadParameter("--champion and --challenger are both needed unless --recorded")
        first, second = Bundle.open(champion), Bundle.open(challenger)
        with console.status("scoring") as status:
            contests = [
                compare.on_archive(first, second, source, progress=status.update)
                if data is None
                else compare.on_table(
                    first, second, data, history, label_delay_rows=label_delay_rows, warn=_warn, progress=status.update
                )
            ]
    comparisons = [compare.comparison(contest, stopped_share) for contest in contests]
    for found in comparisons:
        _show(found)
    print(json.dumps({"comparisons": comparisons}, allow_nan=False))


def _show(found: dict[str, Any]) -> None:
    """A comparison as a person reads it."""
    for name in ("champion", "challenger"):
        if found[name]["rows_learned_from"]:
            _warn(
                f"{found[name]['rows_learned_from']} of {found['rows']} rows lie in the training window of the {name} "
                f"{found[name]['version']}: figures on rows learned from flatter"
            )
    for label, figures in found["labels"].items():
        printed = Table(
            "figure", *(f"{name} {found[name]['version']}" for name in ("champion", "challenger")),
            title=f"{label}, {figures['rows']} rows, {figures['known']} with a label, {figures['bad']} of them bad",
        )  # fmt: skip
        for name in compare.FIGURES:
            printed.add_row(name, *(_text(figures[side][name]) for side in ("champion", "challenger")))
        console.print(printed)
        difference = figures["auc_difference"]
        console.print(
            f"AUC of the challenger less the champion's {_text(difference['challenger_less_champion'])}, 95 % interval "
            f"{_text(difference['low'])} to {_text(difference['high'])}; PSI of the scores {_text(figures['psi'])}",
            soft_wrap=True,
        )
        groups = {
            "approved by the champion": figures["champion"]["approved"],
            "approved by the challenger": figures["challenger"]["approved"],
            "swap-in": figures["swap_in"], "swap-out": figures["swap_out"],
        }  # fmt: skip
        for name, group in groups.items():
            console.print(f"{name}: {group['rows']}, bad rate {_text(group['bad_rate'])} of {group['known']} known")


def _text(number: float | None) -> str:
    return "unknown" if number is None else f"{number:.4g}"


def _one_of(data: Path | None, archive: Path | None) -> Path:
    """The one that is given."""
    if (source := data or archive) is None or (data and archive):
        raise typer.BadParameter("exactly one of --data and --archive")
    return source


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
    except (SchemaError, InvalidFieldError, ArchiveError, BundleError, TrainingError) as error:
        raise SystemExit(str(error)) from None

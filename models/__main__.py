"""Command line of the models: train, score and evaluate bundles, compare two, and say which of them decides.

What trains is imported by the commands that train: roles change where nothing but the service is installed.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from features import schema as schemas
from features import table
from features.application import InvalidFieldError
from features.archive import ArchiveError
from features.columns import read_frame
from features.place import Place, PlaceError
from features.schema import SchemaError
from features.specs import SPLITS
from models import compare, registry_command, show
from models.bundle import Bundle, BundleError
from models.communities_command import communities
from models.evaluate import metrics
from models.history_scorer import HistoryScorer
from models.scorer import LABELS
from models.tables import LABEL_DELAY_ROWS, Say, replayed, score_table, train_table

app = typer.Typer(no_args_is_help=True, add_completion=False)
console = Console()
for command in (communities, registry_command.promote, registry_command.retire, registry_command.rollback):
    app.command()(command)
app.command("list")(registry_command.list_command)

SchemaFile = Annotated[Path, typer.Option("--schema", exists=True, help="schema file with a table section")]
DataFile = Annotated[Path, typer.Option("--data", exists=True, help="Parquet or CSV table of that schema")]
SomeData = Annotated[Path | None, typer.Option("--data", exists=True, help="Parquet or CSV table of the schema")]
SomeArchive = Annotated[
    Path | None, typer.Option("--archive", exists=True, help="folder that `python -m features archive` wrote")
]
SomeBundle = Annotated[Path | None, typer.Option(exists=True, help="folder of the bundle")]
DeviceChoice = Annotated[str, typer.Option("--device", help="auto, cpu or cuda:N: where history is walked and scored")]
Delay = Annotated[int, typer.Option(min=1, help="rows after which an outcome becomes known")]


@app.command("train")
def train_command(
    schema: SchemaFile,
    out: Annotated[Path, typer.Option(help="folder of the bundle, replaced if it exists")],
    data: SomeData = None,
    archive: SomeArchive = None,
    seed: int = 0,
    split: Annotated[str, typer.Option(help="time or stratified; what the schema says unless given")] = "",
    fit_share: Annotated[
        float, typer.Option(min=0.1, max=0.9, help="by time, share of the rows, the earliest, to fit on")
    ] = 0.75,
    test_share: Annotated[
        float, typer.Option(min=0, max=0.5, help="of the rows, to test the recipe on for the report; 0: no report")
    ] = 0.2,
    search_seconds: Annotated[float, typer.Option(min=0, help="after which no candidate more is tried")] = 30.0,
    trees_max: Annotated[int, typer.Option(min=0, help="trees kept, which bounds a decision's time; 0: no limit")] = 0,
    keep_gnn: Annotated[bool, typer.Option("--keep-gnn", help="also where it does not raise the AUPRC")] = False,
    network: Annotated[str, typer.Option(help="gnn, or deep: two hops, for a GPU")] = "gnn",
    label_delay_rows: Delay = LABEL_DELAY_ROWS,
    device: DeviceChoice = "auto",
) -> None:
    """Train a bundle on the rows of a table, replayed in order of time, or on an archive's decisions."""
    from models.archive import train_archive
    from models.folds import TrainingError
    from models.networks import device as opened
    from models.recipe import NETWORKS, TrainConfig, steps_at_most

    source, place = _one_of(data, archive), Place.of(device, _warn)
    loaded = schemas.load(schema)
    if split not in ("", *SPLITS):
        raise SchemaError(f"--split: must be {' or '.join(SPLITS)}")
    if data is not None:
        if loaded.table is None:
            raise SchemaError(f"{schema}: table: is missing, so {data} cannot be read")
        split = split or loaded.table.split
    if network not in NETWORKS:
        raise SchemaError(f"--network: must be {' or '.join(NETWORKS)}")
    try:
        on = str(opened(place.choice))  # before hours of work
    except InvalidFieldError as error:
        if device != "auto":
            raise
        _warn(f"the network is trained on the CPU: {error}")
        on = "cpu"
    config = TrainConfig(seed, split or "time", fit_share, test_share, search_seconds, trees_max, keep_gnn, network, on)
    command = (  # names without folders: a bundle holds no path
        f"python -m models train --schema {schema.name} {'--archive' if data is None else '--data'} {source.name} "
        f"--out {loaded.name} --seed {seed} --split {config.split} --fit-share {fit_share} --test-share {test_share} "
        f"--search-seconds {search_seconds} --trees-max {trees_max}{' --keep-gnn' * keep_gnn}"
        + ("" if (network, on) == ("gnn", "cpu") else f" --network {network} --device {on}")
        + ("" if data is None else f" --label-delay-rows {label_delay_rows}")
    )
    try:
        with _bar(steps_at_most(loaded, config)) as progress:
            if data is None:
                bundle = train_archive(
                    loaded, source, out, config, command=command, warn=_warn, progress=progress, place=place
                )
            else:
                bundle = train_table(
                    loaded, data, out, config, command=command, label_delay_rows=label_delay_rows, warn=_warn,
                    progress=progress, place=place,
                )  # fmt: skip
    except TrainingError as error:
        raise SystemExit(str(error)) from None
    _say((bundle / "model_card.md").read_text(encoding="utf-8"))
    if (report := bundle / "report.html").exists():
        _say(f"report: {report}")


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
    device: DeviceChoice = "auto",
) -> None:
    """Score the rows of a table with a bundle; its columns of labels, if it has them, are not looked at."""
    loaded, place = Bundle.open(bundle), Place.of(device, _warn)
    with console.status("scoring") as status:
        scored = score_table(
            loaded, data, history, label, label_delay_rows=label_delay_rows, warn=_warn, progress=status.update,
            place=place,
        )  # fmt: skip
    out.parent.mkdir(parents=True, exist_ok=True)
    scored.write_csv(out)
    _say(f"{len(scored)} rows scored by {loaded.version} into {out}")


@app.command()
def evaluate(
    bundle: Annotated[Path, typer.Option(exists=True, help="folder of the bundle")],
    schema: SchemaFile,
    data: DataFile,
    label_delay_rows: Delay = LABEL_DELAY_ROWS,
    device: DeviceChoice = "auto",
) -> None:
    """Score a table with a bundle and print its figures of rows learned from, that only calibrated, and later."""
    loaded, place = Bundle.load(bundle, schemas.load(schema)), Place.of(device, _warn)
    found = table.read(loaded.schema, data, warn=_warn)
    rows = replayed(loaded.schema, found, label_delay_rows, settled=True, place=place, deep=loaded.deep)
    scorer = HistoryScorer(loaded, place)
    until_ms = loaded.manifest["training"]["until_ms"]
    timed = loaded.schema.table is not None and bool(loaded.schema.table.time)
    if not timed:
        _warn(compare.no_time(data))
    for label in (name for name in LABELS if name in loaded.models):
        # 0 rows learned from, 1 rows that stacked and calibrated alone, 2 rows the bundle has never seen
        bounds = [loaded.manifest["labels"][label]["learned_until_ms"], until_ms + 1]
        period = np.searchsorted(bounds, rows.event_time_ms, side="right") if timed else np.zeros(len(rows.snapshot))
        probability = scorer.probability(rows.snapshot, label)
        figures = {}
        for number, name in enumerate(("learned", "calibrated", "later") if timed else ("all",)):
            chosen = (period == number) & (rows.labels[label] >= 0)
            if chosen.any():
                figures[name] = metrics(rows.labels[label][chosen], probability[chosen])
        console.print(show.figures(f"{label}, bundle {loaded.version}", figures))


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
                compare.on_archive(first, second, source, warn=_warn, progress=status.update)
                if data is None
                else compare.on_table(
                    first, second, data, history, label_delay_rows=label_delay_rows, warn=_warn, progress=status.update
                )
            ]
    comparisons = [compare.comparison(contest, stopped_share) for contest in contests]
    for found in comparisons:
        for warning in compare.warnings(found):
            _warn(warning)
        show.comparison(console, found)
    print(json.dumps({"comparisons": comparisons}, allow_nan=False))


@app.command("residual")
def residual_command(
    schema: Annotated[Path, typer.Option(exists=True, help="schema file with a residual_value section")],
    sales: Annotated[Path, typer.Option(exists=True, help="Parquet or CSV table of sales")],
    seed: int = 0,
) -> None:
    """Train the residual-value model on a table of sales and print its figures; the last line is JSON."""
    from models import residual
    from models.card import figure_words

    with console.status("training"):
        model = residual.train(schemas.load(schema), read_frame(sales), seed, file=sales, warn=_warn)
    for name, words in figure_words(model.figures):
        _say(f"{name}: {words}")
    print(json.dumps(model.figures))


@contextmanager
def _bar(steps: int) -> Iterator[Say]:
    """A bar that moves by one at each step said; it fills at the end, as fewer steps than `steps` may be needed."""
    columns = SpinnerColumn(), BarColumn(), TimeElapsedColumn(), TextColumn("{task.description}", markup=False)
    with Progress(*columns, console=console) as bars:
        task = bars.add_task("training", total=steps)
        yield lambda said: bars.update(task, advance=1, description=said)
        bars.update(task, completed=steps, description="trained")


def _one_of(data: Path | None, archive: Path | None) -> Path:
    """The one that is given."""
    if (source := data or archive) is None or (data and archive):
        raise typer.BadParameter("exactly one of --data and --archive")
    return source


def _say(message: str) -> None:
    console.print(message, markup=False, highlight=False, soft_wrap=True)


def _warn(message: str) -> None:
    console.print(f"warning: {message}", style="yellow", markup=False, soft_wrap=True)


if __name__ == "__main__":
    try:
        app()
    except (SchemaError, InvalidFieldError, ArchiveError, BundleError, PlaceError) as error:
        raise SystemExit(str(error)) from None

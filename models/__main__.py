"""Command line of the models: train a bundle from a table, score or evaluate one with it, give it a role.

What trains is imported by the commands that train: roles change where nothing but the service is installed.
"""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from features import schema as schemas
from features import table
from features.application import InvalidFieldError
from features.schema import SchemaError
from features.specs import SPLITS
from models import registry as registries
from models.bundle import MANIFEST, Bundle, BundleError
from models.scorer import LABELS, Scorer
from models.tables import LABEL_DELAY_ROWS, probabilities, replayed, score_table, train_table

app = typer.Typer(no_args_is_help=True, add_completion=False)
console = Console()

SchemaFile = Annotated[Path, typer.Option("--schema", exists=True, help="schema file with a table section")]
DataFile = Annotated[Path, typer.Option("--data", exists=True, help="Parquet table of that schema")]
RegistryFolder = Annotated[Path, typer.Option("--registry", help="folder that MIAOPI_BUNDLES names")]
SchemasFolder = Annotated[Path, typer.Option("--schemas", exists=True, help="folder that MIAOPI_SCHEMAS names")]
SchemaName = Annotated[str, typer.Option("--schema", help="name of the schema")]
SCHEMAS = Path("features/schemas")
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
    trees_max: Annotated[int, typer.Option(min=0, help="trees kept, which bounds a decision's time; 0: no limit")] = 0,
    label_delay_rows: Delay = LABEL_DELAY_ROWS,
) -> None:
    """Train a bundle on the rows of a table, replayed in order of time."""
    from models.train import TrainConfig, TrainingError

    loaded = schemas.load(schema)
    if split not in ("", *SPLITS):
        raise SchemaError(f"--split: must be {' or '.join(SPLITS)}")
    if loaded.table is None:
        raise SchemaError(f"{schema}: table: is missing, so {data} cannot be read")
    config = TrainConfig(seed, split or loaded.table.split, fit_share, search_seconds, trees_max)
    command = (  # names without folders: a bundle holds no path
        f"python -m models train --schema {schema.name} --data {data.name} --out {loaded.name} --seed {seed} "
        f"--split {config.split} --fit-share {fit_share} --search-seconds {search_seconds} "
        f"--trees-max {trees_max} "
        f"--label-delay-rows {label_delay_rows}"
    )
    try:
        with console.status("training") as status:
            bundle = train_table(
                loaded, data, out, config, command=command, label_delay_rows=label_delay_rows, warn=_warn,
                progress=status.update,
            )  # fmt: skip
    except TrainingError as error:
        raise SystemExit(str(error)) from None
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
    from models.evaluate import metrics

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


@app.command()
def promote(
    bundle: Annotated[Path, typer.Option(exists=True, help="folder of the bundle")],
    registry: RegistryFolder,
    challenger: Annotated[bool, typer.Option("--challenger", help="score it beside the champion only")] = False,
    schema_folder: SchemasFolder = SCHEMAS,
) -> None:
    """Make a bundle the champion of its schema, which running servers take over; or a challenger."""
    schema = registries.served_schema(schema_folder, Bundle.open(bundle).schema.name)
    if challenger:
        version, _ = registries.challenge(registry, bundle, schema)
        _say(f"{schema.name}: {version} is a challenger")
    else:
        version, before = registries.promote(registry, bundle, schema)
        _say(f"{schema.name}: {version} is the champion, before: {before.champion if before else 'none'}")


@app.command()
def retire(
    registry: RegistryFolder, schema: SchemaName, version: Annotated[str, typer.Option(help="the challenger's version")]
) -> None:
    """Score a challenger no longer. Its bundle stays."""
    registries.retire(registry, schema, version)
    _say(f"{schema}: {version} is no challenger any more")


@app.command()
def rollback(registry: RegistryFolder, schema: SchemaName, schema_folder: SchemasFolder = SCHEMAS) -> None:
    """Make the champion before the present one champion again."""
    roles = registries.rollback(registry, registries.served_schema(schema_folder, schema))
    _say(f"{schema}: {roles.champion} is the champion again")


@app.command("list")
def list_command(registry: RegistryFolder) -> None:
    """Every version with its role, the window of time it was trained on and its figures."""
    printed = Table("schema", "version", "role", "trained", "figures of its calibration")
    for file in sorted(registry.glob(f"*/{registries.ROLES}")):
        roles = registries.read(file.parent)
        for folder in sorted(found.parent for found in file.parent.glob(f"[!.]*/{MANIFEST}")):
            manifest = Bundle.open(folder).manifest
            days = [_day(manifest["training"][end]) for end in ("from_ms", "until_ms")]
            figures = [f"{label}: {_short(spec['metrics']['bundle'])}" for label, spec in manifest["labels"].items()]
            role = _role(roles, folder.name)
            printed.add_row(file.parent.name, folder.name, role, " to ".join(days), "\n".join(figures))
    console.print(printed)


def _short(figures: dict[str, float | None]) -> str:
    return ", ".join(f"{name} {figures[name] or float('nan'):.3f}" for name in ("auc", "auprc", "ks", "ece"))


def _role(roles: registries.Roles, version: str) -> str:
    if version == roles.champion:
        return "champion"
    return "challenger" if version in roles.challengers else "previous" if version in roles.previous else ""


def _day(time_ms: int) -> str:
    return f"{datetime.fromtimestamp(time_ms / 1000, UTC):%Y-%m-%d}"


def _say(message: str) -> None:
    console.print(message, markup=False, highlight=False, soft_wrap=True)


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
    except (SchemaError, InvalidFieldError, BundleError) as error:
        raise SystemExit(str(error)) from None

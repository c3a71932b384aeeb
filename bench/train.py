"""Reproduces the demo bundles that are committed: the world of one seed, replayed, trained, one bundle a schema."""

from pathlib import Path

from rich.progress import Progress

from bench import history, world
from bench.serving import SECRET
from features.replay import replay
from features.tokens import Tokenizer
from models import residual
from models.recipe import TrainConfig
from models.train import train

TRAIN_SEED = 1
TRAIN_APPLICATIONS = 30_000
TRAIN_SALES = 20_000
TREES_MAX = 300  # of a label: the bundles are committed, and a decision waits for every tree


def run(out: Path) -> list[Path]:
    """Train both bundles into `out`; their folders."""
    of_product = history.schemas_by_product()
    made = world.build(TRAIN_SEED, TRAIN_APPLICATIONS)
    tokenizer = Tokenizer(SECRET.encode())
    known = history.profiles(made.profiles, of_product, tokenizer)
    past = history.history(made.events, known, of_product, tokenizer)
    with Progress() as progress:
        task = progress.add_task("replay", total=len(past.events))
        rows = replay(past, lambda n: progress.advance(task, n))
    for schema in history.SCHEMAS:
        name, figure = world.best_single_feature(rows[schema])
        print(f"best single feature for fraud, {schema}: {name}, AUC {figure:.3f}")
    config = TrainConfig(
        search_seconds=0, trees_max=TREES_MAX
    )  # a search bounded by time would not give the same bundle everywhere
    sales = world.sales(TRAIN_SEED, TRAIN_SALES)
    folders = []
    for schema in history.SCHEMAS:
        made_for = rows[schema].schema
        cars = residual.train(made_for, sales, TRAIN_SEED) if made_for.residual_value else None
        folders.append(train(rows[schema], out / schema, config, command="make train", residual=cars))
    return folders

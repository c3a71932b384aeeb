"""Reproduces the registry of the demo that is committed: the world of one seed, replayed, one champion a schema."""

import shutil
import tempfile
from pathlib import Path

from bench import history, world
from features.replay import Rows
from models import registry, residual
from models.bundle import BundleError
from models.recipe import TrainConfig
from models.train import train

TRAIN_SEED = 1
TRAIN_APPLICATIONS = 36_000
TRAIN_SALES = 20_000
TEST_SHARE = 0.2
TREES_MAX = 300  # of a label: the bundles are committed, and a decision waits for every tree


def run(out: Path) -> list[Path]:
    """Train a bundle of each schema and make them the only ones of the registry `out`; their folders.

    Raises BundleError where something else stands in their place.
    """
    for place in (out / schema for schema in history.SCHEMAS):
        if place.exists() and not (place / registry.ROLES).is_file():
            raise BundleError(f"{place}: exists and is no folder of a registry")
    made = world.build(TRAIN_SEED, TRAIN_APPLICATIONS)
    rows = history.rows(made)
    for schema in history.SCHEMAS:
        name, figure = world.best_single_feature(rows[schema])
        print(f"best single feature for fraud, {schema}: {name}, AUC {figure:.3f}")
    # a search bounded by time would not give the same bundle everywhere
    config = TrainConfig(search_seconds=0, trees_max=TREES_MAX, test_share=TEST_SHARE)
    return [_replace(out, rows[schema], config) for schema in history.SCHEMAS]


def _replace(out: Path, rows: Rows, config: TrainConfig) -> Path:
    place, schema = out / rows.schema.name, rows.schema
    cars = residual.train(schema, world.sales(TRAIN_SEED, TRAIN_SALES), TRAIN_SEED) if schema.residual_value else None
    with tempfile.TemporaryDirectory(prefix="miaopi-") as folder:
        bundle = train(rows, Path(folder) / schema.name, config, command="make train", residual=cars)
        if place.exists():
            shutil.rmtree(place)
        version, _ = registry.promote(out, bundle, schema)
    return place / version

"""Random rows of a schema with a known cause of each label, for the tests of the models. No file, no replay."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from features.application import Snapshot
from features.graph import FANOUT, NEIGHBOR_COLUMNS
from features.replay import Rows
from features.schema import SOURCE_FRESH, Schema
from features.statistics import ENTITY_STATS

FRAUD_COLUMN = NEIGHBOR_COLUMNS.index("fraud")


def random_snapshot(schema: Schema, rows: int, seed: int) -> Snapshot:
    """Numbers over the magnitudes that occur, a tenth missing, absent entities and neighbours included."""
    random = np.random.default_rng(seed)
    slots, stats = schema.slots, len(ENTITY_STATS)
    features = np.exp(random.normal(1, 2, (rows, len(schema.features)))).astype(np.float32)
    for i, feature in enumerate(schema.features):
        if feature.values:
            features[:, i] = random.integers(0, len(feature.values), rows)
    features[random.random(features.shape) < 0.1] = np.nan
    entity_state = np.exp(random.normal(1, 2, (rows, slots, stats))).astype(np.float32)
    entity_state[random.random(entity_state.shape) < 0.1] = np.nan
    entity_state[random.random((rows, slots)) < 0.2] = np.nan
    columns = len(NEIGHBOR_COLUMNS) + len(schema.record)
    neighbor_state = np.exp(random.normal(1, 2, (rows, slots, FANOUT, columns))).astype(np.float32)
    neighbor_state[..., 2:7] = random.random((rows, slots, FANOUT, 5)) < 0.1
    neighbor_state[..., 7:][random.random(neighbor_state[..., 7:].shape) < 0.1] = np.nan
    filled = random.integers(0, FANOUT + 1, (rows, slots, 1))
    mask = np.arange(FANOUT) < filled
    neighbor_state[~mask] = 0
    return Snapshot(
        features, entity_state, neighbor_state, mask, np.full((rows, len(schema.sources)), SOURCE_FRESH, np.uint8)
    )


def random_rows(schema: Schema, rows: int, seed: int) -> Rows:
    """Fraud follows rings, seen only in the neighbours' fraud marks, and blacklist hits; default, late payments.

    A fifth of the labels is unknown.
    """
    random = np.random.default_rng(seed + 1)
    snapshot = random_snapshot(schema, rows, seed)
    ring = random.random(rows) < 0.25
    marked = random.random(snapshot.neighbor_mask.shape) < np.where(ring, 0.5, 0.02)[:, None, None]
    snapshot.neighbor_state[..., FRAUD_COLUMN] = marked & snapshot.neighbor_mask

    def standard(name: str) -> NDArray[np.float32]:
        return np.log1p(np.nan_to_num(snapshot.features[:, schema.column[name]])) - 1

    log_odds = {
        "fraud": 3.0 * ring + standard("blacklist_hits") - 2,
        "default": standard("bureau_overdue_24m") - standard("employment_months") - 1,
    }
    labels = {name: (random.random(rows) < 1 / (1 + np.exp(-z))).astype(np.int8) for name, z in log_odds.items()}
    for known in labels.values():
        known[random.random(rows) < 0.2] = -1
    times = 1_750_000_000_000 + np.cumsum(random.integers(0, 60_000, rows))
    return Rows(schema, snapshot, [f"a-{i}" for i in range(rows)], times, labels, int(times[-1]))


def trained_bundle(schema: Schema, factory: pytest.TempPathFactory) -> Path:
    """The folder of a bundle of the schema, trained once a test run."""
    folder = factory.getbasetemp() / "trained" / schema.name
    if not folder.exists():
        from models.recipe import TrainConfig  # not above: this module must load without torch in a test
        from models.train import train

        train(random_rows(schema, 2000, 0), folder, TrainConfig(search_seconds=0))
    return folder

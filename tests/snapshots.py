"""Random rows of a schema with a known cause of each label, for the tests of the models. No file, no replay."""

import fcntl
import hashlib
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from features.neighborhood import NEIGHBOR_COLUMNS
from features.replay import Rows
from features.schema import Schema
from models.bundle import MANIFEST, SCHEMA
from models.probe import random_snapshot

FRAUD_COLUMN = NEIGHBOR_COLUMNS.index("fraud")


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
    """The folder of a bundle of the schema, trained once a test run by the worker that needs it first."""
    base = factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder = base / "trained" / schema.name
    with (base / f"{schema.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            from models.recipe import TrainConfig  # not above: this module must load without torch in a test
            from models.train import train

            train(random_rows(schema, 2000, 0), folder, TrainConfig(search_seconds=0))
    return folder


def made_for(schema: Schema, bundle: Path, out: Path) -> Path:
    """A bundle as if it were of another schema, one with the same columns, in the folder `out`."""
    shutil.copytree(bundle, out)
    (out / SCHEMA).write_text(json.dumps(schema.document), encoding="utf-8")
    manifest = json.loads((out / MANIFEST).read_text(encoding="utf-8"))
    manifest["schema_hash"] = schema.hash
    manifest["files"][SCHEMA] = hashlib.sha256((out / SCHEMA).read_bytes()).hexdigest()
    (out / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
    return out

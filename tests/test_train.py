"""Training keeps its parts apart, says what it did, and runs from the command line."""

import copy
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from features import schema as schemas
from features.replay import Rows
from features.schema import Schema
from models.__main__ import app
from models.bundle import MANIFEST, Bundle
from models.probe import random_snapshot
from models.recipe import TrainConfig
from models.train import train
from tests.conftest import ROOT
from tests.snapshots import random_rows, trained_bundle
from tests.test_table import written

QUICK = TrainConfig(search_seconds=0)
SFFSD_FILE = ROOT / "features/schemas/sffsd.yaml"


def coin_rows(schema: Schema, rows: int) -> Rows:
    """Rows whose fraud label follows nothing, half of them bad."""
    random = np.random.default_rng(0)
    labels = {"fraud": random.integers(0, 2, rows).astype(np.int8)}
    times = 1_750_000_000_000 + np.arange(rows) * 60_000
    return Rows(
        schema, random_snapshot(schema, rows, 0), [f"a-{i}" for i in range(rows)], times, labels, int(times[-1])
    )


def test_rows_that_calibrate_choose_no_model(
    consumer: Schema, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Other labels in the later half of the validation rows: other calibration, the same trees and network."""
    rows = random_rows(consumer, 2000, 0)
    known = rows.labels["fraud"].copy()
    validation = np.flatnonzero((np.arange(2000) >= 1500) & (known >= 0))
    later = validation[len(validation) // 2 :]
    known[later] ^= np.random.default_rng(4).random(len(later)) < 0.3
    flipped = train(replace(rows, labels={**rows.labels, "fraud": known}), tmp_path / "consumer", QUICK)
    folders = trained_bundle(consumer, tmp_path_factory), flipped
    one, other = (Bundle.load(folder, consumer).models["fraud"] for folder in folders)
    assert one.calibration != other.calibration and one.gnn_onnx is not None
    assert one.trees_onnx == other.trees_onnx and one.gnn_onnx == other.gnn_onnx


def test_the_manifest_counts_each_part(consumer: Schema, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Of fraud by time; of default, whose features count no other rows, by random folds."""
    manifest = Bundle.load(trained_bundle(consumer, tmp_path_factory), consumer).manifest
    window, labels = manifest["training"], manifest["labels"]
    rows = labels["fraud"]["rows"]
    assert (labels["fraud"]["folds"], labels["fraud"]["validation"]) == ("forward", "halved by time")
    assert min(rows["stop_bad"], rows["stack_bad"]) >= 50 and abs(rows["stop"] - rows["stack"]) <= 1
    assert window["fit_until_ms"] < labels["fraud"]["learned_until_ms"] < window["until_ms"]
    assert labels["default"]["folds"] == "random" and labels["default"]["learned_until_ms"] > window["until_ms"]
    assert labels["default"]["rows"]["fit"] > labels["default"]["rows"]["stack"]
    for spec in labels.values():
        assert spec["metrics"][spec["chosen"]]["rows"] == spec["rows"]["stack"]


def test_a_random_split_has_no_graph_network(tmp_path: Path) -> None:
    schema = schemas.load(SFFSD_FILE)
    out = train(coin_rows(schema, 600), tmp_path / "sffsd", replace(QUICK, split="stratified"))
    found = Bundle.load(out, schema).manifest["labels"]["fraud"]
    assert found["gnn"] == "none, the rows are not split by time"
    assert found["rows"]["fit"] == found["rows"]["stack"] == 600


def test_few_bad_rows_are_not_halved(tmp_path: Path) -> None:
    schema = schemas.load(SFFSD_FILE)
    found = Bundle.load(train(coin_rows(schema, 600), tmp_path / "sffsd", QUICK), schema).manifest["labels"]["fraud"]
    assert found["validation"].startswith("whole, as its halves have") and "50 are needed" in found["validation"]
    assert found["rows"]["stop"] == found["rows"]["stack"] == 150
    assert "bad rows" not in found["gnn"]  # the whole has enough of them for a graph network to be tried


def test_a_request_all_constrained_is_left_to_the_trees(tmp_path: Path) -> None:
    document = copy.deepcopy(schemas.load(SFFSD_FILE).document)
    document["features"][0]["monotone"] = {"fraud": 1}
    schema = Schema(document, "constrained.yaml")
    bundle = Bundle.load(train(coin_rows(schema, 1000), tmp_path / "sffsd", QUICK), schema)
    assert bundle.manifest["labels"]["fraud"]["validation"] == "halved by time"
    assert bundle.manifest["labels"]["fraud"]["gnn"] == "left out, no column of the request is free of constraints"
    assert bundle.models["fraud"].gnn_onnx is None


def test_command_line_trains_and_evaluates(tmp_path: Path) -> None:
    data, out = written(tmp_path), tmp_path / "sffsd"
    table = ["--schema", str(SFFSD_FILE), "--data", str(data), "--label-delay-rows", "50"]
    trained = CliRunner().invoke(app, ["train", *table, "--out", str(out), "--seed", "3", "--search-seconds", "0"])
    assert trained.exit_code == 0, trained.output
    manifest = json.loads((out / MANIFEST).read_text(encoding="utf-8"))
    command = manifest["training"]["command"]
    assert command == (
        "python -m models train --schema sffsd.yaml --data cards.parquet --out sffsd --seed 3 --split time "
        "--fit-share 0.75 --test-share 0.2 --search-seconds 0.0 --trees-max 0 --label-delay-rows 50"
    )
    card = (out / "model_card.md").read_text(encoding="utf-8")
    assert command in card and "# Model card: sffsd" in trained.output
    assert str(tmp_path) not in card + json.dumps(manifest)

    shown = CliRunner().invoke(app, ["evaluate", *table, "--bundle", str(out)])
    assert shown.exit_code == 0, shown.output
    assert Bundle.load(out, schemas.load(SFFSD_FILE)).version in shown.output
    figures = {cells[0]: cells[1:] for line in shown.output.splitlines() if len(cells := line.split("│")[1:-1]) > 1}
    figures = {name.strip(): [cell.strip() for cell in cells] for name, cells in figures.items()}
    rows = manifest["labels"]["fraud"]["rows"]
    assert figures["rows"] == [str(rows["fit"]), str(rows["stack"])]  # learned from and calibrated on; no row is later
    assert (
        figures["auc"][1]
        == f"{manifest['labels']['fraud']['metrics'][manifest['labels']['fraud']['chosen']]['auc']:.4g}"
    )


def test_command_line_names_the_bad_file(tmp_path: Path) -> None:
    data = written(tmp_path)
    asked = ["evaluate", "--bundle", str(tmp_path), "--schema", str(SFFSD_FILE), "--data", str(data)]
    done = subprocess.run(
        [sys.executable, "-m", "models", *asked], cwd=ROOT, capture_output=True, text=True, check=False
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr == f"{tmp_path / MANIFEST}: cannot be read: No such file or directory\n"

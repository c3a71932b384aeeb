import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from features.schema import Schema, load
from models import calibrate
from models.bundle import MANIFEST, Bundle, BundleError
from models.scorer import Scorer
from models.train import TrainConfig, TrainingError, train
from tests.snapshots import random_rows, random_snapshot, trained_bundle

QUICK = TrainConfig(search_seconds=0)
LATE_BAD = [220, 260, 320, 360]
SIZE_MAX = 1_400_000  # bytes; two bundles are committed


@pytest.fixture
def folder(consumer: Schema, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of its own for a test that damages it."""
    return Path(shutil.copytree(trained_bundle(consumer, tmp_path_factory), tmp_path / "consumer"))


FILES = [
    "default_forest.npz", "default_trees.onnx", "fraud_forest.npz", "fraud_gnn.onnx", "fraud_trees.onnx",
    "manifest.json", "model_card.md", "schema.json",
]  # fmt: skip


def test_a_bundle_holds_what_it_says(consumer: Schema, folder: Path) -> None:
    assert sorted(f.name for f in folder.iterdir()) == FILES
    assert sum(f.stat().st_size for f in folder.iterdir()) < SIZE_MAX
    assert json.loads((folder / "schema.json").read_text(encoding="utf-8")) == consumer.document
    manifest = Bundle.load(folder, consumer).manifest
    assert manifest["labels"]["fraud"]["metrics"]["bundle"]["auc"] > 0.6
    assert manifest["training"]["from_ms"] < manifest["training"]["fit_until_ms"] < manifest["training"]["until_ms"]


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_refuses(consumer: Schema, folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(BundleError, match=name):
        Bundle.load(folder, consumer)


@pytest.mark.parametrize("name", [name for name in FILES if name != MANIFEST])
def test_a_changed_byte_refuses(consumer: Schema, folder: Path, name: str) -> None:
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(BundleError, match=f"{name}: differs"):
        Bundle.load(folder, consumer)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema_hash": 1'])
def test_a_broken_manifest_refuses(consumer: Schema, folder: Path, text: str) -> None:
    (folder / MANIFEST).write_text(text)
    with pytest.raises(BundleError, match="is no manifest"):
        Bundle.load(folder, consumer)


def test_another_schema_refuses(folder: Path) -> None:
    with pytest.raises(BundleError, match="made for schema"):
        Bundle.load(folder, load("features/schemas/auto.yaml"))


def test_version_names_the_content(consumer: Schema, folder: Path) -> None:
    version = Bundle.load(folder, consumer).version
    assert len(version) == 16 and int(version, 16)
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    manifest["labels"]["fraud"]["calibration"]["intercept"] += 1e-9
    (folder / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
    assert Bundle.load(folder, consumer).version != version


def test_same_rows_and_seed_give_the_same_bundle_and_replace_it(consumer: Schema, tmp_path: Path) -> None:
    rows = random_rows(consumer, 400, 0)
    versions = [Bundle.load(train(rows, tmp_path / "consumer", QUICK), consumer).version for _ in range(2)]
    assert versions[0] == versions[1]
    assert [f.name for f in tmp_path.iterdir()] == ["consumer"]


def test_another_folder_is_not_replaced(consumer: Schema, tmp_path: Path) -> None:
    (tmp_path / "letters").write_text("precious")
    with pytest.raises(BundleError, match="is no bundle"):
        train(random_rows(consumer, 100, 0), tmp_path, QUICK)
    assert (tmp_path / "letters").exists()


def test_too_few_bad_rows_leave_the_trees_alone(consumer: Schema, tmp_path: Path) -> None:
    """400 rows validate on fewer bad ones than stacking needs; then on too few even for Platt."""
    rows = random_rows(consumer, 400, 0)
    bundle = Bundle.load(train(rows, tmp_path / "few", QUICK), consumer)
    found = bundle.manifest["labels"]["fraud"]
    assert found["gnn"].startswith("left out") and str(calibrate.STACK_MIN_POSITIVES) in found["gnn"]
    assert found["calibrated"] and bundle.models["fraud"].gnn_onnx is None
    at = np.arange(400)
    labels = {
        name: np.where(at >= 200, np.isin(at, LATE_BAD), known).astype(np.int8) for name, known in rows.labels.items()
    }
    bundle = Bundle.load(train(replace(rows, labels=labels), tmp_path / "none", QUICK), consumer)
    assert bundle.models["fraud"].calibration == calibrate.IDENTITY
    assert not bundle.manifest["labels"]["fraud"]["calibrated"]
    assert np.isfinite(Scorer(bundle).score(random_snapshot(consumer, 5, 0)).fraud_probability).all()


def test_rows_that_teach_nothing_refuse(consumer: Schema, tmp_path: Path) -> None:
    rows = random_rows(consumer, 100, 0)
    labels = {**rows.labels, "fraud": np.zeros(100, dtype=np.int8)}
    with pytest.raises(TrainingError, match="label fraud"):
        train(replace(rows, labels=labels), tmp_path / "out", QUICK)
    assert list(tmp_path.iterdir()) == []


def test_calibration_is_calibrated_and_keeps_order() -> None:
    random = np.random.default_rng(0)
    log_odds = random.normal(-2, 1, 20_000)
    labels = (random.random(20_000) < 1 / (1 + np.exp(-log_odds))).astype(np.int8)
    found = calibrate.fit(labels, 3 * log_odds + 1, log_odds + random.normal(0, 5, 20_000))
    assert found is None or found.weights[0] == pytest.approx(1 / 3, rel=0.05)
    platt = calibrate.fit(labels, 3 * log_odds + 1)
    assert platt is not None
    assert platt.weights[0] == pytest.approx(1 / 3, rel=0.05)
    assert platt.probability(3 * log_odds + 1).mean() == pytest.approx(labels.mean(), rel=0.01)
    assert calibrate.fit(labels, -log_odds) is None  # would turn good into bad
    assert calibrate.fit((log_odds > 0).astype(np.int8), log_odds) is not None  # separable, and still finite

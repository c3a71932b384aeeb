import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from features.schema import Schema, load
from models import calibrate, export, trees
from models.bundle import MANIFEST, Bundle, BundleError
from models.encode import Encoding, Lookup
from models.folds import TrainingError
from models.probe import random_snapshot
from models.recipe import TrainConfig
from models.scorer import Scorer
from models.train import train
from tests.conftest import ROOT
from tests.snapshots import random_rows, trained_bundle

QUICK = TrainConfig(search_seconds=0)
LATE_BAD = [220, 260, 320, 360]
SIZE_MAX, COMMITTED_SIZE_MAX = 1_400_000, 3_300_000  # bytes, of a bundle and of all of the demo


@pytest.fixture
def folder(consumer: Schema, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of its own for a test that damages it."""
    return Path(shutil.copytree(trained_bundle(consumer, tmp_path_factory), tmp_path / "consumer"))


FILES = [
    "default_forest.npz", "default_trees.onnx", "fraud_forest.npz", "fraud_gnn.npz", "fraud_gnn.onnx",
    "fraud_trees.onnx", "manifest.json", "model_card.md", "schema.json",
]  # fmt: skip


def test_a_bundle_holds_what_it_says(consumer: Schema, folder: Path) -> None:
    assert sorted(f.name for f in folder.iterdir()) == FILES
    assert sum(f.stat().st_size for f in folder.iterdir()) < SIZE_MAX
    assert json.loads((folder / "schema.json").read_text(encoding="utf-8")) == consumer.document
    manifest = Bundle.load(folder, consumer).manifest
    assert manifest["labels"]["fraud"]["metrics"]["trees + aggregates"]["auc"] > 0.6
    assert manifest["labels"]["fraud"]["settings"]["trees"] == [asdict(trees.TreesConfig())]
    assert manifest["labels"]["fraud"]["settings"]["gnn"]["width"] == 32
    assert manifest["labels"]["default"]["settings"]["gnn"] is None
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


def forge(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the manifest, which nothing signs."""
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    change(manifest)
    (folder / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")


FORGERIES: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "format": (lambda m: m.update(format=99), "format 99"),
    "no format": (lambda m: m.pop("format"), "is no manifest"),
    "outside": (lambda m: m["files"].update({"../evil": hashlib.sha256(b"evil").hexdigest()}), "'../evil' is no file"),
    "one weight": (lambda m: m["labels"]["fraud"]["calibration"]["weights"].pop(), "one weight for each of 2"),
    "no intercept": (lambda m: m["labels"]["fraud"]["calibration"].update(intercept=None), "finite"),
    "intercept": (lambda m: m["labels"]["fraud"]["calibration"].update(intercept=float("inf")), "finite"),
    "weight": (lambda m: m["labels"]["default"]["calibration"].update(weights=[-1.0]), "positive"),
    "mean": (lambda m: m["labels"]["fraud"]["calibration"].update(gnn_mean="0"), "finite"),
    "no mean": (lambda m: m["labels"]["fraud"]["calibration"].pop("gnn_mean"), "finite"),
    "swapped": (
        lambda m: m["labels"].update(fraud=m["labels"]["default"], default=m["labels"]["fraud"]), "columns are not",
    ),
    "one label": (lambda m: m["labels"].pop("default"), "labels fraud are not those"),
    "list of labels": (lambda m: m.update(labels=["fraud", "default"]), "is no manifest"),
    "no files": (lambda m: m["labels"]["fraud"].pop("files"), "is no manifest"),
    "unknown file": (lambda m: m["labels"]["fraud"]["files"].update(gnn="none.onnx"), "is no manifest"),
    "unlisted schema": (lambda m: m["files"].pop("schema.json"), "is no manifest"),
    "column": (lambda m: m["labels"]["fraud"]["columns"].pop(), "columns are not"),
    "no probe": (lambda m: m["labels"]["fraud"].pop("probe"), "is no manifest"),
    "short probe": (lambda m: m["labels"]["default"]["probe"].pop(), "default: the probe needs 16"),
    "probe": (lambda m: m["labels"]["fraud"].update(probe=[None] * 16), "fraud: the probe needs 16"),
}  # fmt: skip


@pytest.mark.parametrize("name", FORGERIES)
def test_a_forged_manifest_refuses(consumer: Schema, folder: Path, name: str) -> None:
    change, problem = FORGERIES[name]
    (folder.parent / "evil").write_bytes(b"evil")
    forge(folder, change)
    with pytest.raises(BundleError, match=f"{MANIFEST}: .*{problem}"):
        Bundle.load(folder, consumer)


@pytest.mark.parametrize(
    ("name", "content"),
    [("schema.json", b"{}"), ("schema.json", b"[1"), ("fraud_forest.npz", b""), ("fraud_forest.npz", b"PK\x03\x04")],
)
def test_a_file_of_something_else_refuses(consumer: Schema, folder: Path, name: str, content: bytes) -> None:
    (folder / name).write_bytes(content)
    forge(folder, lambda m: m["files"].update({name: hashlib.sha256(content).hexdigest()}))
    with pytest.raises(BundleError, match=f"{name}: is no"):
        Bundle.load(folder, consumer)


def test_an_encoding_comes_back_and_is_checked(consumer: Schema, folder: Path) -> None:
    bundle, columns = Bundle.load(folder, consumer), len(consumer.columns("fraud"))
    codes = np.arange(3, dtype=np.float32)
    lookup = Lookup(columns - 1, codes, 2 * codes, float("nan"), 0.5)
    outside = replace(lookup, column=columns)
    said = {la: {k: v for k, v in s.items() if k != "files"} for la, s in bundle.manifest["labels"].items()}

    def loaded(encoding: Encoding) -> Encoding:
        models = {**bundle.models, "fraud": replace(bundle.models["fraud"], encoding=encoding)}
        export.write(folder, consumer, models, bundle.manifest["training"], said)
        return Bundle.load(folder, consumer).models["fraud"].encoding

    rows = np.full((3, columns), [[1], [np.nan], [9]], dtype=np.float32)
    expected = np.array([2, np.nan, 0.5], dtype=np.float32)
    np.testing.assert_array_equal(loaded(Encoding(columns, (lookup,)))(rows)[:, -1], expected)
    wrong = Encoding(columns + 1, (lookup,)), Encoding(columns, (outside,)), Encoding(columns, (), (outside,))
    for packed, problem in [*((encoding.pack(), " of") for encoding in wrong), (b"", ": ")]:
        (folder / "fraud_encoding.npz").write_bytes(packed)
        hashes = {"fraud_encoding.npz": hashlib.sha256(packed).hexdigest()}
        forge(folder, lambda m, hashes=hashes: m["files"].update(hashes))  # type: ignore[misc]
        with pytest.raises(BundleError, match=rf"fraud_encoding\.npz: is no encoding{problem}"):
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


def rewrite(folder: Path, schema: Schema, seed: int) -> str:
    """Replace a bundle by its like of another seed; the new version."""
    bundle = Bundle.load(folder, schema)
    training = {**bundle.manifest["training"], "seed": seed}
    return Bundle.load(export.write(folder, schema, bundle.models, training, bundle.manifest["labels"]), schema).version


def test_a_replacement_that_fails_leaves_the_old(
    consumer: Schema, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, rename = Bundle.load(folder, consumer).version, Path.rename

    def full_disk(path: Path, target: Path) -> Path:
        if path.name == "new":
            raise OSError("no space")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", full_disk)
    with pytest.raises(OSError, match="no space"):
        rewrite(folder, consumer, 1)
    assert Bundle.load(folder, consumer).version == before
    assert [f.name for f in folder.parent.iterdir()] == [folder.name]


KILLED = """
import os, sys
from pathlib import Path
from features.schema import load
from tests.test_bundle import rewrite
rename = Path.rename
Path.rename = lambda path, target: os._exit(9) if path.name == "new" else rename(path, target)
rewrite(Path(sys.argv[1]), load("features/schemas/consumer.yaml"), 1)
"""


def test_a_replacement_that_is_killed_leaves_the_old_beside(consumer: Schema, folder: Path) -> None:
    before = Bundle.load(folder, consumer)
    kept = shutil.copytree(folder, folder.parent / "kept")
    assert subprocess.run([sys.executable, "-c", KILLED, str(folder)], cwd=ROOT, check=False).returncode == 9
    old = folder.with_name("consumer.old")
    assert not folder.exists() and Bundle.load(old, consumer).version == before.version
    export.write(folder, consumer, before.models, before.manifest["training"], before.manifest["labels"])
    assert Bundle.load(folder, consumer).version == Bundle.load(kept, consumer).version and not old.exists()


def test_a_bundle_is_on_disk_before_it_is_in_place(
    consumer: Schema, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced, fsync = set(), os.fsync

    def seen(descriptor: int) -> None:
        synced.add(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", seen)
    rewrite(folder, consumer, 1)
    assert {path.stat().st_ino for path in (*folder.iterdir(), folder, folder.parent)} <= synced


def test_what_stands_where_the_old_would_is_not_deleted(consumer: Schema, folder: Path) -> None:
    letters = folder.with_name("consumer.old") / "letters"
    letters.parent.mkdir()
    letters.write_text("precious")
    with pytest.raises(BundleError, match=r"consumer\.old: exists and is no bundle"):
        rewrite(folder, consumer, 1)
    assert letters.exists()


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
    found = bundle.manifest["labels"]["fraud"]
    assert bundle.models["fraud"].calibration == calibrate.IDENTITY and not found["calibrated"]
    assert np.isfinite(Scorer(bundle).score(random_snapshot(consumer, 5, 0)).fraud_probability).all()


def test_rows_that_teach_nothing_refuse(consumer: Schema, tmp_path: Path) -> None:
    rows = random_rows(consumer, 100, 0)
    labels = {**rows.labels, "fraud": np.zeros(100, dtype=np.int8)}
    with pytest.raises(TrainingError, match="label fraud"):
        train(replace(rows, labels=labels), tmp_path / "out", QUICK)
    assert list(tmp_path.iterdir()) == []


def test_the_demo_bundles_are_small() -> None:
    sizes = [file.stat().st_size for file in (ROOT / "models/demo").rglob("*") if file.is_file()]
    assert len(sizes) >= 3 * len(FILES) and sum(sizes) <= COMMITTED_SIZE_MAX


def test_stacking_weighs_what_informs() -> None:
    """Two halves of the log-odds get their shares; of noise and its opposite one enters, with next to no weight."""
    random = np.random.default_rng(0)
    own, linked, noise = random.normal(-1, 1, (3, 20_000))
    labels = (random.random(20_000) < 1 / (1 + np.exp(-own - linked))).astype(np.int8)
    both = calibrate.fit(labels, 3 * own + 1, 2 * linked)
    assert both is not None and both.weights == pytest.approx((1 / 3, 1 / 2), rel=0.05)
    found = [calibrate.fit(labels, own + linked, sign * noise) for sign in (1, -1)]
    (entered,) = [calibration for calibration in found if calibration is not None]
    assert entered.weights == pytest.approx((1, 0), abs=0.05)


def test_calibration_is_calibrated_and_keeps_order() -> None:
    random = np.random.default_rng(0)
    log_odds = random.normal(-2, 1, 20_000)
    labels = (random.random(20_000) < 1 / (1 + np.exp(-log_odds))).astype(np.int8)
    platt = calibrate.fit(labels, 3 * log_odds + 1)
    assert platt is not None
    assert platt.weights[0] == pytest.approx(1 / 3, rel=0.05)
    assert platt.probability(3 * log_odds + 1).mean() == pytest.approx(labels.mean(), rel=0.01)
    assert calibrate.fit(labels, -log_odds) is None  # would turn good into bad
    assert calibrate.fit((log_odds > 0).astype(np.int8), log_odds) is not None  # separable, and still finite

"""The deep network: torch and ONNX say the same, whoever else is in the batch, and it is trained, written and read."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from bench.gpu_deep import deep_bundle, exported, network
from features.application import InvalidFieldError, Snapshot
from features.hops import Hops
from features.schema import Schema
from models import networks, recipe
from models.bundle import DEEP, DEEP_FORMAT, MANIFEST, Bundle, BundleError
from models.deep import DeepConfig, DeepGNN
from models.probe import random_snapshot
from models.recipe import NETWORK, TrainConfig, train_label
from models.scorer import LabelScorer, Scorer, in_parts, network_inputs
from models.tables import silent
from tests.snapshots import random_rows


@pytest.fixture(scope="module")
def model(consumer: Schema) -> DeepGNN:
    return network(consumer)


def onnx_logits(schema: Schema, *snapshots: Snapshot) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(exported(schema), providers=["CPUExecutionProvider"])
    names = [i.name for i in session.get_inputs()]
    return [session.run(None, network_inputs(s, names))[0] for s in snapshots]


def test_torch_and_onnx_agree(consumer: Schema, model: DeepGNN) -> None:
    snapshots = [random_snapshot(consumer, rows, rows, deep=True) for rows in (64, 1, 2, 129)]
    nothing = Hops.none(64, consumer.slots, len(consumer.record))
    snapshots.append(replace(snapshots[0], hops=nothing))
    for snapshot, found in zip(snapshots, onnx_logits(consumer, *snapshots), strict=True):
        assert np.isfinite(found).all()
        np.testing.assert_allclose(found, networks.logits(model, snapshot), atol=1e-5, rtol=0)


def test_who_else_is_in_the_batch_is_irrelevant(consumer: Schema) -> None:
    snapshot = random_snapshot(consumer, 48, 6, deep=True)
    parts = [np.arange(i, i + size) for size in (1, 2, 3, 48) for i in range(0, 48, size)]
    together, *apart = onnx_logits(consumer, snapshot, *(snapshot.take(rows) for rows in parts))
    for rows, alone in zip(parts, apart, strict=True):
        np.testing.assert_allclose(alone, together[rows], atol=1e-5, rtol=0)


def test_either_hop_matters(consumer: Schema, model: DeepGNN) -> None:
    snapshot = random_snapshot(consumer, 64, 3, deep=True)
    hops = snapshot.hops
    assert hops is not None
    near_alone = hops._replace(far_count=np.zeros_like(hops.far_count), far=hops.far[:0], far_code=hops.far_code[:0])
    whole, near, nothing = (
        networks.logits(model, replace(snapshot, hops=some))
        for some in (hops, near_alone, Hops.none(64, consumer.slots, len(consumer.record)))
    )
    assert (whole != near).any() and (near != nothing).any()


def test_onnx_carries_no_paths(consumer: Schema) -> None:
    assert b".py" not in exported(consumer)


def test_a_snapshot_without_hops_is_refused(consumer: Schema, model: DeepGNN, tmp_path: Path) -> None:
    snapshot = random_snapshot(consumer, 4, 1)
    with pytest.raises(ValueError, match="two hops"):
        networks.logits(model, snapshot)
    with pytest.raises(ValueError, match="two hops"):
        Scorer(Bundle.load(deep_bundle("consumer", tmp_path / "deep"), consumer)).score(snapshot)


def test_a_deep_bundle_says_what_it_needs(consumer: Schema, tmp_path: Path) -> None:
    folder = deep_bundle("consumer", tmp_path / "deep")
    bundle = Bundle.load(folder, consumer)
    said = bundle.manifest["labels"]
    assert bundle.deep and bundle.models["fraud"].deep and not bundle.models["default"].deep
    assert bundle.manifest["format"] == DEEP_FORMAT
    assert (said["fraud"]["network"], said["fraud"]["hops"]) == (DEEP, [32, 4])
    assert "hops" not in said["default"]
    text = (folder / MANIFEST).read_text(encoding="utf-8")
    (folder / MANIFEST).write_text(text.replace('"hops": [\n    32,', '"hops": [\n    16,'), encoding="utf-8")
    with pytest.raises(BundleError, match="fraud: hops are not 32 and 4"):
        Bundle.load(folder, consumer)


class Brief(DeepConfig):
    """One epoch."""

    epochs = 1

    @classmethod
    def of(cls, schema: Schema, label: str, snapshot: Snapshot) -> DeepConfig:
        return replace(DeepConfig.of(schema, label, snapshot), epochs=1)


def test_it_is_trained_as_the_small_one_is(consumer: Schema, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the recipe, admitted by the same rule, and scored by the model as it was validated."""
    monkeypatch.setitem(recipe.NETWORKS, DEEP, (Brief, DeepGNN))
    rows = random_rows(consumer, 1000, 0)
    hops = random_snapshot(consumer, 1000, 1, deep=True).hops
    rows = replace(rows, snapshot=replace(rows.snapshot, hops=hops))
    trained = train_label(rows, "fraud", TrainConfig(search_seconds=0, keep_gnn=True, network=DEEP), silent)
    assert trained.chosen == NETWORK and trained.model.deep
    assert (trained.findings["network"], trained.findings["settings"]["gnn"]["width"]) == (DEEP, 128)
    scorer = LabelScorer(trained.model, consumer.columns("fraud"))
    found = in_parts(scorer.score, rows.snapshot.take(trained.stack))
    np.testing.assert_allclose(found, trained.validation[NETWORK], atol=1e-5)


def test_a_device_that_torch_has_not_is_named() -> None:
    assert networks.device("cpu") == torch.device("cpu")
    with pytest.raises(InvalidFieldError, match="--device: 'tpu' is not cpu, cuda or cuda:N"):
        networks.device("tpu")
    with pytest.raises(InvalidFieldError, match="--device: cuda:99: this torch finds"):
        networks.device("cuda:99")

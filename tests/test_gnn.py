from dataclasses import replace

import numpy as np
import onnxruntime
import pytest
import torch

from features.application import Snapshot
from features.schema import Schema, load
from models import gnn, networks
from models.probe import random_snapshot


@pytest.fixture(scope="module", params=["consumer", "sffsd"])
def schema(request: pytest.FixtureRequest) -> Schema:
    return load(f"features/schemas/{request.param}.yaml")


@pytest.fixture(scope="module")
def model(schema: Schema) -> gnn.GNN:
    """A network with random weights, scaled as training would."""
    rows = random_snapshot(schema, 500, 0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = gnn.GNN(gnn.GNNConfig.of(schema, "fraud", rows))
    network.fit_scales(rows)
    return network


@pytest.fixture(scope="module")
def exported(schema: Schema, model: gnn.GNN) -> bytes:
    """The same as ONNX, once, which takes seconds."""
    return networks.to_onnx(model, random_snapshot(schema, 2, 0))


def onnx_logits(exported: bytes, *snapshots: Snapshot) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(exported, providers=["CPUExecutionProvider"])
    return [session.run(None, {n: getattr(s, n) for n in gnn.INPUTS})[0] for s in snapshots]


def without_neighbors(snapshot: Snapshot) -> Snapshot:
    return replace(
        snapshot,
        neighbor_state=np.zeros_like(snapshot.neighbor_state),
        neighbor_mask=np.zeros_like(snapshot.neighbor_mask),
    )


def test_torch_and_onnx_agree(schema: Schema, model: gnn.GNN, exported: bytes) -> None:
    snapshots = [random_snapshot(schema, rows, rows) for rows in (64, 1, 2, 257)]
    empty = without_neighbors(random_snapshot(schema, 32, 5))
    unknown = replace(empty, entity_state=np.full_like(empty.entity_state, np.nan))
    for snapshot, said in zip(
        [*snapshots, empty, unknown], onnx_logits(exported, *snapshots, empty, unknown), strict=True
    ):
        assert np.isfinite(said).all()
        np.testing.assert_allclose(said, networks.logits(model, snapshot), atol=1e-5, rtol=0)


def test_how_many_neighbours_others_have_changes_no_bit(schema: Schema, exported: bytes) -> None:
    """Slots with neighbours are taken out of the batch: of none, one, two or all of them there."""
    snapshot = random_snapshot(schema, 48, 6)
    seen = snapshot.neighbor_mask.copy()
    seen[:16] = False
    seen[16:32, 1:] = False  # one slot at most, the first; below, one that is not
    seen[24:32] = False
    seen[24:32, 2, 0] = True
    snapshot = replace(snapshot, neighbor_mask=seen, neighbor_state=snapshot.neighbor_state * seen[..., None])
    parts = [np.arange(i, i + size) for size in (1, 2, 3, 48) for i in range(0, 48, size)]
    together, *apart = onnx_logits(exported, snapshot, *(snapshot.take(rows) for rows in parts))
    for rows, alone in zip(parts, apart, strict=True):
        np.testing.assert_array_equal(alone, together[rows])


def test_onnx_carries_no_paths(exported: bytes) -> None:
    assert b".py" not in exported


def test_what_masked_places_hold_is_irrelevant(schema: Schema, model: gnn.GNN) -> None:
    snapshot = random_snapshot(schema, 64, 1)
    filled = snapshot.neighbor_state.copy()
    filled[~snapshot.neighbor_mask] = 7
    np.testing.assert_array_equal(
        networks.logits(model, replace(snapshot, neighbor_state=filled)), networks.logits(model, snapshot)
    )


def test_order_of_neighbors_is_irrelevant(schema: Schema, model: gnn.GNN) -> None:
    """Padding included: time is in the gap, not in the place."""
    snapshot = random_snapshot(schema, 64, 2)
    order = np.random.default_rng(0).permutation(snapshot.neighbor_mask.shape[2])
    moved = replace(
        snapshot,
        neighbor_state=snapshot.neighbor_state[:, :, order],
        neighbor_mask=snapshot.neighbor_mask[:, :, order],
    )
    np.testing.assert_allclose(networks.logits(model, moved), networks.logits(model, snapshot), atol=1e-5)


def test_neighbors_matter(schema: Schema, model: gnn.GNN) -> None:
    snapshot = random_snapshot(schema, 64, 3)
    assert (networks.logits(model, without_neighbors(snapshot)) != networks.logits(model, snapshot)).any()


def test_constrained_columns_are_left_to_the_trees() -> None:
    schema = load("features/schemas/consumer.yaml")
    own = gnn.GNNConfig.of(schema, "default", random_snapshot(schema, 2, 0)).own_columns
    assert schema.column["bureau_overdue_24m"] not in own
    assert schema.column["housing"] in own

"""The compiled loop is the graph network: says what torch says, of a row in any batch; what does not fit is refused."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from features.application import Snapshot
from features.schema import Schema, load
from models import gnn, networks
from models.attention import Attention, Weights
from models.bundle import Bundle, BundleError
from models.probe import random_snapshot
from models.scorer import Scorer
from tests.snapshots import trained_bundle


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
        for parameter in network.parameters():
            parameter.data += 0.1 * torch.randn_like(parameter)
    network.fit_scales(rows)
    return network.eval()


def said(model: gnn.GNN, snapshot: Snapshot) -> np.ndarray:
    weights = Weights.unpack(gnn.weights_of(model).pack())
    return Attention(weights).run({name: getattr(snapshot, name) for name in Attention.inputs})


def test_says_what_torch_says(schema: Schema, model: gnn.GNN) -> None:
    snapshot = random_snapshot(schema, 257, 1)
    nobody = replace(snapshot, neighbor_mask=np.zeros_like(snapshot.neighbor_mask))
    unknown = replace(nobody, entity_state=np.full_like(nobody.entity_state, np.nan))
    few = replace(snapshot, neighbor_mask=snapshot.neighbor_mask & (np.arange(257) % 3 == 0)[:, None, None])
    found = [said(model, some) for some in (snapshot, nobody, unknown, few)]
    for some, logits in zip((snapshot, nobody, unknown, few), found, strict=True):
        np.testing.assert_allclose(logits, networks.logits(model, some), atol=1e-5, rtol=0)
    assert np.ptp(found[0]) > 0.1 and not np.array_equal(found[0], found[1])


def test_a_row_is_answered_alike_in_any_batch_and_layout(schema: Schema, model: gnn.GNN) -> None:
    snapshot = random_snapshot(schema, 33, 2)
    whole = said(model, snapshot)
    alone = [said(model, snapshot.take(slice(i, i + 1)))[0] for i in range(33)]
    assert whole.tolist() == alone
    turned = replace(snapshot, features=np.asfortranarray(snapshot.features))
    turned.entity_state.flags.writeable = False
    assert said(model, turned).tolist() == alone
    assert said(model, snapshot.take(slice(0, 0))).shape == (0,)


def test_what_does_not_fit_is_refused(schema: Schema, model: gnn.GNN) -> None:
    snapshot = random_snapshot(schema, 3, 3)
    with pytest.raises(ValueError, match="entity_state: shape"):
        said(model, replace(snapshot, entity_state=snapshot.entity_state[:, :-1]))
    with pytest.raises(ValueError, match="neighbor_mask: shape"):
        said(model, replace(snapshot, neighbor_mask=snapshot.neighbor_mask[:2]))
    weights = gnn.weights_of(model)
    with pytest.raises(ValueError, match=r"hidden: float32 \(31, 32\), must be float32 \(32, 32\)"):
        Weights.unpack(replace(weights, hidden=weights.hidden[1:]).pack())
    with pytest.raises(ValueError, match="ties: float64"):
        Weights.unpack(replace(weights, ties=weights.ties.astype(np.float64)).pack())


def test_weights_that_are_not_those_of_the_network_score_nothing(
    consumer: Schema, tmp_path_factory: pytest.TempPathFactory
) -> None:
    bundle = Bundle.load(trained_bundle(consumer, tmp_path_factory), consumer)
    fraud = bundle.models["fraud"]
    assert fraud.gnn_weights is not None
    Scorer(bundle)
    other = replace(fraud, gnn_weights=replace(fraud.gnn_weights, head_bias=fraud.gnn_weights.head_bias + 1e-3))
    with pytest.raises(BundleError, match="the network's logits differ by"):
        Scorer(replace(bundle, models=dict(bundle.models) | {"fraud": other}))

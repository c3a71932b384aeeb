"""From the log to probabilities on a device = assemble and Scorer on the host, bit for bit."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench.gpu_streams import batches, random_log
from bench.gpu_trees import demo_bundles
from features.assemble import count, snapshot
from features.graph import EntityGraph
from features.schema import Schema
from gpu_kernels.graph import DeviceGraph
from models.bundle import Bundle
from models.device import CPU
from models.device_scorer import DeviceScorer, hop_inputs
from models.probe import random_snapshot
from models.scorer import Scorer
from tests.conftest import demo_bundle
from tests.cuda_shim import Shim
from tests.deep_bundles import deep_bundle
from tests.gpu_devices import NAMES, opened


@pytest.mark.parametrize("name", NAMES)
def test_probabilities_equal_the_scorers(name: str) -> None:
    """Of networks on the CPU, which the device's arrays are copied for."""
    rng, seen = np.random.default_rng(3), 0
    for bundle in demo_bundles():
        schema, device = bundle.schema, opened(name)
        host, there, scorer, on_device = (
            EntityGraph(),
            DeviceGraph(device),
            Scorer(bundle),
            DeviceScorer(bundle, device, CPU),
        )
        for part, own, links in batches(rng, random_log(rng, 120, 6), 40):
            expected, view = host.observe(part, own, links), there.observe(part, own, links)
            features = random_snapshot(schema, len(own), int(rng.integers(1000))).features
            given, rows = features.copy(), np.arange(len(own))
            count(schema, features, expected, rows)
            state = np.zeros((len(own), len(schema.sources)), dtype=np.uint8)
            scores = scorer.score(snapshot(schema, features, state, expected, rows))
            found = on_device.score(view, given)
            np.testing.assert_array_equal(found.fraud_probability, scores.fraud_probability)
            np.testing.assert_array_equal(found.default_probability, scores.default_probability)
            assert found.graph.keys() == scores.graph.keys()
            for label, logit in scores.graph.items():
                np.testing.assert_array_equal(found.graph[label], logit)
            seen += len(own)
    assert seen > 100


@pytest.mark.parametrize("name", NAMES)
def test_a_deep_network_sees_the_hosts_hops(name: str, consumer: Schema, tmp_path: Path) -> None:
    """Of networks on the CPU: of all rows, and of some alone."""
    rng, device = np.random.default_rng(4), opened(name)
    bundle = Bundle.load(deep_bundle("consumer", tmp_path / "deep"), consumer)
    host, there = EntityGraph(deep=True), DeviceGraph(device, deep=True)
    scorer, on_device, columns = Scorer(bundle), DeviceScorer(bundle, device, CPU), 7 + len(consumer.record)
    for part, own, links in batches(rng, random_log(rng, 100, 6), 30):
        expected, view = host.observe(part, own, links), there.observe(part, own, links)
        features, rows = random_snapshot(consumer, len(own), int(rng.integers(1000))).features, np.arange(len(own))
        given, state = features.copy(), np.zeros((len(own), len(consumer.sources)), dtype=np.uint8)
        count(consumer, features, expected, rows)
        made = snapshot(consumer, features, state, expected, rows)
        found = on_device.score(view, given).fraud_probability
        np.testing.assert_array_equal(found, scorer.score(made).fraud_probability)
        assert view.hops is not None and made.hops is not None
        some = rng.permutation(rows)[: len(rows) // 2]
        asked = hop_inputs(device.xp, view.hops.take(some), consumer.slots, columns)
        for field, array in made.hops.take(some).given().items():
            np.testing.assert_array_equal(device.host(asked[field]), array, field)


def test_arithmetic_over_what_the_graph_counts_is_refused(consumer: Schema) -> None:
    """The host would compute it from a column that only the device has."""
    feature = {"name": "doubled", "cross": "linked_24h * 2", "unit": "applications", "zh": "两倍", "en": "twice"}
    schema = Schema({**consumer.document, "features": [*consumer.document["features"], feature]}, "doubled.yaml")
    bundle = replace(Bundle.load(demo_bundle("consumer"), consumer), schema=schema)
    with pytest.raises(ValueError, match="doubled is computed from what the graph counts"):
        DeviceScorer(bundle, Shim(), CPU)


def test_the_service_loads_no_cuda() -> None:
    """Not CuPy, not NVRTC, no kernel: without a device nothing of them is needed."""
    code = (
        "import sys, server.__main__;"
        "print([m for m in sys.modules if m.split('.')[0] in ('cupy', 'cuda', 'gpu_kernels')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

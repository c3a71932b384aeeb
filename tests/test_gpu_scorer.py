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
from models.device_scorer import fetched, hop_inputs, unfit
from models.probe import random_snapshot
from models.scorer import Scorer
from tests.deep_bundles import deep_bundle
from tests.gpu_devices import NAMES, device_of, networks_by_onnx, opened

__all__ = ["networks_by_onnx"]
pytestmark = pytest.mark.usefixtures("networks_by_onnx")


@pytest.mark.parametrize("name", NAMES)
def test_probabilities_equal_the_scorers(name: str) -> None:
    """And contributions, to the bit; a network's to the last digits, where the device is none of the host."""
    rng, seen = np.random.default_rng(3), 0
    for bundle in demo_bundles():
        schema, kernels = bundle.schema, opened(name)
        host, there, scorer, device = EntityGraph(), DeviceGraph(kernels), Scorer(bundle), device_of(kernels)
        on_device = Scorer(bundle, device).there
        assert on_device is not None
        for part, own, links in batches(rng, random_log(rng, 120, 6), 40):
            expected = host.observe(part, own, links)
            features = random_snapshot(schema, len(own), int(rng.integers(1000))).features
            given, rows = features.copy(), np.arange(len(own))
            count(schema, features, expected, rows)
            state = np.zeros((len(own), len(schema.sources)), dtype=np.uint8)
            seen_by_host = snapshot(schema, features, state, expected, rows)
            scores = scorer.score(seen_by_host)
            with kernels.deciding():
                view = there.observe(part, own, links)
                asked = on_device.ask(view, given)
                found, answers = fetched(kernels, view, {"": asked})
            for array in ("entity_state", "graph_state", "neighbor_state", "neighbor_mask", "as_of", "time_ms"):
                np.testing.assert_array_equal(getattr(found, array), getattr(expected, array))
            said = on_device.scores(asked, answers[""])
            assert said.graph.keys() == scores.graph.keys()
            assert said.contributions.keys() == (bundle.models.keys() if len(own) else set())
            np.testing.assert_allclose(said.fraud_probability, scores.fraud_probability, rtol=0, atol=1e-5)
            for label, logit in scores.graph.items():
                np.testing.assert_allclose(said.graph[label], logit, rtol=0, atol=1e-5)
            if name == "shim":  # where the network is the host's own
                np.testing.assert_array_equal(said.fraud_probability, scores.fraud_probability)
            np.testing.assert_array_equal(said.default_probability, scores.default_probability)
            for label in bundle.models if len(own) else ():
                reasons = scorer.reasons(label, seen_by_host, scores)
                again = replace(scores, contributions=said.contributions)
                assert scorer.reasons(label, seen_by_host, again) == reasons
                assert scorer.reasons(label, seen_by_host, again) == reasons  # asking changes nothing
            seen += len(own)
    assert seen > 100


@pytest.mark.parametrize("name", NAMES)
def test_a_deep_network_sees_the_hosts_hops(name: str, consumer: Schema, tmp_path: Path) -> None:
    """Of networks on the CPU: of all rows, and of some alone."""
    rng, device = np.random.default_rng(4), opened(name)
    bundle = Bundle.load(deep_bundle("consumer", tmp_path / "deep"), consumer)
    host, there = EntityGraph(deep=True), DeviceGraph(device, deep=True)
    scorer, on_device, columns = Scorer(bundle), Scorer(bundle, device_of(device)).there, 7 + len(consumer.record)
    assert on_device is not None
    for part, own, links in batches(rng, random_log(rng, 100, 6), 30):
        expected = host.observe(part, own, links)
        features, rows = random_snapshot(consumer, len(own), int(rng.integers(1000))).features, np.arange(len(own))
        given, state = features.copy(), np.zeros((len(own), len(consumer.sources)), dtype=np.uint8)
        count(consumer, features, expected, rows)
        made = snapshot(consumer, features, state, expected, rows)
        with device.deciding():
            view = there.observe(part, own, links)
            asked = on_device.ask(view, given)
            _, answers = fetched(device, view, {"": asked})
        found = on_device.scores(asked, answers[""]).fraud_probability
        np.testing.assert_allclose(found, scorer.score(made).fraud_probability, rtol=0, atol=1e-5)
        assert view.hops is not None and made.hops is not None
        some = rng.permutation(rows)[: len(rows) // 2]
        given_hops = hop_inputs(device.xp, view.hops.take(some), consumer.slots, columns)
        for field, array in made.hops.take(some).given().items():
            np.testing.assert_array_equal(device.host(given_hops[field]), array, field)


def test_arithmetic_over_what_the_graph_counts_stays_on_the_cpu(consumer: Schema) -> None:
    """The host would compute it from a column that only the device has."""
    feature = {"name": "doubled", "cross": "linked_24h * 2", "unit": "applications", "zh": "两倍", "en": "twice"}
    schema = Schema({**consumer.document, "features": [*consumer.document["features"], feature]}, "doubled.yaml")
    assert unfit(consumer) == ""
    assert unfit(schema) == "doubled is computed from what the graph counts"


def test_the_service_loads_no_cuda() -> None:
    """Not CuPy, not NVRTC, no kernel: without a device nothing of them is needed."""
    code = (
        "import sys, server.__main__;"
        "print([m for m in sys.modules if m.split('.')[0] in ('cupy', 'cuda', 'gpu_kernels')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

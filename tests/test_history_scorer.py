"""Whole histories scored on a device: what the scorer says of them, and a device that fails or errs changes nothing."""

from pathlib import Path

import numpy as np
import pytest

from features.place import Place
from features.replay import History, replay
from gpu_kernels.device import Launch
from models.bundle import Bundle
from models.history_scorer import HistoryScorer
from models.scorer import Scorer
from models.tables import score_table
from tests.conftest import demo_bundle
from tests.cuda_shim import Shim
from tests.gpu_devices import NAMES, networks_by_onnx
from tests.test_engine import past
from tests.test_place import Failing, placed
from tests.test_tables import bundle, frame, schema

__all__ = ["bundle", "networks_by_onnx", "past", "schema"]
pytestmark = pytest.mark.usefixtures("networks_by_onnx")


@pytest.mark.parametrize("name", NAMES)
def test_scores_equal_the_scorers(name: str, past: History) -> None:
    """Trees bit for bit; networks too, as long as both run on the CPU: on a device to 1e-5 of a probability."""
    made = replay(past)
    for loaded in (Bundle.open(demo_bundle(n)) for n in made):
        snapshot = made[loaded.schema.name].snapshot
        there, here = HistoryScorer(loaded, placed(name)).score(snapshot), Scorer(loaded).score(snapshot)
        for label in loaded.models:
            one, other = (getattr(scores, f"{label}_probability") for scores in (there, here))
            np.testing.assert_array_equal(one, other)
            assert np.array_equal(HistoryScorer(loaded).probability(snapshot, label), other)
        assert there.graph.keys() == here.graph.keys()
        for label, logit in here.graph.items():
            np.testing.assert_array_equal(there.graph[label], logit)


@pytest.mark.parametrize("name", NAMES)
def test_a_table_is_scored_the_same(name: str, bundle: Bundle, tmp_path: Path) -> None:
    frame(400, 3).write_csv(tmp_path / "later.csv")
    frame(300, 5).write_parquet(tmp_path / "earlier.parquet")
    asked = bundle, tmp_path / "later.csv", tmp_path / "earlier.parquet"
    found = score_table(*asked, place=placed(name))
    assert found.equals(score_table(*asked)) and found["score"].n_unique() > 100


@pytest.mark.parametrize("after", [0, 1, 2])
def test_a_device_that_fails_while_scoring(after: int, past: History) -> None:
    """At its first kernel, in the middle of the bundle's probe, and then among the rows."""
    loaded, snapshot = Bundle.open(demo_bundle("consumer")), replay(past)["consumer"].snapshot
    warned: list[str] = []
    on = Place(Failing("add_leaves", after), "cpu", warned.append)
    found, expected = HistoryScorer(loaded, on).score(snapshot), Scorer(loaded).score(snapshot)
    for label in loaded.models:
        np.testing.assert_array_equal(getattr(found, f"{label}_probability"), getattr(expected, f"{label}_probability"))
    assert len(warned) == 1 and "cudaErrorIllegalAddress" in warned[0]


def test_a_device_that_says_otherwise_is_not_entered(past: History) -> None:
    class Wrong(Shim):
        """Adds no leaves."""

        def kernels(self, source: Path) -> Launch:
            launch = super().kernels(source)
            return lambda kernel, *rest: None if kernel == "add_leaves" else launch(kernel, *rest)

    loaded, snapshot = Bundle.open(demo_bundle("consumer")), replay(past)["consumer"].snapshot
    warned: list[str] = []
    found = HistoryScorer(loaded, Place(Wrong(), "cpu", warned.append)).score(snapshot)
    np.testing.assert_array_equal(found.fraud_probability, Scorer(loaded).score(snapshot).fraud_probability)
    assert len(warned) == 1 and "device and CPU differ in the trees" in warned[0]

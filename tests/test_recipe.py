"""The recipe of one label: what the test part, other rows' features and young rows may and may not do."""

import copy
from dataclasses import replace

import numpy as np
import pytest

from features.replay import Rows
from features.schema import Schema
from features.specs import DAY_MS
from models.folds import TrainingError, aggregate_columns
from models.recipe import AGGREGATES, NETWORK, NO_GAIN, TREES, TrainConfig, Trained, known_rows, train_label
from models.report import LabelTrial
from models.scorer import LabelScorer
from models.tables import silent
from models.train import held_out, trial
from tests.snapshots import random_rows

QUICK = TrainConfig(search_seconds=0)


@pytest.fixture(scope="module")
def rows(consumer: Schema) -> Rows:
    return random_rows(consumer, 2000, 0)


@pytest.fixture(scope="module")
def trained(rows: Rows) -> Trained:
    return train_label(rows, "fraud", QUICK, silent, ablate=True)


def test_variants_see_more_and_more(rows: Rows, trained: Trained) -> None:
    """Trees alone take nothing of what counts other rows; the network joins the very trees of the second variant."""
    assert list(trained.variants) == list(trained.validation) == [TREES, AGGREGATES, NETWORK]
    columns = rows.schema.columns("fraud")
    counts = aggregate_columns(rows.schema, "fraud")
    alone, together = (
        LabelScorer(trained.variants[name], columns).explain(rows.snapshot) for name in (TREES, AGGREGATES)
    )
    assert not alone[:, counts].any() and alone[:, ~counts].any() and together[:, counts].any()
    assert trained.variants[NETWORK].forest is trained.variants[AGGREGATES].forest
    for name, said in trained.validation.items():  # figures of the manifest are of these very rows
        scored = LabelScorer(trained.variants[name], columns).score(rows.snapshot.take(trained.stack))
        np.testing.assert_allclose(scored, said, atol=1e-6)
        assert trained.findings["metrics"][name]["rows"] == len(said)


def test_what_chose_the_network(trained: Trained) -> None:
    figures = trained.findings["metrics"]
    assert (trained.chosen == NETWORK) == (figures[NETWORK]["auprc"] > figures[AGGREGATES]["auprc"])
    assert trained.model is trained.variants[trained.chosen]


def test_a_network_without_gain_stays_only_when_asked(rows: Rows) -> None:
    """One that could join the trees, but whose AUPRC on the rows that calibrate is not above theirs."""
    shown_to_trees_alone = rows.snapshot.features[:, rows.schema.column["linked_24h"]]
    linked = np.nan_to_num(shown_to_trees_alone)
    random = np.random.default_rng(17).random(len(linked))
    fraud = (random < 1 / (1 + np.exp(2 - np.log1p(linked)))).astype(np.int8)
    plain = replace(rows, labels={**rows.labels, "fraud": fraud})
    left = train_label(plain, "fraud", QUICK, silent)
    kept = train_label(plain, "fraud", replace(QUICK, keep_gnn=True), silent)
    figures = left.findings["metrics"]
    assert figures[NETWORK]["auprc"] <= figures[AGGREGATES]["auprc"]
    assert (left.chosen, left.findings["gnn"]) == (AGGREGATES, NO_GAIN) and left.model.gnn_onnx is None
    assert (kept.chosen, kept.findings["gnn"]) == (NETWORK, "kept, as asked") and kept.model.gnn_onnx is not None


def judged(rows: Rows) -> dict[str, LabelTrial]:
    return trial(rows, replace(QUICK, test_share=0.25))


def test_the_test_part_chooses_nothing(rows: Rows) -> None:
    """Other labels there, other figures, and the same models to the bit; what is tested is later than what is not."""
    before, later = held_out(rows, replace(QUICK, test_share=0.25))
    assert rows.event_time_ms[before].max() < rows.event_time_ms[later].min() and len(before) + len(later) == 2000
    flipped = {name: known.copy() for name, known in rows.labels.items()}
    for known in flipped.values():
        known[later] = np.where(known[later] >= 0, 1 - known[later], -1)
    one, other = judged(rows), judged(replace(rows, labels=flipped))
    assert set(one) == set(other) == {"fraud", "default"}
    for label, found in one.items():
        first, second = found.test, other[label].test
        asked = np.intersect1d(later, known_rows(rows, label))
        np.testing.assert_array_equal(first.labels, 1 - second.labels)
        np.testing.assert_array_equal(first.time_ms, rows.event_time_ms[asked])
        for name, said in first.probability.items():
            np.testing.assert_array_equal(said, second.probability[name])


def test_a_test_part_of_everything_is_refused(rows: Rows) -> None:
    with pytest.raises(TrainingError, match="leaves no row on one side"):
        held_out(rows, replace(QUICK, test_share=1.0))


def test_young_rows_are_not_learned_from(rows: Rows) -> None:
    """What turned bad already would be all that is known of them."""
    document = copy.deepcopy(rows.schema.document)
    document["labels"]["fraud"]["mature_days"] = 0.25
    ended = int(rows.event_time_ms[-1])
    grown = replace(rows, schema=Schema(document, "consumer.yaml"), ended_ms=ended)
    known = known_rows(grown, "fraud")
    old = rows.event_time_ms <= ended - DAY_MS // 4
    assert 0 < old.sum() < 2000
    np.testing.assert_array_equal(known, np.flatnonzero(old & (rows.labels["fraud"] >= 0)))
    np.testing.assert_array_equal(known_rows(grown, "default"), np.flatnonzero(rows.labels["default"] >= 0))

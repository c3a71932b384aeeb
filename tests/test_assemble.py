"""Rows from applications, profiles and views: states of sources, cross-checks, the worst of several slots."""

import numpy as np

from features.application import Profile, Snapshot
from features.assemble import DAY_MS, assemble
from features.neighborhood import Neighborhood, empty_view
from features.profiles import Profiles
from features.schema import SOURCE_FRESH, SOURCE_MISSING, SOURCE_STALE, Schema
from features.statistics import ENTITY_STATS
from tests.conftest import application

NOW_MS = 1_700_000_000_000


def view_of(rows: int) -> Neighborhood:
    view = empty_view(rows, np.zeros(rows, dtype=np.int64))
    view.time_ms[:] = NOW_MS
    return view


def row(schema: Schema, snapshot: Snapshot, name: str, at: int = 0) -> float:
    return float(snapshot.features[at, schema.column[name]])


def test_sources_have_states_and_ages(consumer: Schema) -> None:
    numbers = np.arange(6, dtype=np.float32)
    bureau = Profile("bureau", int(NOW_MS - 10 * DAY_MS), numbers)
    tax = Profile("tax", int(NOW_MS - 181 * DAY_MS), np.array([8_000.0], dtype=np.float32))
    snapshot = assemble(
        consumer,
        [application(consumer, "a")],
        Profiles.of(consumer, [{"bureau": bureau, "tax": tax}]),
        view_of(1),
        np.array([0]),
    )
    states = dict(zip(consumer.sources, snapshot.source_state[0].tolist(), strict=True))
    assert (states["bureau"], states["tax"], states["courts"]) == (SOURCE_FRESH, SOURCE_STALE, SOURCE_MISSING)
    assert row(consumer, snapshot, "bureau_age_days") == 10.0
    assert row(consumer, snapshot, "bureau_inquiries_3m") == 1.0
    assert np.isnan(row(consumer, snapshot, "courts_cases"))  # a missing source is no zero
    assert row(consumer, snapshot, "income_to_tax") == 1.0
    assert row(consumer, snapshot, "verified_income") == 8_000.0
    assert np.isnan(row(consumer, snapshot, "income_to_fund"))


def test_worst_of_several_contacts(consumer: Schema) -> None:
    view = view_of(2)
    slot = consumer.entities["contact"].first_slot
    view.entity_state[1, slot : slot + 2, list(ENTITY_STATS).index("count_24h")] = [3, 7]
    snapshot = assemble(
        consumer,
        [application(consumer, "a"), application(consumer, "b")],
        Profiles.none(consumer, 2),
        view,
        np.array([1, 0]),
    )
    assert row(consumer, snapshot, "contact_count_24h") == 7.0
    assert np.isnan(row(consumer, snapshot, "contact_count_24h", 1))
    assert snapshot.entity_state.shape[1] == consumer.slots


def test_a_row_does_not_depend_on_its_batch(consumer: Schema) -> None:
    applications = [application(consumer, f"a{i}") for i in range(5)]
    profiles = [{"tax": Profile("tax", NOW_MS, np.array([1_000.0 * i], dtype=np.float32))} for i in range(5)]
    whole = assemble(consumer, applications, Profiles.of(consumer, profiles), view_of(5), np.arange(5))
    for i in range(5):
        alone = assemble(
            consumer, [applications[i]], Profiles.of(consumer, profiles[i : i + 1]), view_of(5), np.array([i])
        )
        np.testing.assert_array_equal(alone.features[0], whole.features[i])


def test_neighbors_carry_the_record(consumer: Schema) -> None:
    snapshot = assemble(consumer, [application(consumer, "a")], Profiles.none(consumer, 1), view_of(1), np.array([0]))
    assert snapshot.neighbor_state.shape[3] == 7 + len(consumer.record)

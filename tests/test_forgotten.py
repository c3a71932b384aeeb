"""Training from an archive leaves out whom the log forgets, and what stood on a consent withdrawn since (R20)."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from redis.asyncio import Redis

from bench import world
from features import export
from features.application import Application
from features.archive import Archive, ArchiveError, rows
from features.forget import Forgetting
from features.forgotten import drawn_from
from features.neighborhood import NEIGHBOR_COLUMNS
from features.replay import History, Rows
from features.schema import Schema
from proto.miaopi.v1 import decision_pb2 as pb
from server.products import Product
from tests.conftest import timeless
from tests.test_engine import APPLICATIONS, TOKENIZER, engine_on, past, run, served

__all__ = ["past", "served"]
CONTACTS = slice(3, 6)
HALF = 150
INCOME = len(NEIGHBOR_COLUMNS)  # the first number of the record


@pytest.fixture(scope="module")
def people() -> list[str]:
    """Applicants of the world's first consumer applications with a contact, by their identifiers."""
    asked = [e for e in world.build(7, APPLICATIONS).events[:HALF] if isinstance(e, pb.DecideRequest)]
    named = [
        e for e in asked if e.product == "consumer" and e.consents and any(x.type == "contact" for x in e.entities)
    ]
    return list(dict.fromkeys(e.applicant_id for e in named))


def of_person(name: str, made: Rows, past: History) -> NDArray[np.bool_]:
    """Which rows are of a person: the ids of archived rows are sequence numbers, here from 1 without a gap."""
    token = TOKENIZER.token("applicant", name)
    mine = {str(i) for i, e in enumerate(past.events, 1) if isinstance(e, Application) and int(e.tokens[0]) == token}
    return np.array([name in mine for name in made.application_ids])


async def test_forgotten_applicants_and_withdrawn_contacts_are_not_learned_from(
    redis: Redis, tenant: str, served: dict[str, Product], past: History, people: list[str], tmp_path: Path
) -> None:
    events, consumer = timeless(past.events[: 2 * HALF]), served["consumer"].schema
    gone, withdrew = people[3:9], people[9:12]
    async with engine_on(redis, tenant, served, past) as (engine, _):
        await run(engine, events[:HALF], 5)
        await export.write(redis, tenant, tmp_path / "before")
        for name in gone:
            await engine.forget(TOKENIZER, Forgetting(name, "Li"))
        for name in withdrew:
            await engine.forget(TOKENIZER, Forgetting(name, "Li", "contacts"))
        await run(engine, events[HALF:], 5)
        await export.write(redis, tenant, tmp_path / "after")
        for event in events:
            if isinstance(event, Application):
                assert await engine.decision(event.application_id)  # decisions stay
    told: list[str] = []
    before = rows(tmp_path / "before", consumer)
    made = rows(
        tmp_path / "after", consumer, warn=told.append
    )  # meets the evidence of every decision, before and after
    left_out = np.any([of_person(name, before, past) for name in gone], axis=0)
    stays = np.flatnonzero(~left_out)
    expected, found = before.take(stays), made.take(np.arange(len(stays)))
    assert found.application_ids == expected.application_ids and left_out.sum() >= len(gone)
    lose = np.any([of_person(name, expected, past) for name in withdrew], axis=0)
    assert told == [
        f"{left_out.sum()} decisions are left out: their applicants are forgotten on request",
        f"{lose.sum()} decisions lose what stood on a consent withdrawn since",
    ]
    contacts = np.array([consumer.column[name] for name in drawn_from(consumer, 0b111000)])
    assert not np.isnan(expected.snapshot.features[np.ix_(lose, contacts)]).all(axis=0).any()
    assert np.isnan(found.snapshot.features[np.ix_(lose, contacts)]).all()
    assert np.isnan(found.snapshot.entity_state[lose, CONTACTS]).all()
    assert (
        not found.snapshot.neighbor_mask[lose, CONTACTS].any()
        and not found.snapshot.neighbor_state[lose, CONTACTS].any()
    )
    found.snapshot.features[np.ix_(lose, contacts)] = expected.snapshot.features[np.ix_(lose, contacts)]
    np.testing.assert_array_equal(found.snapshot.features, expected.snapshot.features)
    shown, was = found.snapshot.neighbor_state[~lose], expected.snapshot.neighbor_state[~lose]
    blank = np.isnan(shown) & ~np.isnan(was)
    np.testing.assert_array_equal(np.where(blank, was, shown), was)
    assert blank[..., INCOME].any() and not blank[..., :INCOME].any()  # what neighbours declared, of the forgotten only


async def test_where_nobody_is_left_it_says_so(
    redis: Redis, tenant: str, served: dict[str, Product], past: History, people: list[str], tmp_path: Path
) -> None:
    token = TOKENIZER.token("applicant", people[0])
    only = [
        e for e in past.events if isinstance(e, Application) and int(e.tokens[0]) == token and e.product == "consumer"
    ]
    async with engine_on(redis, tenant, served, past) as (engine, _):
        await run(engine, [e._replace(event_time_ms=0) for e in only], None)
        await engine.forget(TOKENIZER, Forgetting(people[0], "Li"))
        await export.write(redis, tenant, tmp_path / "archive")
    with pytest.raises(ArchiveError, match="every applicant of schema consumer is forgotten"):
        rows(tmp_path / "archive", served["consumer"].schema)
    assert len(Archive.open(tmp_path / "archive").decisions(["sequence", "as_of", "outcome"])) == len(only)


def test_what_is_drawn_from_contacts(consumer: Schema) -> None:
    names = drawn_from(consumer, 0b111000)
    assert {"contact_count_7d", "linked_applicants", "shared_entities"} <= names
    assert not any(name.startswith(("device_", "phone_", "bureau_", "declared_")) for name in names)
    assert drawn_from(consumer, 1 << consumer.entities["officer"].first_slot) == {
        f.name for f in consumer.features if f.entity == "officer"
    }

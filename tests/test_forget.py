"""Forgetting over a real store: whose slots, consents given before, profiles, and the record of it (R20)."""

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from redis.asyncio import Redis

from features import evidence
from features.application import Application, InvalidFieldError, Profile, Report, entity_tokens
from features.consent import consent_slots
from features.events import FORGETTING, FORGOTTEN
from features.forget import Forgetting, forget
from features.load import load_profiles
from features.replay import History
from features.reservations import Proposal, Reservation
from features.schema import Schema
from features.store import EpochError, Store
from policy.decide import Policy
from proto.miaopi.v1 import decision_pb2 as pb
from server import privacy
from server.errors import UnavailableError
from server.products import Product
from tests import test_engine
from tests.conftest import SCANNED, TOKENIZER, application, profiles_of
from tests.lending import write_policies
from tests.test_engine import engine_on, past, run, served

__all__ = ["past", "served"]
CONTACTS = slice(3, 6)
PEOPLE = [("contact", "13800000001"), ("contact", "13800000002"), ("device", "d")]


def asking(schema: Schema, name: str, given_at_ms: int | None, person: str = "a person") -> Application:
    """An application that names two contacts, with a consent of a time or of none said."""
    tokens = entity_tokens(schema, TOKENIZER, person, PEOPLE, {"contacts"})
    consents = {} if given_at_ms is None else {"contacts": given_at_ms}
    return application(schema, name, tokens=tokens, consents=consents)


def withdrawn(person: str = "a person", purpose: str | None = "contacts") -> Forgetting:
    return Forgetting(person, "Li of compliance", purpose)


async def test_an_old_consent_does_not_count_after_a_withdrawal(
    store: Store, redis: Redis, tenant: str, consumer: Schema
) -> None:
    """Also on a replica that has not read the withdrawal; another person's and a later one count."""
    replica = Store(redis, tenant, TOKENIZER, [consumer])
    await replica.open()
    before = await store.begin([asking(consumer, "before", 1_000)])
    assert before.events.fields["tokens"][0, CONTACTS].tolist().count(0) == 1
    done = await forget(store, TOKENIZER, withdrawn())
    now_ms = int((await store.tail()).time_ms[-1])
    batch = [
        asking(consumer, "old", 1_000), asking(consumer, "same instant", now_ms), asking(consumer, "new", now_ms + 1),
        asking(consumer, "unsaid", None), asking(consumer, "somebody else", 1_000, "another person"),
        asking(consumer, "before", 1_000), application(consumer, "nobody named"),
    ]  # fmt: skip
    started = await replica.begin(batch)
    assert [b.status for b in started.begun] == ["NEW"] * 5 + ["PENDING", "NEW"]
    tokens = started.events.fields["tokens"][done.sequence :]
    assert [np.count_nonzero(t[CONTACTS]) for t in tokens] == [0, 0, 2, 0, 2, 0]
    for sent, logged in zip([*batch[:5], batch[6]], tokens, strict=True):
        np.testing.assert_array_equal(np.delete(logged, [3, 4, 5]), np.delete(sent.tokens, [3, 4, 5]))
    await forget(store, TOKENIZER, withdrawn())
    again = await replica.begin([asking(consumer, "between", now_ms + 1)])
    assert not again.events.fields["tokens"][-1, CONTACTS].any()


async def test_the_log_says_whose_slots_of_every_schema(
    redis: Redis, tenant: str, consumer: Schema, store: Store
) -> None:
    """A release whose contacts stand elsewhere, and one that calls the applicant something else."""
    entities = consumer.document["entities"]
    moved = Schema(
        consumer.document | {"entities": {"applicant": entities["applicant"], "dealer": entities["dealer"]} | entities},
        "m",
    )
    payer = {
        "payer": {},
        "contact": entities["contact"],
        "pair": {"of": ["payer"]},
        "team": {"of": ["pair"], "consent": "contacts"},
    }
    tiny: dict[str, Any] = {
        "name": "tiny", "version": 1, "entities": payer, "features": [{"name": "x"}], "labels": {"fraud": {}},
    }  # fmt: skip
    other = Schema(tiny, "tiny")
    await Store(redis, tenant, TOKENIZER, [moved, other]).open()
    done = await forget(store, TOKENIZER, withdrawn())
    fields = (await store.tail()).fields
    assert done.sequence == 3 and fields["kind"].tolist() == [FORGOTTEN] * 3 and not fields["subject"].any()
    said = {int(e["schema"]): (int(e["applicant"]), int(e["slots"])) for e in fields.view(FORGETTING)}
    person, paying = (TOKENIZER.token(kind, "a person") for kind in ("applicant", "payer"))
    assert said == {
        int.from_bytes(s.fingerprint, "little"): told
        for s, told in ((consumer, (person, 0b111000)), (moved, (person, 0b1110000)), (other, (paying, 0b101110)))
    }
    await forget(store, TOKENIZER, withdrawn(purpose=None))
    fields = (await store.tail()).fields.view(FORGETTING)
    assert {(int(e["applicant"]), int(e["slots"]), int(e["schema"])) for e in fields} == {
        (person, 0xFFFF, 0), (paying, 0xFFFF, 0),
    }  # fmt: skip


def test_what_is_made_of_a_consented_identifier_stands_on_the_consent_too() -> None:
    document = {
        "entities": {
            "applicant": {}, "guarantor": {"consent": "guarantee"}, "contact": {"consent": "contacts", "slots": 2},
            "pair": {"of": ["applicant", "guarantor"]}, "card": {"slots": 3},
        }
    }  # fmt: skip
    assert consent_slots(document) == {"guarantee": (1, 4), "contacts": (2, 3)}
    assert consent_slots({}) == {}


async def test_deletion_takes_the_profiles_of_the_applicant(
    redis: Redis, tenant: str, consumer: Schema, store: Store
) -> None:
    """Of every source that knows the applicant, nobody else's; consents given before count no more."""
    person, other = (TOKENIZER.token("applicant", name) for name in ("a person", "another person"))
    tax = Profile("tax", 2_000, np.array([9_000.0], dtype=np.float32))
    courts = Profile("courts", 2_000, np.zeros(2, dtype=np.float32))
    await load_profiles(store, [(who, consumer, profile) for who in (person, other) for profile in (tax, courts)])
    assert (await forget(store, TOKENIZER, withdrawn(purpose=None))).profiles == 2
    assert (await forget(store, TOKENIZER, withdrawn(purpose=None))).profiles == 0
    started = await store.begin([asking(consumer, "a", 1_000), asking(consumer, "b", 1_000, "another person")])
    known = [profiles_of(consumer, started.profiles[consumer.name], row) for row in (0, 1)]
    assert [sorted(p) for p in known] == [[], ["courts", "tax"]]
    tokens = started.events.fields["tokens"][-2:]
    assert [np.count_nonzero(t[CONTACTS]) for t in tokens] == [0, 2] and int(tokens[0, 0]) == person


async def test_a_profile_fetched_before_a_deletion_does_not_come_back(
    redis: Redis, tenant: str, consumer: Schema, store: Store
) -> None:
    """A feed that is late, or sends again what it sent; another person's comes as ever."""
    who, other = (TOKENIZER.token("applicant", name) for name in ("a person", "another person"))
    done = await forget(store, TOKENIZER, withdrawn(purpose=None))
    now_ms = int((await store.tail()).time_ms[-1])
    numbers = np.array([9_000.0], dtype=np.float32)
    for fetched_at_ms, stored in ((now_ms - 5_000, False), (now_ms, False), (now_ms + 1, True)):
        tax = Profile("tax", fetched_at_ms, numbers)
        assert await store.put_profiles([(who, consumer, tax), (other, consumer, tax)]) == [stored, True]
        assert await redis.exists(f"{{{tenant}}}:p:tax:{who:016x}") == stored
    assert done.sequence == 1


async def test_profiles_are_kept_no_longer_than_said(redis: Redis, tenant: str, consumer: Schema) -> None:
    """From when they were fetched, not from when they came; without a number of days they stay."""
    who, day_ms, now_ms = TOKENIZER.token("applicant", "a person"), 86_400_000, round(time.time() * 1000)
    for days, ages_ms in ((30, (31 * day_ms, 30 * day_ms + 1_000, 29 * day_ms, 0)), (0, (4_000 * day_ms,))):
        store = Store(redis, f"{tenant}-{days}", TOKENIZER, [consumer], profile_days=days)
        await store.open()
        key = f"{{{tenant}-{days}}}:p:tax:{who:016x}"
        for age_ms in ages_ms:
            tax = Profile("tax", now_ms - age_ms, np.array([9_000.0], dtype=np.float32))
            stored = not days or age_ms < days * day_ms
            assert await store.put_profiles([(who, consumer, tax)]) == [stored]
            left_ms = await redis.pttl(key)
            expected_ms = (days * day_ms - age_ms if days else -1) if stored else -2
            assert abs(left_ms - expected_ms) < 10_000 and (days or left_ms == -1)


class Registering(Store):
    """A store where a release with another schema starts right after the schemas were asked for."""

    def __init__(self, redis: Redis, tenant: str, schema: Schema, later: Schema) -> None:
        super().__init__(redis, tenant, TOKENIZER, [schema])
        self.release: Store | None = Store(redis, tenant, TOKENIZER, [later])

    async def schemas(self) -> dict[str, Any]:
        known = await super().schemas()
        if self.release is not None:
            release, self.release = self.release, None
            await release.open()
        return known


async def test_a_schema_that_comes_meanwhile_is_asked_too(redis: Redis, tenant: str, consumer: Schema) -> None:
    entities = consumer.document["entities"]
    moved = Schema(consumer.document | {"entities": {"applicant": {}, "dealer": entities["dealer"]} | entities}, "m")
    store = Registering(redis, tenant, consumer, moved)
    await store.open()
    assert (await forget(store, TOKENIZER, withdrawn())).sequence == 2
    fields = (await store.tail()).fields.view(FORGETTING)
    assert {int(e["schema"]) for e in fields} == {int.from_bytes(s.fingerprint, "little") for s in (consumer, moved)}
    assert await redis.xlen(f"{{{tenant}}}:forgotten") == 1


@pytest.mark.parametrize("written", ["110101199003071234", "110101 19900307 1234", "id:１１０１０１199003071234"])
async def test_who_asks_is_not_the_identifier(store: Store, redis: Redis, tenant: str, written: str) -> None:
    """An applicant who asks in person: the record would keep for good what the request is to forget."""
    for purpose in ("contacts", None):
        with pytest.raises(InvalidFieldError) as caught:
            await forget(store, TOKENIZER, Forgetting("110101199003071234", written, purpose))
        assert caught.value.field == "requested_by"
    assert await store.position() == 0


async def test_it_is_on_record_under_tokens(redis: Redis, tenant: str, store: Store) -> None:
    await forget(store, TOKENIZER, withdrawn("110101199003071234"))
    await forget(store, TOKENIZER, withdrawn("110101199003071234", None))
    entries: Any = await redis.xrange(f"{{{tenant}}}:forgotten")
    found = [(json.loads(f[b"request"]), int(f[b"sequence"]), int(f[b"profiles"])) for _, f in entries]
    token = f"{TOKENIZER.token('applicant', '110101199003071234'):016x}"
    assert found == [
        ({"applicants": [token], "purpose": purpose, "requested_by": "Li of compliance"}, sequence, 0)
        for sequence, purpose in ((1, "contacts"), (2, None))
    ]
    held = b""
    async for key in redis.scan_iter(f"{{{tenant}}}*", SCANNED):
        held += key + await redis.dump(key)
    assert b"110101199003071234" not in held


async def test_refusals_write_nothing(store: Store, redis: Redis, tenant: str) -> None:
    with pytest.raises(InvalidFieldError, match="purpose: must be one of contacts"):
        await forget(store, TOKENIZER, withdrawn(purpose="marketing"))
    with pytest.raises(InvalidFieldError, match="applicant_id: is no applicant"):
        await forget(store, TOKENIZER, withdrawn("  "))
    assert await store.position() == 0 and not await redis.exists(f"{{{tenant}}}:forgotten", f"{{{tenant}}}:withdrawn")
    await redis.delete(f"{{{tenant}}}:meta")
    with pytest.raises(EpochError):
        await forget(store, TOKENIZER, withdrawn())
    assert not await redis.exists(f"{{{tenant}}}:forgotten", f"{{{tenant}}}:log")


async def test_an_application_begun_and_then_forgotten_is_decided_without_what_is_gone(
    redis: Redis, tenant: str, served: dict[str, Product], past: History
) -> None:
    """Begun by a server that died, forgotten, sent again: no identifier is left and no source is asked. Nobody counts
    it any more, whatever is reported of it."""
    tokenizer, schema = test_engine.TOKENIZER, served["consumer"].schema
    sent = next(e for e in past.events if isinstance(e, Application) and e.product == "consumer")

    def of(person: str) -> Application:
        tokens = entity_tokens(schema, tokenizer, person, PEOPLE, {"contacts"})
        return sent._replace(application_id=person, body_hash=person.encode(), tokens=tokens, event_time_ms=0)

    async with engine_on(redis, tenant, served, past) as (engine, store):

        async def counted(name: str, feature: str) -> float:
            stored = await store.decision(name)
            assert stored is not None
            return float(evidence.unpack(stored[1])[1][schema.column[feature]])

        crashed = Store(redis, tenant, tokenizer, [p.schema for p in served.values()])
        await crashed.open()
        await crashed.begin([of("gone")])
        await run(engine, [of("before")], None)
        done = await engine.forget(tokenizer, withdrawn("gone", None))
        tax = Profile("tax", int(time.time() * 1000), np.array([9_000.0], dtype=np.float32))
        await load_profiles(store, [(int(of(name).tokens[0]), schema, tax) for name in ("gone", "after")])
        gone, after = await run(engine, [of("gone"), of("after")], 4)
        assert (gone.log_position.sequence, gone.log_position.as_of, done.sequence) == (1, 4, 3)
        assert gone.outcome == pb.OUTCOME_REVIEW and "source:tax:missing" in gone.degraded
        assert "source:tax:missing" not in after.degraded
        assert np.isnan(await counted("gone", "device_count_7d"))
        assert [await counted(name, "device_count_7d") for name in ("before", "after")] == [1, 1]
        assert [await counted(name, "linked_applicants") for name in ("before", "after")] == [1, 1]
        await engine.report(Report("o", "gone", "fraud_confirmed"))
        await run(engine, [of("later")], None)
        assert await counted("later", "device_fraud_count") == 0 and await counted("later", "linked_applicants") == 2


async def test_who_is_forgotten_still_owes_what_is_approved(
    redis: Redis, tenant: str, served: dict[str, Product], past: History, tmp_path: Path
) -> None:
    """Begun, forgotten, then decided: the approval counts for this borrower, and for no other who was forgotten."""
    policies = write_policies(tmp_path, exposure_max_minor=5_000_000, certain=True)
    policy = Policy.load(policies / "consumer", "consumer", served["consumer"].schema)
    products = {**served, "consumer": replace(served["consumer"], policy=policy)}
    sent = next(e for e in past.events if isinstance(e, Application) and e.product == "consumer")
    tokenizer, names = test_engine.TOKENIZER, ("one", "two")
    asked = [
        sent._replace(
            application_id=name, body_hash=name.encode(), event_time_ms=0, amount_minor=2_000_000,
            tokens=entity_tokens(sent.schema, tokenizer, name, [("device", f"device of {name}")], ()),
        )
        for name in names
    ]  # fmt: skip
    async with engine_on(redis, tenant, products, past) as (engine, store):
        crashed = Store(redis, tenant, tokenizer, [sent.schema])
        await crashed.open()
        await crashed.begin([*asked, asked[0]._replace(application_id="earlier", body_hash=b"earlier")])
        await crashed.commit([Proposal("earlier", b"decision", b"", Reservation(asked[0].borrower, 4_000_000, None))])
        for name in names:
            await engine.forget(tokenizer, withdrawn(name, None))
        await run(engine, asked, None)
        stored = [await store.decision(name) for name in names]
    facts = [evidence.unpack(s[1])[0] for s in stored if s is not None]
    assert [f.exposure_minor for f in facts] == [4_000_000, 0]
    prefix = f"{{{tenant}}}:x:"
    keys = {key.decode().removeprefix(prefix) async for key in redis.scan_iter(f"{prefix}*", SCANNED)}
    assert keys <= {a.borrower for a in asked}


async def test_a_server_that_is_fed_history_refuses(
    redis: Redis, tenant: str, served: dict[str, Product], past: History
) -> None:
    """An event of now would end the past that it is being fed."""
    person = {"tenant": tenant, "applicant_id": "a person", "requested_by": "Li"}
    async with engine_on(redis, tenant, served, past) as (engine, store):
        a_schema_each_and_one = len({product.schema.name for product in served.values()}) + 1
        for replaying, events in ((True, 0), (False, a_schema_each_and_one)):
            withdraw = pb.WithdrawConsentRequest(**person, purpose="contacts")
            for call in (
                privacy.withdraw_consent(engine, TOKENIZER, withdraw, replaying),
                privacy.delete_applicant(engine, TOKENIZER, pb.DeleteApplicantRequest(**person), replaying),
            ):
                if replaying:
                    with pytest.raises(UnavailableError):
                        await call
                else:
                    await call
            assert await store.open() == events

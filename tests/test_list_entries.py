"""Entries in a real store: two persons, once on the log, pages, a consortium's order."""

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from redis.asyncio import Redis

from features.application import InvalidFieldError
from features.events import LISTED, LISTING
from features.list_entries import (
    PAGE_MAX,
    Consortium,
    ConsortiumError,
    EntryRefusedError,
    ListEntries,
    Proposal,
    listable,
)
from features.schema import Schema
from features.specs import LISTS
from features.store import Store
from features.tokens import Tokenizer
from server.challengers import Challengers
from server.engine import Engine
from tests.conftest import SCANNED, TOKENIZER

SHARED = Tokenizer(b"a secret of a consortium")


@pytest.fixture
def entries(store: Store, tenant: str) -> ListEntries:
    return ListEntries(tenant, store, TOKENIZER)


async def member(redis: Redis, tenant: str, name: str, secret: bytes) -> tuple[ListEntries, Store]:
    """A lender of the consortium `tenant`, which no other test uses."""
    tokenizer = Tokenizer(secret)
    store = Store(redis, f"{tenant}-{name}", tokenizer, [])
    await store.open()
    consortium = Consortium(Store(redis, f"{tenant}-consortium", SHARED, []), SHARED)
    return ListEntries(f"{tenant}-{name}", store, tokenizer, consortium), store


def proposal(entries: ListEntries, schema: Schema, **changes: Any) -> Proposal:
    said: dict[str, Any] = {
        "kind": "black", "entity_type": "phone", "identifier": "+86 138 0013 8000", "reason": "伪造收入证明",
        "source": "investigation", "proposed_by": "Alice",
    }  # fmt: skip
    return entries.proposal(listable([schema]), **(said | changes))


async def refused(entries: ListEntries, entry_id: str, by: str) -> str:
    with pytest.raises(EntryRefusedError) as caught:
        await entries.approve(entry_id, by)
    return caught.value.status


async def test_another_person_approves(entries: ListEntries, store: Store, consumer: Schema) -> None:
    made = proposal(entries, consumer, expires_at_ms=round(time.time() * 1000) + 60_000)
    entry_id = await entries.propose(made)
    assert await store.position() == 0  # nothing counts yet
    for by in ("Alice", " alice ", "ＡＬＩＣＥ", "Al ice", "Ali\u200bce", "\ufeffAlice", "A\u00adlice", "Alice\u3164",
               "Alice\ufe0f", "Alice\U000e0041", "A\u034flice"):  # fmt: skip
        assert await refused(entries, entry_id, by) == "SAME_PERSON"
    assert await entries.approve(entry_id, "Bob") == 1
    assert await entries.approve(entry_id, "Bob") == 1 and await store.position() == 1
    assert await refused(entries, entry_id, "Carol") == "APPROVED"
    assert await refused(entries, "f" * 32, "Carol") == "NOT_FOUND"
    events = await store.tail()
    assert events.fields["kind"].tolist() == [LISTED]
    said = events.fields.view(LISTING)[0]
    assert (said["list"], said["remove"], said["shared"], said["subject"]) == (1, 0, 0, 0)
    assert int(said["token"]) == TOKENIZER.token("phone", "13800138000")
    assert int(said["expires_at_ms"]) == made.expires_at_ms and said["entry"].tobytes().hex() == entry_id
    ((shown,), after) = await entries.page(LISTS, False, 10, "")
    assert shown.proposal == made and after == ""
    assert (shown.approved_by, shown.approved_at_ms) == ("Bob", int(events.time_ms[0]))
    assert 0 < shown.proposed_at_ms <= shown.approved_at_ms


@pytest.mark.parametrize(
    ("proposed_by", "approved_by"),
    [("Li Wei", "LiWei"), ("José", "JOSE\u0301"), ("Straße", "STRASSE"), ("王 伟", "王伟"), ("ǰan", "J\u030cAN")],
)
async def test_a_name_is_one_person_however_it_is_written(
    entries: ListEntries, consumer: Schema, proposed_by: str, approved_by: str
) -> None:
    entry_id = await entries.propose(proposal(entries, consumer, proposed_by=proposed_by))
    assert await refused(entries, entry_id, approved_by) == "SAME_PERSON"


@pytest.mark.parametrize("field", ["proposed_by", "approved_by"])
@pytest.mark.parametrize("name", [" ", "\u200b", "\u3164\ufeff"])
async def test_nobody_is_no_person(entries: ListEntries, consumer: Schema, field: str, name: str) -> None:
    entry_id = await entries.propose(proposal(entries, consumer))
    with pytest.raises(InvalidFieldError) as caught:
        if field == "proposed_by":
            proposal(entries, consumer, proposed_by=name)
        await entries.approve(entry_id, name)
    assert caught.value.field == field


async def test_many_approve_at_once(entries: ListEntries, store: Store, consumer: Schema) -> None:
    """One of them did it, once."""
    entry_id = await entries.propose(proposal(entries, consumer))
    said = await asyncio.gather(*(entries.approve(entry_id, f"Bob {i % 4}") for i in range(24)), return_exceptions=True)
    assert said.count(1) == 6 and await store.position() == 1
    assert {e.status for e in said if isinstance(e, EntryRefusedError)} == {"APPROVED"}


async def test_what_has_expired(entries: ListEntries, store: Store, consumer: Schema) -> None:
    now_ms = round(time.time() * 1000)
    with pytest.raises(InvalidFieldError, match="expires_at_ms: must be in the future"):
        await entries.propose(proposal(entries, consumer, expires_at_ms=now_ms - 1))
    assert await entries.page(LISTS, False, 10, "") == ([], "")
    entry_id = await entries.propose(proposal(entries, consumer, expires_at_ms=now_ms + 300))
    await asyncio.sleep(0.4)
    assert await refused(entries, entry_id, "Bob") == "EXPIRED" and await store.position() == 0


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("list", {"kind": "blue"}),
        ("entity.type", {"entity_type": "horoscope"}),
        ("entity.id", {"identifier": ""}),
        ("entity.id", {"identifier": "x" * 257}),
        ("entity.id", {"identifier": "no digits"}),
        ("reason", {"reason": ""}),
        ("reason", {"reason": "x" * 1001}),
        ("reason", {"reason": "called from 138-0013-8000 at night"}),
        ("source", {"source": ""}),
        ("source", {"source": "13800138000"}),
        ("source", {"source": "x" * 129}),
        ("proposed_by", {"proposed_by": ""}),
        ("proposed_by", {"proposed_by": "x" * 129}),
        ("shared", {"shared": True}),
        ("expires_at_ms", {"expires_at_ms": -1}),
        ("expires_at_ms", {"expires_at_ms": 9_999_999_999_999, "remove": True}),
    ],
)
async def test_bad_proposals_name_the_field(
    entries: ListEntries, consumer: Schema, field: str, changes: dict[str, Any]
) -> None:
    with pytest.raises(InvalidFieldError) as caught:
        proposal(entries, consumer, **changes)
    assert caught.value.field == field


async def test_bad_questions_name_the_field(entries: ListEntries) -> None:
    for field, question in (
        ("page_size", (LISTS, False, 0, "")),
        ("page_size", (LISTS, False, PAGE_MAX + 1, "")),
        ("page_token", (LISTS, False, 1, "somewhere")),
        ("list", (("blue",), False, 1, "")),
    ):
        with pytest.raises(InvalidFieldError) as caught:
            await entries.page(*question)
        assert caught.value.field == field
    for field, asked in (("approved_by", ("f" * 32, "")), ("entry_id", ("", "Bob"))):
        with pytest.raises(InvalidFieldError) as caught:
            await entries.approve(*asked)
        assert caught.value.field == field


async def test_pages_are_complete_and_newest_first(redis: Redis, tenant: str, consumer: Schema) -> None:
    """By list, by state, and of both the tenant and the consortium; each entry on one page."""
    entries, _ = await member(redis, tenant, "one", b"the secret of one")
    made = []
    for i in range(23):
        said = proposal(entries, consumer, kind=LISTS[i % 3], identifier=f"139{i:08d}", shared=i % 4 == 0)
        made.append((await entries.propose(said), said))
    for entry_id, _ in made[::2]:
        await entries.approve(entry_id, "Bob")
    expected = {(entry_id, said.kind, n % 2 == 1) for n, (entry_id, said) in enumerate(made)}
    for kinds in (LISTS, ("grey",)):
        for waiting in (False, True):
            found, after = [], ""
            while True:
                page, after = await entries.page(kinds, waiting, 4, after)
                assert len(page) == 4 or not after
                found += page
                if not after:
                    break
            assert len(found) == len({e.entry_id for e in found})
            times = [e.proposed_at_ms for e in found]
            assert times == sorted(times, reverse=True)
            shown = {(e.entry_id, e.proposal.kind, not e.approved_by) for e in found}
            assert shown == {x for x in expected if x[1] in kinds and (x[2] or not waiting)}


async def test_a_consortium_keeps_one_order(redis: Redis, tenant: str, consumer: Schema) -> None:
    """What one lender proposes another may approve; every log has each entry once, in the same order."""
    one, one_log = await member(redis, tenant, "one", b"the secret of one")
    two, two_log = await member(redis, tenant, "two", b"the secret of two")
    again, _ = await member(redis, tenant, "two", b"the secret of two")  # another replica of the second
    ids = []
    for i in range(12):
        said = proposal(one, consumer, identifier=f"139{i % 3:08d}", remove=i % 2 == 1, shared=True)
        ids.append(await one.propose(said))
    assert await refused(one, ids[0], "alice") == "SAME_PERSON"
    assert await two.approve(ids[0], "Alice") == 1  # of another lender: another person
    await asyncio.gather(two.approve(ids[1], "Bob"), one.approve(ids[2], "Bob"), again.share(), one.share())
    await asyncio.gather(*((one, two)[i % 2].approve(ids[i], "Bob") for i in range(3, 12)), again.share(), two.share())
    await asyncio.gather(one.share(), two.share(), again.share())
    logs = [await store.tail() for store in (one_log, two_log)]
    orders = [[e.tobytes().hex() for e in events.fields.view(LISTING)["entry"]] for events in logs]
    assert orders[0] == orders[1] and sorted(orders[0]) == sorted(ids)
    tokens = [events.fields.view(LISTING)["token"] for events in logs]
    np.testing.assert_array_equal(tokens[0], tokens[1])
    assert int(tokens[0][orders[0].index(ids[0])]) == SHARED.token("phone", "13900000000")
    assert await two.approve(ids[5], "Bob") == 1 + orders[1].index(ids[5])  # asked again: the number in its own log
    fresh, fresh_log = await member(redis, tenant, "three", b"the secret of three")
    await fresh.share()
    assert [e.tobytes().hex() for e in (await fresh_log.tail()).fields.view(LISTING)["entry"]] == orders[0]
    shown = {e.entry_id: e for e in (await one.page(LISTS, False, 64, ""))[0]}
    assert shown[ids[0]].proposal.proposed_by == f"{tenant}-one/Alice"
    assert shown[ids[0]].approved_by == f"{tenant}-two/Alice"


async def test_another_secret_is_refused(redis: Redis, tenant: str, consumer: Schema) -> None:
    """Tokens under it would never be found; what is written by it would be lost."""
    one, _ = await member(redis, tenant, "one", b"the secret of one")
    await one.share()
    other = Tokenizer(b"a mistyped secret of a consortium")
    store = Store(redis, f"{tenant}-two", TOKENIZER, [])
    await store.open()
    consortium = Consortium(Store(redis, f"{tenant}-consortium", other, []), other)
    two = ListEntries(f"{tenant}-two", store, TOKENIZER, consortium)
    for _ in range(2):
        with pytest.raises(ConsortiumError, match="MIAOPI_CONSORTIUM_SECRET"):
            await two.share()


def test_what_has_no_identifier_is_not_listable(consumer: Schema) -> None:
    compounds = {e.name for e in consumer.entities.values() if e.of}
    assert listable([consumer]) == set(consumer.entities) - compounds and "contact" in listable([consumer])


class Stalling(Store):
    """A store whose next call waits until it is cancelled."""

    stalls = False

    async def call(
        self, name: str, keys: Sequence[str], arguments: Sequence[bytes | str], durable: bool = False
    ) -> Any:
        if self.stalls:
            self.stalls = False
            await asyncio.Event().wait()
        return await super().call(name, keys, arguments, durable)


async def shared_entry(redis: Redis, tenant: str, schema: Schema) -> None:
    """An entry that another lender of the consortium proposed and approved."""
    others, _ = await member(redis, tenant, "others", b"the secret of others")
    entry_id = await others.propose(proposal(others, schema, shared=True))
    await others.approve(entry_id, "Bob")


async def test_who_gave_up_while_entries_were_taken_loses_none(redis: Redis, tenant: str, consumer: Schema) -> None:
    """A caller's approval takes what the consortium has so far; the caller hangs up."""
    store = Stalling(redis, f"{tenant}-mine", TOKENIZER, [])
    await store.open()
    entries = ListEntries(
        f"{tenant}-mine", store, TOKENIZER, Consortium(Store(redis, f"{tenant}-consortium", SHARED, []), SHARED)
    )
    await entries.share()
    await shared_entry(redis, tenant, consumer)
    store.stalls = True
    taking = asyncio.create_task(entries.share())
    while store.stalls:
        await asyncio.sleep(0.001)
    taking.cancel()
    with suppress(asyncio.CancelledError):
        await taking
    await entries.share()
    assert (await store.tail()).fields["kind"].tolist() == [LISTED]


async def test_a_log_that_lost_what_it_took_takes_it_again(redis: Redis, tenant: str, consumer: Schema) -> None:
    """The consortium's log may be on another node, which lost nothing."""
    entries, store = await member(redis, tenant, "mine", b"a secret of mine")
    await shared_entry(redis, tenant, consumer)
    engine = Engine(f"{tenant}-mine", store, {}, Challengers(), entries)
    follower = asyncio.create_task(engine.follow())
    async with asyncio.timeout(60):  # the graph may be compiled first
        while not engine.ready:
            await asyncio.sleep(0.01)
        await redis.delete(*[key async for key in redis.scan_iter(f"{{{tenant}-mine}}:*", SCANNED)])
        while await redis.xlen(f"{{{tenant}-mine}}:log") != 1:
            await asyncio.sleep(0.01)
    follower.cancel()
    with suppress(asyncio.CancelledError):
        await follower

"""A log without the tokens of forgotten people gives every view that the log with them gave (R20, R23)."""

import asyncio
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis
from typer.testing import CliRunner

from bench.serving import SECRET
from features import archive, export
from features.__main__ import app
from features.application import Application
from features.events import APPLICATION, EVENT, FORGOTTEN, LISTED, Events, finish, pack_listing, unpack
from features.forget import Forgetting, forget
from features.graph import EntityGraph
from features.lists import Lists
from features.replay import History
from features.schema import SLOTS_MAX, Schema
from features.store import EpochError, Store, StoreError
from features.unlink import Replacements, Unlinked, _Scan, unlink
from server.products import Product
from tests.conftest import TOKENIZER, application, timeless
from tests.test_engine import TOKENIZER as SERVED
from tests.test_engine import engine_on, past, run, served
from tests.test_forgotten import people
from tests.test_graph import SLOTS, Item, links_for, own_of, reports
from tests.test_graph_forget import EVERY_SLOT, Forget, assert_same, log_of, nodes_of

__all__ = ["past", "people", "served"]
HALF = 150


def applications() -> st.SearchStrategy[Item]:
    """Applications that share less than those of test_graph: some tokens are of one person alone."""
    return st.builds(
        Item, st.sampled_from([0, 1, 30, 9000]), st.tuples(*[st.integers(0, 9)] * SLOTS), st.sampled_from([10.0, 250.5])
    )


def replacements_of(*pages: np.ndarray[Any, np.dtype[np.void]]) -> Replacements:
    scan = _Scan()
    for look in (scan.requests, scan.emptied, scan.kept):
        for page in pages:
            look(page)
    return scan.replacements(int(pages[-1]["sequence"][-1]))


def requests() -> st.SearchStrategy[Forget]:
    """As features.forget makes them: who is forgotten is so altogether, a consent empties slots of others alone."""
    who = st.integers(100, 103)
    purposes = st.builds(Forget, who, st.sampled_from([0b0010, 0b1100]), st.sampled_from([0, 7, 8]))
    return st.one_of(st.builds(Forget, who, st.just(EVERY_SLOT)), purposes)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.one_of(applications(), applications(), reports(), requests()), min_size=2, max_size=60),
    st.integers(1, 59), st.integers(1, 59),
)  # fmt: skip
def test_every_view_stays(items: list[Item | Forget], page: int, scanned: int) -> None:
    """Of applications and of retries, up to where the scan went and beyond it."""
    events = log_of(items)
    seen = events.fields[: min(scanned, len(events))]
    found = Events(replacements_of(seen[:page], seen[min(page, len(seen) - 1) :]).apply(events.fields), events.time_ms)
    one, other = EntityGraph(), EntityGraph()
    for i in range(len(events)):
        steps = [Events(log.fields[i : i + 1], log.time_ms[i : i + 1]) for log in (events, found)]
        own = own_of(steps[0])
        assert_same(other.observe(steps[1], own, links_for(own)), one.observe(steps[0], own, links_for(own)))
    own = own_of(events)
    assert_same(other.review(own, links_for(own)), one.review(own, links_for(own)))
    states = [sorted(map(repr, nodes_of(graph).values())) for graph in (other, one)]
    assert states[0] == states[1]
    np.testing.assert_array_equal(other._state.totals, one._state.totals)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.one_of(applications(), applications(), requests()), min_size=2, max_size=40))
def test_what_goes_and_what_stays(items: list[Item | Forget]) -> None:
    """A token goes where all of its applications by then are emptied of it; nothing else changes."""
    fields = log_of(items).fields
    made = replacements_of(fields)
    found = made.apply(fields)
    emptied, live = dict[int, int](), dict[int, int]()
    for i, event in enumerate(fields):
        tokens = event["tokens"].tolist()
        if event["kind"] == FORGOTTEN and tokens[1] & 1:
            emptied[tokens[0]] = i + 1
        if event["kind"] != APPLICATION:
            continue
        for slot, token in enumerate(tokens):
            asked = [
                j + 1 for j, r in enumerate(fields)
                if j > i and r["kind"] == FORGOTTEN and r["tokens"][0] == tokens[0]
                and int(r["tokens"][1]) >> slot & 1 and r["schema"] in (0, event["schema"])
            ]  # fmt: skip
            if token and asked:
                emptied[token] = max(asked[0], emptied.get(token, 0))
            elif token:
                live.setdefault(token, i + 1)
    until = {token: live.get(token, len(fields) + 1) for token in emptied}
    goes = {token for token, request in emptied.items() if request < until[token]}
    assert goes == {*made.tokens.tolist()}
    changed = found["tokens"] != fields["tokens"]
    for token in goes:
        where = (fields["tokens"] == token) & (fields["kind"] == APPLICATION)[:, None]
        early = where & (fields["sequence"] < until[token])[:, None]
        assert changed[early].all() and len({*found["tokens"][early].tolist()}) <= 1
        assert not changed[where & ~early].any()
    assert not changed[(fields["kind"] == APPLICATION)[:, None] & ~np.isin(fields["tokens"], sorted(goes))].any()
    assert not changed[:, 1:][fields["kind"] == FORGOTTEN].any()
    for name in ("version", "kind", "schema", "amount", "record", "subject", "sequence"):
        np.testing.assert_array_equal(found[name], fields[name])


def test_a_listed_token_stays() -> None:
    """Else who looks at the log again would not find that the list named it."""
    events = log_of([Item(1), Item(1, (1, 2, 3, 0), 10.0), Forget(101, (1 << SLOTS_MAX) - 1)])
    token = int(events.fields["tokens"][1, 1])
    listing = finish(pack_listing("0" * 32, "black", token, False, False, 0), 0, 1)
    fields = events.fields.copy()
    fields[0] = np.frombuffer(listing, dtype=EVENT)[0]
    assert fields["kind"][0] == LISTED
    made = replacements_of(fields)
    assert token not in made.tokens and len(made.tokens) == 2
    own, shared = np.array([2]), np.zeros((1, SLOTS_MAX), dtype=np.uint64)
    listed = Lists().observe(Events(made.apply(fields), events.time_ms), own, shared)
    assert listed.tolist() == Lists().observe(Events(fields, events.time_ms), own, shared).tolist() == [[1, 0, 0]]


async def test_servers_go_on_and_every_decision_can_be_recomputed(
    redis: Redis, tenant: str, served: dict[str, Product], past: History, people: list[str], tmp_path: Path,
    redis_url: str, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    events, consumer = timeless(past.events[: 2 * HALF]), served["consumer"].schema
    log = f"{{{tenant}}}:log"
    async with engine_on(redis, tenant, served, past) as (engine, _):
        await run(engine, events[:HALF], 5)
        for name in people[:9]:
            await engine.forget(SERVED, Forgetting(name, "Li"))
        await engine.forget(SERVED, Forgetting(people[9], "Li", "contacts"))
        await run(engine, events[HALF : HALF + 20], 5)  # it has read the requests
        await export.write(redis, tenant, tmp_path / "before")
        monkeypatch.setenv("REDIS_URL", redis_url)
        monkeypatch.setenv("MIAOPI_TOKEN_SECRETS", f'{{"{tenant}": "{SECRET}"}}')
        said = await asyncio.to_thread(CliRunner().invoke, app, ["unlink", "--tenant", tenant])
        logged: Any = await redis.xrange(log)
        assert said.exit_code == 0 and said.stdout.endswith(f"; {len(logged)} events\n"), said.output
        assert int(said.stdout.split()[0]) > 9 and not await redis.exists(f"{log}:new", f"{log}:old")
        held = unpack([fields[b"e"] for _, fields in logged], [0] * len(logged)).fields["tokens"]
        gone = [SERVED.token("applicant", name) for name in people[:9]]
        assert not np.isin(held[:HALF], np.array(gone, dtype=np.uint64)).any()
        assert np.isin(held, np.uint64(SERVED.token("applicant", people[9]))).any()
        await export.write(redis, tenant, tmp_path / "after")
        before, after = (archive.rows(tmp_path / name, consumer) for name in ("before", "after"))
        assert before.application_ids == after.application_ids
        for name in ("features", "entity_state", "neighbor_state", "neighbor_mask"):
            np.testing.assert_array_equal(getattr(after.snapshot, name), getattr(before.snapshot, name))
        assert engine.ready
        await run(engine, events[HALF + 20 :], 5)  # without reading the log again
        await export.write(redis, tenant, tmp_path / "later")
        archive.rows(tmp_path / "later", consumer)
        assert engine.ready
    async with engine_on(redis, tenant, served, past) as (fresh, _):
        assert await fresh.decision(next(e for e in events if isinstance(e, Application)).application_id)


async def test_who_has_read_a_part_of_what_changed_reads_it_again(
    redis: Redis, tenant: str, consumer: Schema, store: Store
) -> None:
    """Else a server that had the application and not yet the request would never forget it."""
    behind, ahead = Store(redis, tenant, TOKENIZER, [consumer]), Store(redis, tenant, TOKENIZER, [consumer])
    for reader in (behind, ahead):
        await reader.open()
    await store.begin([application(consumer, "a"), application(consumer, "b")])
    assert len(await behind.tail()) == 2
    await forget(store, TOKENIZER, Forgetting("applicant of a", "Li"))
    assert len(await ahead.tail()) == 3
    assert await unlink(redis, tenant, store) == Unlinked(1, 1, 3)  # the device is another's too
    assert await unlink(redis, tenant, store) == Unlinked(0, 0, 3)
    with pytest.raises(EpochError):
        await behind.tail()
    with pytest.raises(EpochError):
        await behind.begin([application(consumer, "c")])
    assert len(await ahead.tail()) == 1 and len(await ahead.tail()) == 0  # what begin appended above
    assert await behind.open() == 4 and len(await behind.tail()) == 4


async def test_nothing_in_the_store_says_who_became_which_number(
    redis: Redis, tenant: str, consumer: Schema, store: Store
) -> None:
    """Not the records of requests, not the times since when consents count no more."""
    for name in ("a", "b", "c"):
        await store.begin([application(consumer, name)])
    token = {name: f"{TOKENIZER.token('applicant', f'applicant of {name}'):016x}" for name in ("a", "b", "c")}
    await forget(store, TOKENIZER, Forgetting("applicant of a", "Li", "contacts"))
    for name in ("a", "b"):
        await forget(store, TOKENIZER, Forgetting(f"applicant of {name}", "Li"))
    await asyncio.sleep(0.01)
    await store.begin([application(consumer, "a again", tokens=application(consumer, "a").tokens)])
    await forget(store, TOKENIZER, Forgetting("applicant of c", "Li", "contacts"))  # who stays, and stays the same
    withdrawn: Any = await redis.hgetall(f"{{{tenant}}}:withdrawn")
    records: Any = await redis.xrange(f"{{{tenant}}}:forgotten")
    await unlink(redis, tenant, store)
    found: Any = await redis.hgetall(f"{{{tenant}}}:withdrawn")
    kept = f"{token['c']}:contacts".encode()
    assert found[kept] == withdrawn[kept] and f"{token['a']}:contacts".encode() not in found
    renamed: Any = await redis.xrange(f"{{{tenant}}}:forgotten")
    assert [(at, said[b"sequence"], said[b"profiles"]) for at, said in renamed] == [
        (at, said[b"sequence"], said[b"profiles"]) for at, said in records
    ]
    logged: Any = await redis.xrange(f"{{{tenant}}}:log")
    fields = unpack([entry[b"e"] for _, entry in logged], [0] * len(logged)).fields
    times = [int(at.split(b"-")[0]) for at, _ in logged]
    since = {name: int(found[f"{token[name]}:".encode()]) for name in ("a", "b")}
    assert since == {"a": times[6] - 1, "b": times[7]}  # before they came back; the last event's
    for (_, said), (_, was) in zip(renamed, records, strict=True):
        (number,) = json.loads(said[b"request"]).pop("applicants")
        assert number == f"{int(fields['tokens'][int(said[b'sequence']) - 1, 0]):016x}"  # as the log has it
        assert (number in token.values()) == (number == token["c"])
        assert json.loads(said[b"request"])["requested_by"] == json.loads(was[b"request"])["requested_by"]
    in_log = {f"{int(t):016x}" for t in fields["tokens"][fields["kind"] == APPLICATION][:, 0]}
    assert token["a"] in in_log and token["b"] not in in_log  # who came back is who they are


class Meanwhile(Store):
    """A store where the same applicant asks again right before the copy takes the log's place."""

    async def call(self, verb: str, *rest: Any, **named: Any) -> Any:
        if verb == "replace_log":
            await self.open()
            await asyncio.sleep(0.01)
            await forget(self, TOKENIZER, Forgetting("applicant of a", "Li", "contacts"))
            await forget(self, TOKENIZER, Forgetting("applicant of a", "Li"))
        return await super().call(verb, *rest, **named)


async def test_who_asks_again_meanwhile_is_withdrawn_since_then(
    redis: Redis, tenant: str, consumer: Schema, store: Store
) -> None:
    await store.begin([application(consumer, "a")])
    for purpose in ("contacts", None):
        await forget(store, TOKENIZER, Forgetting("applicant of a", "Li", purpose))
    assert (await unlink(redis, tenant, Meanwhile(redis, tenant, TOKENIZER, [consumer]))).events == 5
    logged: Any = await redis.xrange(f"{{{tenant}}}:log")
    times = [int(at.split(b"-")[0]) for at, _ in logged]
    tokens = unpack([entry[b"e"] for _, entry in logged], times).fields["tokens"][:, 0]
    who = TOKENIZER.token("applicant", "applicant of a")
    assert (tokens == np.uint64(who)).tolist() == [False] * 3 + [True] * 2
    withdrawn: Any = await redis.hgetall(f"{{{tenant}}}:withdrawn")
    assert int(withdrawn[f"{who:016x}:contacts".encode()]) == times[3]
    assert int(withdrawn[f"{who:016x}:".encode()]) == times[4]


async def test_a_log_that_changes_meanwhile_is_not_replaced(
    redis: Redis, tenant: str, consumer: Schema, store: Store
) -> None:
    """Another copy took its place: nothing of it is lost."""
    await store.begin([application(consumer, "a")])
    await redis.hset(f"{{{tenant}}}:meta", "rewritten", 1)
    await store.begin([application(consumer, "b")])

    class Slow(Store):
        async def call(self, verb: str, *rest: Any, **named: Any) -> Any:
            await redis.hset(f"{{{tenant}}}:meta", "rewritten", 2)
            return await super().call(verb, *rest, **named)

    before = await redis.xrange(f"{{{tenant}}}:log")
    with pytest.raises(StoreError, match="changed meanwhile"):
        await unlink(redis, tenant, Slow(redis, tenant, TOKENIZER, []))
    assert await redis.xrange(f"{{{tenant}}}:log") == before
    assert not await redis.exists(f"{{{tenant}}}:log:new", f"{{{tenant}}}:log:old")


def test_without_a_log_or_a_secret_it_says_so(redis_url: str, tenant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", redis_url)
    for known, problem in (("{}", tenant), (f'{{"{tenant}": "{SECRET}"}}', "has no log")):
        monkeypatch.setenv("MIAOPI_TOKEN_SECRETS", known)
        said = CliRunner().invoke(app, ["unlink", "--tenant", tenant])
        assert said.exit_code == 2 and problem in said.stderr

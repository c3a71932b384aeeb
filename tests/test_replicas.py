"""Two server processes on one store: nothing slips between them, and a crash loses nothing (R11, R24)."""

import signal
import time
from concurrent.futures import ThreadPoolExecutor
from typing import cast

import redis as sync_redis

from bench.serving import SECRET, client, server_process
from features import evidence
from features import schema as schemas
from features.tokens import Tokenizer
from proto.miaopi.v1 import decision_pb2 as pb
from tests.conftest import ROOT
from tests.requests import loan_request

CONSUMER = schemas.load(ROOT / "features/schemas/consumer.yaml")

# A server that dies before it stores a decision: its commit never returns.
STOPS_BEFORE_COMMIT = """
import asyncio, sys
from features.store import Store
async def never(self, *proposed):
    await asyncio.Event().wait()
Store.commit = never
from server.__main__ import main
sys.exit(main())
"""


def test_a_ring_at_two_servers_at_once(redis_url: str) -> None:
    """Each member sees exactly those before it in the log, whichever server took them."""
    with (
        server_process(redis_url, tenant="ring") as (one, _),
        server_process(redis_url, tenant="ring") as (two, _),
        client(one) as first,
        client(two) as second,
        ThreadPoolExecutor(16) as pool,
    ):
        asked = [loan_request(f"member {i}", tenant="ring", device="one phone") for i in range(40)]
        replies = list(pool.map(lambda i: (first, second)[i % 2].Decide(asked[i]), range(len(asked))))
    assert sorted(r.log_position.sequence for r in replies) == list(range(1, 41))
    with sync_redis.Redis.from_url(redis_url) as redis:
        for reply in replies:
            assert reply.log_position.as_of == reply.log_position.sequence - 1
            assert device_count(redis, "ring", reply) == reply.log_position.sequence - 1


def test_kill_between_begin_and_commit(redis_url: str) -> None:
    request = loan_request("killed", tenant="crash", device="one phone")
    with sync_redis.Redis.from_url(redis_url) as redis:
        with (
            server_process(redis_url, tenant="crash", program=("-c", STOPS_BEFORE_COMMIT)) as (address, process),
            client(address) as stub,
        ):
            lost = stub.Decide.future(request)
            deadline = time.monotonic() + 20
            while redis.xlen("{crash}:log") == 0:
                assert time.monotonic() < deadline
                time.sleep(0.01)
            process.send_signal(signal.SIGKILL)
            process.wait(10)
            assert lost.exception() is not None
        with server_process(redis_url, tenant="crash") as (address, _), client(address) as stub:
            for i in range(20):
                stub.Decide(loan_request(f"later {i}", tenant="crash", device="one phone"))
            reply = stub.Decide(request)
            again = stub.Decide(request)
        assert again.SerializeToString() == reply.SerializeToString()
        assert redis.xlen("{crash}:log") == 21 and redis.xlen("{crash}:decisions") == 21
        assert (reply.log_position.sequence, reply.log_position.as_of) == (1, 21)
        assert device_count(redis, "crash", reply) == 20  # the 20 others, not itself


def device_count(redis: sync_redis.Redis, tenant: str, reply: pb.DecideResponse) -> int:
    """How many applications on the device the decision's feature row counted."""
    key = Tokenizer(SECRET.encode()).key(reply.application_id)
    _, features = evidence.unpack(cast(bytes, redis.hget(f"{{{tenant}}}:a:{key}", "e")))
    return int(features[CONSUMER.column["device_count_24h"]])

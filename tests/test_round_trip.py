"""Commands on a kept connection: it is used again, and never with replies left unread."""

import asyncio
import random
import ssl
from pathlib import Path

import pytest
import trustme
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from features.round_trip import KEPT, leave, round_trip

ME = ("CLIENT", "ID")


async def test_the_same_connection_again(redis: Redis) -> None:
    assert [await round_trip(redis, [ME]) for _ in range(3)] == 3 * [await round_trip(redis, [ME])]
    assert await round_trip(redis, [("ECHO", "一"), ("ECHO", b"\r\n"), ("ECHO", 3)]) == ["一".encode(), b"\r\n", b"3"]


async def test_at_once_each_has_its_own_and_few_are_kept(redis: Redis) -> None:
    some = await asyncio.gather(*(round_trip(redis, [ME, ("ECHO", n)]) for n in range(3 * KEPT)))
    assert [int(echoed) for _, echoed in some] == list(range(3 * KEPT)) and len({me for me, _ in some}) > 1
    again = {(await round_trip(redis, [ME]))[0] for _ in range(3 * KEPT)}
    assert len(again) == 1


async def test_after_an_error_or_a_caller_who_left_no_reply_is_anothers(redis: Redis) -> None:
    (before,) = await round_trip(redis, [ME])
    with pytest.raises(ResponseError):
        await round_trip(redis, [("NO", "SUCH"), ("ECHO", "left unread")])
    (after,) = await round_trip(redis, [ME])
    assert after != before
    waits = asyncio.create_task(round_trip(redis, [("BLPOP", "nothing", 5)]))
    await asyncio.sleep(0.05)
    waits.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waits
    assert await round_trip(redis, [("ECHO", "mine")]) == [b"mine"]


async def test_a_connection_that_the_store_closed_is_replaced(redis: Redis, redis_url: str) -> None:
    (mine,) = await round_trip(redis, [ME])
    async with Redis.from_url(redis_url) as other:
        await other.client_kill_filter(_id=mine)
    await asyncio.sleep(0.05)
    assert (await round_trip(redis, [ME]))[0] != mine


async def test_left_ones_are_closed(redis: Redis) -> None:
    (mine,) = await round_trip(redis, [ME])
    await leave(redis)
    assert (await round_trip(redis, [ME]))[0] != mine


async def test_a_store_that_is_silent_or_gone_is_said(redis_url: str) -> None:
    async with Redis.from_url(redis_url, socket_timeout=0.1) as hasty:
        with pytest.raises(RedisTimeoutError):
            await round_trip(hasty, [("BLPOP", "nothing", 5)])
        assert await round_trip(hasty, [("ECHO", "mine")]) == [b"mine"]
    async with Redis(unix_socket_path="/nowhere.sock", retry=Retry(NoBackoff(), 0)) as nowhere:
        with pytest.raises(RedisError):
            await round_trip(nowhere, [ME])


async def test_replies_come_in_order_and_whole(redis: Redis, tenant: str) -> None:
    large = random.Random(1).randbytes(3_000_000)
    commands = [("SET", tenant, large), ("GET", tenant), ("MGET", tenant, "none"), ("STRLEN", tenant)]
    assert await round_trip(redis, commands) == [b"OK", large, [large, None], len(large)]
    assert await round_trip(redis, [("DEL", tenant)]) == [1]


async def test_nobody_gets_the_replies_of_one_who_left(redis: Redis) -> None:
    chance = random.Random(2)

    async def echo(number: int) -> None:
        long, short = f"{number}-" * 1000, str(number)
        assert await round_trip(redis, [("ECHO", long), ("ECHO", short)]) == [long.encode(), short.encode()]

    for _ in range(20):
        tasks = [asyncio.create_task(echo(number)) for number in range(12)]
        for _ in range(chance.randrange(6)):
            await asyncio.sleep(0)
        for task in chance.sample(tasks, 6):
            task.cancel()
        for done in await asyncio.gather(*tasks, return_exceptions=True):
            assert done is None or isinstance(done, asyncio.CancelledError)


async def test_what_is_more_than_kept_serves_others(redis_url: str) -> None:
    pool = BlockingConnectionPool.from_url(redis_url, max_connections=KEPT + 2, timeout=2)
    async with Redis.from_pool(pool) as redis:
        some = await asyncio.gather(*(round_trip(redis, [ME, ("CLIENT", "SETNAME", "known")]) for _ in range(50)))
        assert len({me for me, _ in some}) == KEPT + 2
        names = await asyncio.gather(*(redis.client_getname() for _ in range(20)))
        assert names == ["known"] * 20


async def test_what_was_not_asked_for_answers_nothing(redis: Redis, redis_url: str, tenant: str) -> None:
    """The store may push a message, between replies or before what is asked next."""
    _, own, _ = await round_trip(redis, [("CLIENT", "TRACKING", "ON"), ME, ("GET", tenant)])
    async with Redis.from_url(redis_url) as other:
        await other.set(tenant, "changed")
    await asyncio.sleep(0.01)
    another, value = await round_trip(redis, [ME, ("GET", tenant)])
    assert another != own and value == b"changed"
    tracked = [("CLIENT", "TRACKING", "ON"), ("GET", tenant), ("SET", tenant, "1"), ("GET", tenant), ("GET", tenant)]
    assert await round_trip(redis, tracked) == [b"OK", b"changed", b"OK", b"1", b"1"]
    assert (await round_trip(redis, [ME]))[0] != another


async def test_over_tls(redis_url: str, tmp_path: Path) -> None:
    authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while piece := await reader.read(1 << 16):
            writer.write(piece)
        writer.close()

    async def between(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inward, outward = await asyncio.open_unix_connection(redis_url.removeprefix("unix://"))
        await asyncio.gather(carry(reader, outward), carry(inward, writer), return_exceptions=True)

    async with await asyncio.start_server(between, "localhost", 0, ssl=context) as server:
        port = server.sockets[0].getsockname()[1]
        async with Redis.from_url(f"rediss://localhost:{port}", ssl_ca_certs=str(tmp_path / "ca.pem")) as redis:
            said = b"s" * 200_000
            for _ in range(3):
                assert await round_trip(redis, [("ECHO", said), ("ECHO", "b")]) == [said, b"b"]
            await leave(redis)
            assert await redis.ping()

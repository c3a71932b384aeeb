"""Commands on a kept connection: it is used again, and never with replies left unread."""

import asyncio

import pytest
from redis.asyncio import Redis
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

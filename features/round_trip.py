"""Commands sent together and answered together: packed in C, on a connection kept for the next.

What redis-py does around each command (its own packing, a pool with a lock and a check, a task for each write) costs as
much as all else of a batch; what it does to connect, it does here too.
"""

import asyncio
import math
from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

from hiredis import pack_command
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

Command = tuple[str | bytes | int, ...]
KEPT = 4  # connections of a pool, which others wait for: no more than batches, a reader and a writer want at once
_kept: WeakKeyDictionary[Any, list[Any]] = WeakKeyDictionary()  # by pool those that nobody uses


async def round_trip(redis: Redis, commands: Sequence[Command]) -> list[Any]:
    """The replies as the server gives them, on one connection. Raises the first error among them, or RedisError."""
    packed = b"".join([pack_command(c) for c in commands])  # type: ignore[arg-type]
    pool, kept = redis.connection_pool, _kept.setdefault(redis.connection_pool, [])
    connection = await _connected(pool, kept)
    try:
        async with asyncio.timeout(connection.socket_timeout):  # one for all replies, where redis-py has one for each
            connection._writer.write(packed)
            await connection._writer.drain()
            replies = [await connection.read_response(timeout=math.inf) for _ in commands]
    except BaseException as error:
        await connection.disconnect(nowait=True)  # replies may be left unread
        await pool.release(connection)
        if isinstance(error, TimeoutError):
            raise RedisTimeoutError("the store did not answer in time") from None
        if isinstance(error, OSError):
            raise RedisConnectionError(f"the store is gone: {error}") from error
        raise
    if len(kept) < KEPT:
        kept.append(connection)
    else:
        await pool.release(connection)
    return replies


async def leave(redis: Redis) -> None:
    """Close what no call is using: after a failover it may lead to what was the store and is a replica now."""
    pool = redis.connection_pool
    for connection in _kept.pop(pool, []):
        await pool.release(connection)
    await pool.disconnect(inuse_connections=False)


async def _connected(pool: Any, kept: list[Any]) -> Any:
    """A connection that its other end has not closed, as far as that is known."""
    while kept:
        connection = kept.pop()
        if connection.is_connected and not connection._reader.at_eof():
            return connection
        await connection.disconnect(nowait=True)
        await pool.release(connection)
    return await pool.get_connection()

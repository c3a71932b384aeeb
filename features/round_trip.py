"""Commands sent together and answered together, packed in C: redis-py's own packing costs as much as all else of a
batch.
"""

import asyncio
import math
from collections.abc import Sequence
from typing import Any

from hiredis import pack_command
from redis.asyncio import Redis
from redis.exceptions import TimeoutError as RedisTimeoutError

Command = tuple[str | bytes | int, ...]


async def round_trip(redis: Redis, commands: Sequence[Command]) -> list[Any]:
    """The replies as the server gives them, on one connection. Raises the first error among them, or RedisError."""
    packed = b"".join([pack_command(c) for c in commands])  # type: ignore[arg-type]
    pool = redis.connection_pool
    connection = await pool.get_connection()  # type: ignore[no-untyped-call]
    try:
        async with asyncio.timeout(connection.socket_timeout):  # one for all replies, where redis-py has one for each
            await connection.send_packed_command(packed)
            return [await connection.read_response(timeout=math.inf) for _ in commands]
    except BaseException as error:
        await connection.disconnect(nowait=True)  # replies may be left unread
        if isinstance(error, TimeoutError):
            raise RedisTimeoutError("the store did not answer in time") from None
        raise
    finally:
        await pool.release(connection)

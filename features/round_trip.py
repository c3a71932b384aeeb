"""Commands sent together and answered together, packed in C: redis-py's own packing costs as much as all else of a
batch.
"""

from collections.abc import Sequence
from typing import Any

from hiredis import pack_command
from redis.asyncio import Redis

Command = tuple[str | bytes | int, ...]


async def round_trip(redis: Redis, commands: Sequence[Command]) -> list[Any]:
    """The replies as the server gives them, on one connection. Raises the first error among them, or RedisError."""
    packed = b"".join([pack_command(c) for c in commands])  # type: ignore[arg-type]
    pool = redis.connection_pool
    connection = await pool.get_connection()  # type: ignore[no-untyped-call]
    try:
        await connection.send_packed_command(packed)
        return [await connection.read_response() for _ in commands]
    except BaseException:
        await connection.disconnect(nowait=True)  # replies may be left unread
        raise
    finally:
        await pool.release(connection)

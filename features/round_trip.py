"""Commands sent together and answered together: packed and read in C, on a connection kept for the next.

What redis-py does around each command (its own packing, a pool with a lock and a check, a stream that wakes a task for
each reply) costs more than all else of a batch; what it does to connect, it does here too.
"""

import asyncio
from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

from hiredis import PushNotification, Reader, pack_command
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import InvalidResponse
from redis.exceptions import TimeoutError as RedisTimeoutError

Command = tuple[str | bytes | int, ...]
LATE = "the store did not answer in time"
KEPT = 4  # connections of a pool, which others wait for: no more than batches, a reader and a writer want at once
_kept: WeakKeyDictionary[Any, list["_Line"]] = WeakKeyDictionary()  # by pool those that nobody uses
_PARTIAL = object()


async def round_trip(redis: Redis, commands: Sequence[Command]) -> list[Any]:
    """The replies as the server gives them, on one connection. Raises the first error among them, or RedisError."""
    packed = b"".join([pack_command(c) for c in commands])  # type: ignore[arg-type]
    pool, kept = redis.connection_pool, _kept.setdefault(redis.connection_pool, [])
    line = await _connected(pool, kept)
    try:
        replies = await line.ask(packed, len(commands))
        for reply in replies:
            if isinstance(reply, Exception):
                raise reply
    except BaseException:
        await line.close(pool)  # replies may be left unread
        raise
    if not line.usable:
        await line.close(pool)
    elif len(kept) < KEPT:
        kept.append(line)
    else:
        await line.give_back(pool)
    return replies


async def leave(redis: Redis) -> None:
    """Close what no call is using: after a failover it may lead to what was the store and is a replica now."""
    pool = redis.connection_pool
    for line in _kept.pop(pool, []):
        await line.close(pool)
    await pool.disconnect(inuse_connections=False)


async def _connected(pool: Any, kept: list["_Line"]) -> "_Line":
    """A connection that its other end has not closed, as far as that is known."""
    while kept:
        line = kept.pop()
        if line.usable:
            return line
        await line.close(pool)
    return _Line(await pool.get_connection())


class _Line(asyncio.Protocol):
    """A connection of redis-py, connected: until it is given back, replies come here and not to redis-py."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self._transport = connection._writer.transport
        self._stream = self._transport.get_protocol()
        self._transport.set_protocol(self)
        errors = connection._parser.parse_error
        self._reader = Reader(protocolError=InvalidResponse, replyError=errors, notEnoughData=_PARTIAL)
        self._fit = True  # nothing came that was not asked for
        self._answer: asyncio.Future[list[Any]] | None = None
        self._replies: list[Any] = []
        self._count = 0

    @property
    def usable(self) -> bool:
        """Whether what is asked next is answered next."""
        return self._fit and self.connection.is_connected

    async def ask(self, packed: bytes, count: int) -> list[Any]:
        """As many replies, in the time that the connection has for one. Raises RedisError; it is not usable then."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[list[Any]] = loop.create_future()
        self._answer = answer
        self._replies, self._count = [], count
        limit_s = self.connection.socket_timeout
        late = None if limit_s is None else loop.call_later(limit_s, self._be_late)
        self._transport.write(packed)
        try:
            return await answer
        finally:
            self._answer = None
            if late is not None:
                late.cancel()

    async def give_back(self, pool: Any) -> None:
        """To its pool, as it came from there."""
        self._transport.set_protocol(self._stream)
        await pool.release(self.connection)

    async def close(self, pool: Any) -> None:
        """Its pool makes it anew where it is needed."""
        await self.connection.disconnect(nowait=True)  # at once: who takes it from the pool finds it closed
        await pool.release(self.connection)

    def data_received(self, data: bytes) -> None:
        """Take what is complete."""
        if self._answer is None:
            self._fit = False
            return
        self._reader.feed(data)
        try:
            while (reply := self._reader.gets()) is not _PARTIAL:
                if isinstance(reply, PushNotification):  # of a store that is about to move
                    self._fit = False
                else:
                    self._replies.append(reply)
        except InvalidResponse as error:
            self._fail(error)
        if len(self._replies) >= self._count and not self._answer.done():
            self._fit = self._fit and len(self._replies) == self._count and not self._reader.has_data()
            self._answer.set_result(self._replies)

    def eof_received(self) -> bool:
        """Close this end too."""
        return False

    def connection_lost(self, error: Exception | None) -> None:
        """Who waits for replies hears it, and redis-py, which may wait for the end."""
        self._fit = False
        self._fail(RedisConnectionError(f"the store is gone: {error or 'it closed the connection'}"))
        self._stream.connection_lost(error)

    def _be_late(self) -> None:
        self._fail(RedisTimeoutError(LATE))

    def _fail(self, error: Exception) -> None:
        self._fit = False
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)

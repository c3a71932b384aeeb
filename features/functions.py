"""Calls the store's verbs (functions.lua), and waits for the copies that a write must have before its reply (R24)."""

import hashlib
from collections.abc import Awaitable, Sequence
from pathlib import Path
from typing import Any, cast

from redis.asyncio import Redis
from redis.exceptions import NoPermissionError, ReadOnlyError, ResponseError

from features.durability import Durability, StoreError, redis_errors
from features.round_trip import Command, leave, round_trip

_CODE = (Path(__file__).parent / "functions.lua").read_text(encoding="utf-8")
_VERSION = hashlib.blake2b(_CODE.encode(), digest_size=4).hexdigest()


def named(verb: str) -> str:
    """The function of a verb, as this version of the code has it."""
    return f"{verb}_{_VERSION}"


class Functions:
    """The verbs over one tenant's keys. marker: a key of the tenant, written before copies are waited for."""

    def __init__(self, redis: Redis, marker: str, durability: Durability) -> None:
        self._redis, self._marker, self._durability = redis, marker, durability

    async def prepare(self) -> None:
        """Connect anew and load the functions where the store lacks them.

        Raises StoreError, also of a store that may drop keys: it would lend what was lent, and decide what was decided.
        """
        with redis_errors():
            await leave(self._redis)
            await self._check_kept()
            if not await self._redis.function_list(library=f"miaopi_{_VERSION}"):
                await self._load()

    async def call(
        self, verb: str, keys: Sequence[str], arguments: Sequence[bytes | str], durable: bool = False
    ) -> Any:
        """The reply of a verb; a `durable` one when as many as asked for have confirmed it. Raises StoreError."""
        command = ("FCALL", named(verb), len(keys), *keys, *arguments)
        with redis_errors():
            try:
                return await self._run(command, durable)
            except ReadOnlyError:
                await leave(self._redis)
                raise
            except ResponseError as error:
                if "unction not found" not in str(error):
                    raise
                await self._load()  # a store that lost its functions ran nothing of the call
                return await self._run(command, durable)

    async def confirm(self) -> None:
        """Return when as many as asked for have all that was written so far. Raises NotDurableError, StoreError."""
        if self._durability.waits:
            with redis_errors():
                await self._run(("PING",), True)

    async def _run(self, command: Command, durable: bool) -> Any:
        waits = self._durability.waits if durable else ()
        if not waits:
            return (await round_trip(self._redis, [command]))[0]
        # on one connection: WAIT is for what its own wrote, and waits not for one that wrote nothing, as where what is
        # asked for stands there already
        reply, _, *confirmed = await round_trip(self._redis, [command, ("SET", self._marker, ""), *waits])
        self._durability.check(confirmed)
        return reply

    async def _check_kept(self) -> None:
        try:
            memory = await self._redis.info("memory")
        except NoPermissionError:  # of a store run by others, who may keep INFO to themselves
            return
        policy = str(memory.get("maxmemory_policy", ""))
        if memory.get("maxmemory") and policy.startswith("allkeys"):
            raise StoreError(f"the store drops keys when it is full: maxmemory-policy {policy}, noeviction is needed")

    async def _load(self) -> None:
        try:
            await cast(Awaitable[Any], self._redis.function_load(_CODE.replace("VERSION", _VERSION)))
        except ResponseError as error:
            if "already exists" not in str(error):  # another server was first
                raise

"""The engine in a peer's process: the same steps on the same bytes, whatever server carries them.

Settings come from the environment, as the service's do.
"""

from contextlib import AsyncExitStack

from bench.inside import NoTransport, engines
from server.service import Service
from server.settings import Settings

CALL = NoTransport()


class Steps:
    """`open` first, in the event loop that decides; a decision is then a call with bytes."""

    async def open(self) -> None:
        """Load bundles and policies, read the log."""
        self._stack = AsyncExitStack()
        tenants, products = await self._stack.enter_async_context(engines(Settings()))
        self._decide = Service(tenants, products, replaying=False).unary()["Decide"]

    async def decide(self, body: bytes) -> bytes:
        """DecideRequest to DecideResponse, serialised."""
        return await self._decide(body, CALL)

    async def close(self) -> None:
        """When the server stops."""
        await self._stack.aclose()

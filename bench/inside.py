"""The engine of the service in this process, without a transport: what a benchmark, or a peer, calls with bytes."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from redis.asyncio import BlockingConnectionPool, Redis

from server import products, reload
from server.__main__ import REDIS_CONNECTIONS, REDIS_TIMEOUT_SECONDS, make_tenant
from server.challengers import Challengers
from server.products import Product
from server.service import Tenant
from server.settings import Settings


class NoTransport:
    """A call without a deadline, whose trailers nobody reads."""

    def time_remaining(self) -> float | None:
        return None

    def set_trailing_metadata(self, trailing_metadata: Sequence[tuple[str, str | bytes]]) -> None:
        pass


@asynccontextmanager
async def engines(settings: Settings) -> AsyncIterator[tuple[dict[str, Tenant], dict[str, Product]]]:
    """Tenants and products as `python -m server` has them, once every engine has read its log."""
    loaded = products.load(settings)
    for product in loaded.values():
        reload.rehearse(product)
    pool = BlockingConnectionPool.from_url(
        settings.redis_url, max_connections=REDIS_CONNECTIONS, timeout=REDIS_TIMEOUT_SECONDS,
        socket_timeout=REDIS_TIMEOUT_SECONDS,
    )  # fmt: skip
    redis, challengers = Redis.from_pool(pool), Challengers()
    tenants = {
        name: make_tenant(name, secret, redis, loaded, challengers, settings, None)
        for name, secret in settings.token_secrets.items()
    }
    following = [asyncio.create_task(tenant.engine.follow()) for tenant in tenants.values()]
    try:
        while not all(tenant.engine.ready for tenant in tenants.values()):
            await asyncio.sleep(0.01)
        yield tenants, loaded
    finally:
        for task in following:
            task.cancel()
        await asyncio.gather(*following, return_exceptions=True)
        await redis.aclose()

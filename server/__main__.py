"""`python -m server`: serve until SIGTERM or SIGINT, then answer what was taken and stop."""

import asyncio
import gc
import secrets
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack

import grpc
import structlog
import uvloop
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from pydantic import ValidationError
from redis.asyncio import BlockingConnectionPool, Redis

from features.durability import Durability
from features.embedded import embedded_store
from features.list_entries import CONSORTIUM, Consortium, ListEntries
from features.reviews import ReviewQueue
from features.schema import SchemaError
from features.store import Store
from features.tokens import Tokenizer
from models.bundle import BundleError
from models.device import Device, DeviceError
from policy.tables import PolicyError
from server import device, processes, products, reload, telemetry
from server.batcher import Batcher
from server.challengers import Challengers
from server.engine import Engine
from server.native.start import NotBuiltError
from server.native.start import start as start_native
from server.placement import Placement
from server.products import Product
from server.reviews import Reviews
from server.service import SERVICE, Service, Tenant
from server.settings import Settings

MESSAGE_MAX_BYTES = 4 << 20
HEALTH_SECONDS = 0.2
SWITCH_SECONDS = 0.0005  # how long the event loop waits for a thread that loads a bundle or scores a challenger
REDIS_TIMEOUT_SECONDS = 2.0
REDIS_CONNECTIONS = 32  # more callers than that wait for one

log = structlog.get_logger()


def _tenants(
    redis: Redis, loaded: dict[str, Product], challengers: Challengers, settings: Settings, shared: Tokenizer | None
) -> dict[str, Tenant]:
    """Every lender that is served. shared: makes the consortium's tokens."""
    secret_of = settings.token_secrets or {"demo": secrets.token_hex(16)}  # an embedded store dies with its secret
    return {
        name: make_tenant(name, secret, redis, loaded, challengers, settings, shared)
        for name, secret in secret_of.items()
    }


def make_tenant(
    name: str, secret: str, redis: Redis, loaded: dict[str, Product], challengers: Challengers, settings: Settings,
    shared: Tokenizer | None,
) -> Tenant:  # fmt: skip
    """All that one lender has in this process."""
    tokenizer = Tokenizer(secret.encode())
    schemas = list({p.schema.name: p.schema for p in loaded.values()}.values())
    durability = Durability(settings.wait_replicas, settings.wait_aof, settings.wait_ms)
    kept_days = 0 if settings.replay else settings.profile_days  # history's profiles would be gone before it is fed
    store = Store(redis, name, tokenizer, schemas, durability, kept_days)
    consortium = None if shared is None else Consortium(Store(redis, CONSORTIUM, shared, [], durability), shared)
    entries = ListEntries(name, store, tokenizer, consortium)
    placement = Placement(_device(loaded), settings.device_batch_min)
    engine = Engine(name, store, loaded, challengers, entries, settings.snapshots, placement)
    batcher = Batcher(engine.decide, settings.batch_max, settings.queue_max, settings.deadline_min_ms)
    reviews = Reviews(ReviewQueue(redis, name, store), tokenizer, loaded, engine)
    return Tenant(engine, batcher, tokenizer, entries, reviews)


def _device(loaded: Mapping[str, Product]) -> Device:
    """The one that all products share."""
    return next(iter(loaded.values())).scorer.device


def _listen(server: grpc.aio.Server, settings: Settings) -> None:
    if settings.tls_cert is None or settings.tls_key is None:
        server.add_insecure_port(settings.listen)  # loopback or a unix socket: Settings refused all else
        return
    ca = settings.tls_client_ca.read_bytes() if settings.tls_client_ca else None
    credentials = grpc.ssl_server_credentials(
        [(settings.tls_key.read_bytes(), settings.tls_cert.read_bytes())], ca, require_client_auth=ca is not None
    )
    server.add_secure_port(settings.listen, credentials)


def _serving(tenants: dict[str, Tenant], runs_on: Device) -> dict[str, Callable[[], bool]]:
    """By service of the health protocol: the engines have all read their logs; they decide where they are meant to."""

    def ready() -> bool:
        return all(t.engine.ready for t in tenants.values())

    def placed() -> bool:
        return runs_on.working and all(runs_on.index is None or t.engine.graph.there for t in tenants.values())

    return {"": ready, SERVICE: ready, device.SERVICE: placed}


async def _watch(servicer: health.aio.HealthServicer, serving: Mapping[str, Callable[[], bool]]) -> None:
    """Keep the health of each service at what it says of itself."""
    states = health_pb2.HealthCheckResponse
    while True:
        for name, is_serving in serving.items():
            await servicer.set(name, states.SERVING if is_serving() else states.NOT_SERVING)
        await asyncio.sleep(HEALTH_SECONDS)


async def serve(settings: Settings) -> None:
    """Run the server until a signal ends it."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    loaded = products.load(settings)
    runs_on = _device(loaded)
    async with AsyncExitStack() as stack:
        challengers = Challengers()
        # what is shared has times of now: a server that is fed history takes nothing of it
        sharing = settings.consortium_secret and not settings.replay
        shared = Tokenizer(settings.consortium_secret.encode()) if sharing else None
        tenants = _tenants(_connect(stack, settings), loaded, challengers, settings, shared)
        service, serving = Service(tenants, loaded, settings.replay, shared), _serving(tenants, runs_on)
        server, servicer = _grpc_server(service, settings)
        follow = [t.engine.follow() for t in tenants.values()]
        beside = (device.follow(runs_on), _watch(servicer, serving), reload.follow(loaded, settings), challengers.run())
        background = [asyncio.create_task(task) for task in (*follow, *beside)]
        for product in list(loaded.values()):  # while the logs are read
            await asyncio.to_thread(reload.rehearse, product)
        gc.collect()
        gc.freeze()  # what is loaded stays: to look through it again would hold every decision up for tens of ms
        await server.start()
        fronts = []
        if settings.native_listen:
            fronts.append(await start_native(service, settings, serving, MESSAGE_MAX_BYTES))
        log.info(
            "serving", listen=settings.listen, native=settings.native_listen, products=sorted(loaded),
            tenants=len(tenants), replay=settings.replay, native_decode=service.requests.native, device=runs_on.name,
            device_problem=runs_on.problem, on_cpu=[name for name, p in loaded.items() if p.scorer.there is None],
        )  # fmt: skip
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait({stopping, *background}, return_when=asyncio.FIRST_COMPLETED)
        log.info("draining")
        await servicer.enter_graceful_shutdown()
        service.stopping.set()
        drained = [front.stop(settings.drain_seconds) for front in fronts]
        await asyncio.gather(server.stop(settings.drain_seconds), *drained)
        await asyncio.gather(*(t.batcher.drain() for t in tenants.values()))
        await _end(background)
        counted = {"device_batches": runs_on.batches, "cpu_batches": runs_on.cpu_batches, "losses": runs_on.losses}
        log.info("stopped", challengers=dict(challengers.counts), **counted if runs_on.index is not None else {})


def _connect(stack: AsyncExitStack, settings: Settings) -> Redis:
    """A client of the store, an embedded one where no other is named; `stack` closes both."""
    pool = BlockingConnectionPool.from_url(
        settings.redis_url or stack.enter_context(embedded_store()),
        max_connections=REDIS_CONNECTIONS, timeout=REDIS_TIMEOUT_SECONDS,
        socket_timeout=REDIS_TIMEOUT_SECONDS, socket_connect_timeout=REDIS_TIMEOUT_SECONDS,
    )  # fmt: skip
    redis = Redis.from_pool(pool)
    stack.push_async_callback(redis.aclose)
    return redis


def _grpc_server(service: Service, settings: Settings) -> tuple[grpc.aio.Server, health.aio.HealthServicer]:
    """The server of the service, its health and reflection; it listens when it is started."""
    options = [("grpc.max_receive_message_length", MESSAGE_MAX_BYTES), ("grpc.so_reuseport", int(settings.reuse_port))]
    server = grpc.aio.server(options=options)
    server.add_generic_rpc_handlers((service.handler(),))
    servicer = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    reflection.enable_server_reflection((SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
    _listen(server, settings)
    return server, servicer


async def _end(background: Sequence[asyncio.Task[None]]) -> None:
    """Cancel what runs beside the calls. Raises what any of it had ended with before."""
    for task in background:
        task.cancel()
    for error in await asyncio.gather(*background, return_exceptions=True):
        if not isinstance(error, asyncio.CancelledError):
            raise error if isinstance(error, BaseException) else AssertionError("a background task ended")


def main() -> int:
    """Exit status 2 where a setting, schema, bundle or policy is unfit."""
    telemetry.configure()
    sys.setswitchinterval(SWITCH_SECONDS)
    try:
        settings = Settings()
        if settings.processes > 1:
            return processes.run(settings)
        uvloop.run(serve(settings))
    except (ValidationError, SchemaError, BundleError, PolicyError, DeviceError, NotBuiltError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

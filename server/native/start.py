"""The service behind the native front end: its unary calls and the health check, on an address of their own."""

import ssl
from collections.abc import Callable, Mapping

from grpc_health.v1 import health_pb2

from server.calls import Call, Handler
from server.errors import NotFoundError
from server.requests import parse
from server.service import SERVICE, Service
from server.settings import Settings

try:
    from server.native import front, peer
except ImportError:  # never built here, or against another libnghttp2
    front = None  # type: ignore[assignment]

HEALTH = "/grpc.health.v1.Health/Check"


class NotBuiltError(RuntimeError):
    """The settings ask for the native front end and it is not built here."""


async def start(
    service: Service, settings: Settings, serving: Mapping[str, Callable[[], bool]], message_max_bytes: int
) -> "front.Front":
    """Listen on `settings.native_listen`. serving: what the health check says, by service. Raises NotBuiltError."""
    if front is None:
        raise NotBuiltError("MIAOPI_NATIVE_LISTEN: the native front end is not built: make native")
    handlers = {f"/{SERVICE}/{name}": call for name, call in service.unary().items()}
    queued = {f"/{SERVICE}/{name}": call for name, call in service.queued().items()}
    made = front.Front({**handlers, HEALTH: _health(serving)}, peer.Limits(message_max_bytes), queued)
    await made.listen(settings.native_listen, tls_context(settings), reuse_port=settings.reuse_port)
    return made


def _health(serving: Mapping[str, Callable[[], bool]]) -> Handler:
    async def check(body: bytes, call: Call) -> bytes:
        is_serving = serving.get(parse(health_pb2.HealthCheckRequest, body).service)
        if is_serving is None:
            raise NotFoundError("service: is not served here")
        states = health_pb2.HealthCheckResponse
        state = states.SERVING if is_serving() else states.NOT_SERVING
        reply: bytes = states(status=state).SerializeToString()
        return reply

    return check


def tls_context(settings: Settings) -> ssl.SSLContext | None:
    """TLS 1.2 or newer with the same certificate as grpc.aio has, and the client's where one is asked for."""
    if settings.tls_cert is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(settings.tls_cert, settings.tls_key)
    context.set_alpn_protocols(["h2"])
    context.set_ciphers(
        "ECDHE+AESGCM:ECDHE+CHACHA20"
    )  # RFC 9113 9.2.2 forbids the others of TLS 1.2, and renegotiation
    context.options |= ssl.OP_NO_RENEGOTIATION
    if settings.tls_client_ca is not None:
        context.load_verify_locations(settings.tls_client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context

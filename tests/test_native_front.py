"""The native front end on real sockets: grpcio's clients, curl and h2load find in it what they find in grpc.aio."""

import asyncio
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest
import trustme

from features.application import InvalidFieldError
from server.errors import OverloadedError

pytest.importorskip("server.native.http2", reason="the native front end is not built: make native")

from server.calls import Call, Handler
from server.native.front import Front
from server.native.peer import Limits

# asyncio of Python 3.11 leaves what failed its TLS handshake to the collector, which may come in a later test
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


ECHO, SLOW, FAIL, LARGE = "/s/Echo", "/s/Slow", "/s/Fail", "/s/Large"


class Handlers:
    """What the tests call: `begun` and `cancelled` count Slow's."""

    def __init__(self) -> None:
        self.begun = self.cancelled = 0
        self.release = asyncio.Event()

    async def echo(self, body: bytes, call: Call) -> bytes:
        left = call.time_remaining()
        call.set_trailing_metadata((("left-ms", "none" if left is None else str(round(left * 1000))),))
        return body

    async def slow(self, body: bytes, call: Call) -> bytes:
        self.begun += 1
        try:
            await self.release.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return body

    async def fail(self, body: bytes, call: Call) -> bytes:
        if body == b"full":
            raise OverloadedError("1024 applications are waiting")
        if body == b"field":
            raise InvalidFieldError("amount_minor", "must be 1 % of 错")
        raise RuntimeError("a secret of the inside")

    async def large(self, body: bytes, call: Call) -> bytes:
        return bytes(1 << 20)

    def by_path(self) -> dict[str, Handler]:
        return {ECHO: self.echo, SLOW: self.slow, FAIL: self.fail, LARGE: self.large}


@asynccontextmanager
async def served(
    address: str = "127.0.0.1:0", tls: ssl.SSLContext | None = None, limits: Limits | None = None
) -> AsyncIterator[tuple[str, Handlers, Front]]:
    handlers = Handlers()
    front = Front(handlers.by_path(), limits)
    await front.listen(address, tls)
    try:
        yield (f"localhost:{front.ports[0]}" if front.ports else address), handlers, front
    finally:
        handlers.release.set()
        await front.stop(5)


def unary(channel: grpc.aio.Channel, path: str) -> Callable[..., grpc.aio.UnaryUnaryCall[bytes, bytes]]:
    called: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(path)
    return called


async def eventually(holds: Callable[[], bool]) -> None:
    for _ in range(500):
        if holds():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it never held")


async def failing(call: Awaitable[bytes]) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await call
    return failed.value


@pytest.mark.parametrize("kind", ["tcp", "unix"])
async def test_the_aio_client(kind: str, tmp_path: Path) -> None:
    async with (
        served("127.0.0.1:0" if kind == "tcp" else f"unix:{tmp_path}/s.sock") as (address, _, _),
        grpc.aio.insecure_channel(address) as channel,
    ):
        echo = unary(channel, ECHO)
        bodies = [bytes([i % 256]) * (i * 37) for i in range(500)]
        assert await asyncio.gather(*(echo(body) for body in bodies)) == bodies
        call = echo(b"x", timeout=9, metadata=(("x-id", "7"), ("x-bin", b"\x00\xff")))
        assert await call == b"x"
        left = dict(await call.trailing_metadata())["left-ms"]
        assert isinstance(left, str) and 8000 < int(left) <= 9100  # grpc rounds up


async def test_the_blocking_client_and_large_messages() -> None:
    def ask(address: str) -> list[int]:
        options = [("grpc.max_receive_message_length", -1)]
        with grpc.insecure_channel(address, options=options) as channel:
            echo: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(ECHO)
            return [len(echo(b"x" * n, timeout=10)) for n in (0, 1, 70_000, 4 << 20)]

    async with served() as (address, _, _):
        assert await asyncio.to_thread(ask, address) == [0, 1, 70_000, 4 << 20]


async def test_replies_that_come_one_by_one_are_all_sent() -> None:
    async def waits(body: bytes, call: Call) -> bytes:
        await asyncio.sleep(int(body) / 1000)
        return body

    front = Front({"/s/Waits": waits})
    await front.listen("127.0.0.1:0")
    async with grpc.aio.insecure_channel(f"localhost:{front.ports[0]}") as channel:
        bodies = [b"%d" % (n % 23) for n in range(200)]
        calls = []
        for body in bodies:
            calls.append(asyncio.ensure_future(unary(channel, "/s/Waits")(body, timeout=5)))
            await asyncio.sleep(0.001)
        assert await asyncio.gather(*calls) == bodies
    await front.stop(5)


async def test_errors_are_those_of_the_service() -> None:
    async with served() as (address, _, _), grpc.aio.insecure_channel(address) as channel:
        field = await failing(unary(channel, FAIL)(b"field"))
        assert (field.code(), field.details()) == (
            grpc.StatusCode.INVALID_ARGUMENT, "amount_minor: must be 1 % of 错",
        )  # fmt: skip
        details = dict(field.trailing_metadata())["grpc-status-details-bin"]
        assert b"google.rpc.BadRequest" in details
        full = await failing(unary(channel, FAIL)(b"full"))
        assert full.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        inside = await failing(unary(channel, FAIL)(b""))
        assert inside.code() == grpc.StatusCode.INTERNAL and "secret" not in str(inside)
        unknown = await failing(unary(channel, "/s/None")(b""))
        assert unknown.code() == grpc.StatusCode.UNIMPLEMENTED
        large = await failing(unary(channel, ECHO)(b"x" * ((4 << 20) + 1)))
        assert large.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        zipped = await failing(unary(channel, ECHO)(b"x" * 1000, compression=grpc.Compression.Gzip))
        assert zipped.code() == grpc.StatusCode.UNIMPLEMENTED
        assert await unary(channel, ECHO)(b"still here") == b"still here"


async def test_a_caller_gone_or_out_of_time_is_cancelled() -> None:
    async with served() as (address, handlers, front), grpc.aio.insecure_channel(address) as channel:
        call = unary(channel, SLOW)(b"")
        await eventually(lambda: handlers.begun == 1)
        call.cancel()
        await eventually(lambda: handlers.cancelled == 1)
        late = await failing(unary(channel, SLOW)(b"", timeout=0.2))
        assert late.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        await eventually(lambda: handlers.cancelled == 2)
        dropped = asyncio.ensure_future(failing(unary(channel, SLOW)(b"")))
        await eventually(lambda: handlers.begun == 3)
        for peer in list(front.peers):
            peer._transport.abort()
        assert (await dropped).code() == grpc.StatusCode.UNAVAILABLE
        await eventually(lambda: handlers.cancelled == 3 and not front.peers)


async def test_stopping_answers_what_was_taken_and_no_more() -> None:
    async with served() as (address, handlers, front), grpc.aio.insecure_channel(address) as channel:
        taken = [unary(channel, SLOW)(bytes([i])) for i in range(20)]
        await eventually(lambda: handlers.begun == 20)
        stopping = asyncio.create_task(front.stop(5))
        await asyncio.sleep(0.1)
        assert not stopping.done()
        refused = await failing(unary(channel, ECHO)(b"new", timeout=1))
        assert refused.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
        handlers.release.set()
        assert await asyncio.gather(*taken) == [bytes([i]) for i in range(20)]
        await stopping


async def test_a_rolling_restart_loses_no_call() -> None:
    """One after another on one port, under calls without pause: each is answered by the one or the other."""
    front, calling, answered = Front(Handlers().by_path()), True, 0
    await front.listen("127.0.0.1:0", reuse_port=True)
    port = front.ports[0]

    async def call_on(channel: grpc.aio.Channel) -> None:
        nonlocal answered
        while calling:
            assert await unary(channel, ECHO)(b"x", timeout=5) == b"x"
            answered += 1

    options = (("grpc.use_local_subchannel_pool", 1),)
    channels = [grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) for _ in range(3)]
    callers = [asyncio.create_task(call_on(channel)) for channel in channels for _ in range(4)]
    for _ in range(6):
        await asyncio.sleep(0.05)
        following = Front(Handlers().by_path())
        await following.listen(f"127.0.0.1:{port}", reuse_port=True)
        await front.stop(5)
        front = following
    calling = False
    await asyncio.gather(*callers)
    await asyncio.gather(*(channel.close() for channel in channels))
    await front.stop(5)
    assert answered > 100


def _tls(authority: trustme.CA, client_ca: trustme.CA | None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    context.set_alpn_protocols(["h2"])
    if client_ca:
        client_ca.configure_trust(context)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


@pytest.mark.parametrize("mutual", [False, True])
async def test_tls(mutual: bool) -> None:
    authority, stranger = trustme.CA(), trustme.CA()
    root = authority.cert_pem.bytes()
    async with served(tls=_tls(authority, authority if mutual else None)) as (address, _, _):
        for issuer in (authority, stranger):
            mine = issuer.issue_cert("client")
            key, chain = mine.private_key_pem.bytes(), b"".join(c.bytes() for c in mine.cert_chain_pems)
            credentials = (
                grpc.ssl_channel_credentials(root, key, chain) if mutual else grpc.ssl_channel_credentials(root)
            )
            async with grpc.aio.secure_channel(address, credentials) as channel:
                call = unary(channel, ECHO)(b"x" * 100_000, timeout=5)
                if mutual and issuer is stranger:
                    assert (await failing(call)).code() == grpc.StatusCode.UNAVAILABLE
                else:
                    assert await call == b"x" * 100_000


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl here")
async def test_curl_over_http2(tmp_path: Path) -> None:
    request = tmp_path / "request"
    request.write_bytes((3).to_bytes(5, "big") + b"abc")
    async with served() as (address, _, _):
        command = [
            "curl", "-s", "--http2-prior-knowledge", "-H", "content-type: application/grpc", "-H", "te: trailers",
            "--data-binary", f"@{request}", "-D", "-", f"http://{address}{ECHO}",
        ]  # fmt: skip
        done = await asyncio.to_thread(subprocess.run, command, capture_output=True, timeout=20)
    assert b"\x00\x00\x00\x00\x03abc" in done.stdout and b"grpc-status: 0" in done.stdout


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl here")
async def test_curl_that_is_no_grpc() -> None:
    async with served() as (address, _, _):
        for flag, said in (("--http2-prior-knowledge", b"HTTP/2 405"), ("--http0.9", b"")):
            command = ["curl", "-s", "-i", "-m", "5", flag, f"http://{address}/"]
            done = await asyncio.to_thread(subprocess.run, command, capture_output=True, timeout=20)
            assert said in done.stdout


@pytest.mark.skipif(shutil.which("h2load") is None, reason="no h2load here")
async def test_h2load_finds_no_error(tmp_path: Path) -> None:
    request = tmp_path / "request"
    request.write_bytes((1000).to_bytes(5, "big") + b"x" * 1000)
    async with served() as (address, _, _):
        command = [
            "h2load", "-n", "5000", "-c", "4", "-m", "32", "-t", "1", "-d", str(request),
            "-H", "content-type: application/grpc", "-H", "te: trailers", f"http://{address}{ECHO}",
        ]  # fmt: skip
        done = await asyncio.to_thread(subprocess.run, command, capture_output=True, timeout=60, text=True)
    assert "5000 succeeded, 0 failed, 0 errored, 0 timeout" in done.stdout

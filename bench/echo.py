"""`python -m bench.echo grpc|native|http ADDRESS BYTES`: servers that do nothing but answer, with so many bytes.

grpc is the bare grpc.aio unary call that decisions are compared with; native and http show what the client can do.
"""

import asyncio
import re
import sys
from typing import cast

import grpc
import uvloop

from server.calls import Call
from server.service import SERVICE

METHODS = ("Decide", "BatchDecide")
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


async def _grpc(address: str, reply: bytes) -> None:
    async def answer(body: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        return reply

    server = grpc.aio.server()
    handlers: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
        name: grpc.unary_unary_rpc_method_handler(answer) for name in METHODS
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    server.add_insecure_port(address)
    await server.start()
    await server.wait_for_termination()


async def _native(address: str, reply: bytes) -> None:
    from server.native.front import Front  # built by `make native`

    async def answer(body: bytes, call: Call) -> bytes:
        return reply

    await Front({f"/{SERVICE}/{name}": answer for name in METHODS}).listen(address)
    await asyncio.Event().wait()


class _Http(asyncio.Protocol):
    """Answers HTTP/1.1 without looking at more than the length."""

    def __init__(self, reply: bytes) -> None:
        self._reply = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(reply), reply)
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._received += data
        head = self._received.find(b"\r\n\r\n")
        told = _LENGTH.search(self._received, 0, max(head, 0))
        if told and len(self._received) >= head + 4 + int(told[1]):
            self._received = b""
            self._transport.write(self._reply)


async def _http(address: str, reply: bytes) -> None:
    host, port = address.rsplit(":", 1)
    server = await asyncio.get_running_loop().create_server(lambda: _Http(reply), host, int(port))
    await server.serve_forever()


def command(kind: str, address: str, reply_bytes: int) -> list[str]:
    """That starts one."""
    return [sys.executable, "-m", "bench.echo", kind, address, str(reply_bytes)]


def main() -> None:
    """Until it is ended."""
    kind, address, size = sys.argv[1:]
    uvloop.run({"grpc": _grpc, "native": _native, "http": _http}[kind](address, bytes(int(size))))


if __name__ == "__main__":
    main()

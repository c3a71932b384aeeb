"""Who is compared: servers on one core, each over TCP on loopback, asleep while another's turn is.

The service, and each peer that decides with the same engine, has a tenant of its own in one store: their graphs hold
their own decisions alone, and the same applications are new to each.
"""

import json
import os
import signal
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from redis.asyncio import Redis

from bench import payloads
from bench.connections import Target
from bench.echo import command as echo
from bench.load import BATCH
from bench.machine import SERVER_CORE
from bench.payloads import SERVICE, First, Payloads
from bench.serving import SECRET, listening, server_process

PEERS_PYTHON = Path(".venv-peers/bin/python")
LOGS = Path("out/compare")
PEERS = ("mosec", "fastapi", "litserve", "bentoml")
LEVELS = (64, 32)  # calls in flight
BATCH_CALLS = 4  # BatchDecide in flight
SERVICE_TENANT = "miaopi"
DECIDE, BATCH_DECIDE = f"{SERVICE}/Decide", f"{SERVICE}/BatchDecide"


@dataclass
class Contestant:
    """stream: whose applications it decides; an echo has `same`, over and over. levels: calls in flight, with which
    it is measured. per_second: decisions, or echoes, by level, one for each round.
    """

    name: str
    target: Target
    process: subprocess.Popen[bytes]
    stream: Payloads | None = None
    same: Sequence[bytes] = ()
    per_call: int = 1
    levels: Sequence[int] = LEVELS
    per_second: dict[int, list[float]] = field(default_factory=dict)

    @contextmanager
    def awake(self) -> Iterator[None]:
        """Its turn: else it may not run."""
        send(self.process, signal.SIGCONT)
        try:
            yield
        finally:
            send(self.process, signal.SIGSTOP)


def send(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """To a process, and to all of its group where it leads one."""
    if os.getpgid(process.pid) == process.pid:
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)


def service(stack: ExitStack, url: str, redis: Redis, people: Sequence[First], native: bool) -> list[Contestant]:
    """The service on its transports: one process, as deployed."""
    stream = Payloads(people, SERVICE_TENANT, payloads.direct(redis, SERVICE_TENANT))
    address, native_address = free_address(), free_address() if native else ""
    _, process = stack.enter_context(
        server_process(
            url, tenant=SERVICE_TENANT, core=SERVER_CORE, log=_log(stack, SERVICE_TENANT), listen=address,
            native_listen=native_address,
        )
    )  # fmt: skip
    stack.callback(send, process, signal.SIGCONT)  # asleep it cannot be told to end
    found = [
        Contestant("default", Target(address, DECIDE), process, stream),
        Contestant("batch", Target(address, BATCH_DECIDE), process, stream, per_call=BATCH, levels=LEVELS[:1]),
    ]
    if native:
        found.append(Contestant("native", Target(native_address, DECIDE), process, stream))
    return found


def echoes(stack: ExitStack, same: Sequence[bytes], native: bool, reply_bytes: int) -> list[Contestant]:
    """What does nothing: grpc.aio to compare with, the others to show what the client can do."""
    found = []
    for kind, name in (("grpc", "echo"), ("native", "ceiling of gRPC"), ("http", "ceiling of HTTP")):
        if kind != "native" or native:
            address = free_address()
            process = stack.enter_context(listening(echo(kind, address, reply_bytes), address, SERVER_CORE))
            found.append(Contestant(name, Target(address, DECIDE, kind == "http"), process, same=same))
    return found


def peer(stack: ExitStack, name: str, url: str, redis: Redis, people: Sequence[First]) -> list[Contestant]:
    """mosec twice: its batches are as large as there are calls in flight."""
    found = []
    for levels in ((64,), (32,)) if name == "mosec" else (LEVELS,):
        tenant = f"{name}-{levels[0]}"
        address = free_address()
        environment = {
            "REDIS_URL": url, "MIAOPI_TOKEN_SECRETS": json.dumps({tenant: SECRET}), "BATCH_MAX": str(levels[0]),
            "BENTOML_DO_NOT_TRACK": "True",
        }  # fmt: skip
        command = peer_command(name, *address.split(":"))
        process = stack.enter_context(listening(command, address, SERVER_CORE, environment, _log(stack, tenant)))
        stream = Payloads(people, tenant, payloads.direct(redis, tenant))
        found.append(Contestant(name, Target(address, "/decide", http=True), process, stream, levels=levels))
    return found


def peer_command(name: str, host: str, port: str) -> list[str]:
    """That starts a peer."""
    module, where = f"bench.peers.{name}", ["--host", host, "--port", port]
    arguments = {
        "mosec": [module, "--address", host, "--port", port],
        "fastapi": ["uvicorn", f"{module}:app", *where, "--loop", "uvloop", "--http", "httptools", "--no-access-log"],
        "litserve": [module, host, port],
        "bentoml": ["bentoml", "serve", f"{module}:Decisions", *where],
    }[name]
    return [str(PEERS_PYTHON), "-m", *arguments]


def peer_versions() -> dict[str, str]:
    """Of what is installed for the peers."""
    names = [*PEERS, "uvicorn"]
    ask = f"from importlib.metadata import version; print(*map(version, {names}))"
    told = subprocess.run([PEERS_PYTHON, "-c", ask], capture_output=True, text=True, check=True)
    return dict(zip(names, told.stdout.split(), strict=True))


def _log(stack: ExitStack, name: str) -> IO[bytes]:
    LOGS.mkdir(parents=True, exist_ok=True)
    return stack.enter_context((LOGS / f"{name}.log").open("wb"))


def free_address() -> str:
    """A loopback port that nobody has."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"

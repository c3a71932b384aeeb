"""A real server as a process of its own, on a unix socket, for a benchmark or a test; and how a client calls it."""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from bench.machine import on_core
from proto.miaopi.v1.decision_pb2_grpc import DecisionServiceStub

START_SECONDS = 120.0  # the first start compiles the graph's kernels
STOP_SECONDS = 30.0
SECRET = "a secret of benchmarks"


@contextmanager
def server_process(
    redis_url: str,
    *,
    tenant: str = "demo",
    program: tuple[str, ...] = ("-m", "server"),
    log: IO[bytes] | None = None,
    credentials: grpc.ChannelCredentials | None = None,
    native: bool = False,
    core: int | None = None,
    **settings: str | Path,
) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Start a server, wait until it is healthy, give its address and process; stop it and check that it ended well.

    native: the address is the native front end's. core: the only one that it may use. log: where its log goes, else
    this process's standard error.
    credentials: with which to ask for its health, where it has TLS. settings: MIAOPI_ variables in lower case. A
    process that the caller killed is not checked.
    """
    with tempfile.TemporaryDirectory(prefix="miaopi-") as folder:
        address = str(settings.get("listen", f"unix:{folder}/server.sock"))
        native_address = f"unix:{folder}/native.sock"
        environment = {k: v for k, v in os.environ.items() if not k.startswith("MIAOPI_")} | {
            "REDIS_URL": redis_url, "MIAOPI_LISTEN": address, "MIAOPI_TOKEN_SECRETS": json.dumps({tenant: SECRET}),
        }  # fmt: skip
        if native:
            environment["MIAOPI_NATIVE_LISTEN"] = native_address
        environment |= {f"MIAOPI_{name.upper()}": str(value) for name, value in settings.items()}
        process = subprocess.Popen([*on_core(core), sys.executable, *program], env=environment, stderr=log)
        try:
            _wait_until_healthy(native_address if native else address, process, credentials)
            yield native_address if native else address, process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            code = process.wait(STOP_SECONDS)
        if code not in (0, -signal.SIGKILL):
            raise RuntimeError(f"the server ended with status {code}")


@contextmanager
def listening(
    command: Sequence[str], address: str, core: int, environment: Mapping[str, str] = {}, log: IO[bytes] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Any other server, from when its address takes connections, leader of a process group that is ended with it.

    environment: added to this process's.
    """
    process = subprocess.Popen(
        [*on_core(core), *command], env=os.environ | environment, stdout=log, stderr=log, start_new_session=True
    )
    try:
        deadline = time.monotonic() + START_SECONDS
        while not _takes_connections(address):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{' '.join(command)}: does not listen on {address}")
            time.sleep(0.05)
        yield process
    finally:
        for number in (signal.SIGCONT, signal.SIGTERM):
            with suppress(ProcessLookupError):
                os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS / 3)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(STOP_SECONDS)


def _takes_connections(address: str) -> bool:
    unix = address.startswith("unix:")
    with socket.socket(socket.AF_UNIX if unix else socket.AF_INET) as probe:
        host, _, port = address.rpartition(":")
        try:
            probe.connect(address.removeprefix("unix:") if unix else (host, int(port)))
        except OSError:
            return False
    return True


@contextmanager
def client(address: str) -> Iterator[DecisionServiceStub]:
    """A blocking client."""
    with grpc.insecure_channel(address) as channel:
        yield DecisionServiceStub(channel)


def _wait_until_healthy(
    address: str, process: subprocess.Popen[bytes], credentials: grpc.ChannelCredentials | None
) -> None:
    deadline = time.monotonic() + START_SECONDS
    with grpc.secure_channel(address, credentials) if credentials else grpc.insecure_channel(address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        while time.monotonic() < deadline:
            if process.poll() is not None:
                raise RuntimeError(f"the server ended with status {process.returncode}")
            try:
                reply = stub.Check(health_pb2.HealthCheckRequest(), timeout=1, wait_for_ready=True)
            except grpc.RpcError:
                continue
            if reply.status == health_pb2.HealthCheckResponse.SERVING:
                return
            time.sleep(0.05)
    raise RuntimeError(f"the server was not healthy within {START_SECONDS} s")

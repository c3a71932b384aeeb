"""Several servers on one port: a process a core, since Python computes on one core only.

The kernel spreads connections over them (SO_REUSEPORT). Each is a replica with a graph of its own, kept equal by the
event log, so nothing is shared but the store. One that ends is started again, as often as it takes; the others answer
meanwhile. Only what is unfit from the start ends all: a file that is found unfit later is one that a running server
refuses and goes on without.
"""

import contextlib
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from types import FrameType

import structlog

from features.embedded import embedded_store
from server.settings import Settings

UNFIT = 2  # exit status of a server whose settings, schemas, bundles or policies cannot be used
WATCH_SECONDS = 0.1
RESTART_SECONDS = 1.0

log = structlog.get_logger()


def run(settings: Settings) -> int:
    """Run `settings.processes` servers until a signal ends them; the exit status, 2 where one is unfit at first."""
    stopping = False

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal stopping
        stopping = True

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    with ExitStack() as stack:
        environment = {"MIAOPI_PROCESSES": "1", "MIAOPI_REUSE_PORT": "true"}
        if not settings.redis_url:
            environment["REDIS_URL"] = stack.enter_context(embedded_store())
        if not settings.token_secrets:
            environment["MIAOPI_TOKEN_SECRETS"] = f'{{"demo": "{secrets.token_hex(16)}"}}'
        first = [_start(environment) for _ in range(settings.processes)]
        servers = list(first)
        stack.callback(_end, servers, settings.drain_seconds)
        while not stopping:
            time.sleep(WATCH_SECONDS)
            for place, server in enumerate(servers):
                if (status := server.poll()) is None or stopping:
                    continue
                if status == UNFIT and server is first[place]:
                    return UNFIT
                log.error("server_ended", status=status)
                time.sleep(RESTART_SECONDS)
                servers[place] = _start(environment)
    return 0


def _start(environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "server"], env={**os.environ, **environment})


def _end(servers: list[subprocess.Popen[bytes]], drain_seconds: float) -> None:
    """Let all answer what they have taken, then end."""
    for server in servers:
        server.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + drain_seconds + RESTART_SECONDS
    for server in servers:
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(max(deadline - time.monotonic(), 0.0))
        if server.poll() is None:
            server.kill()
            server.wait()

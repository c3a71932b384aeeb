"""Clients that ask without pause while what decides changes (R19): who fails, and how soon is the new version there?"""

import itertools
import json
import math
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import grpc
import numpy as np

from bench import world
from bench.serving import client
from proto.miaopi.v1 import decision_pb2 as pb

CLIENTS = 4
CHANGE_SECONDS = 1.0  # from the first reply of one version to the next change
WAIT_SECONDS = 10.0  # at most, for that reply


@dataclass(frozen=True)
class Call:
    """One call: when its answer came (time.monotonic), how long it took, and the reply; an empty one if it failed."""

    application_id: str
    at: float
    seconds: float
    reply: pb.DecideResponse

    @property
    def answered(self) -> bool:
        """Whether it did not fail."""
        return bool(self.reply.versions.bundle)


def requests_of(made: world.World, product: str) -> list[pb.DecideRequest]:
    """The applications of a world for one product."""
    return [e for e in made.events if isinstance(e, pb.DecideRequest) and e.product == product]


def under_load(
    address: str, requests: Sequence[pb.DecideRequest], versions: Iterator[str], part: str
) -> tuple[list[Call], list[tuple[float, str]]]:
    """Every call of the clients, and (time.monotonic, new version) of every change meanwhile.

    versions: makes a change each time that it is asked for the next, and says which version of `part`, a field of the
    reply's versions, decides from then on.
    """
    stop = threading.Event()
    calls: list[Call] = []
    changes: list[tuple[float, str]] = []
    with ThreadPoolExecutor(CLIENTS) as pool:
        clients = [pool.submit(_ask, address, requests, number, stop, calls) for number in range(CLIENTS)]
        try:
            time.sleep(CHANGE_SECONDS)
            for version in versions:
                changes.append((time.monotonic(), version))
                deadline = changes[-1][0] + WAIT_SECONDS
                while getattr(calls[-1].reply.versions, part) != version and time.monotonic() < deadline:
                    time.sleep(0.01)
                time.sleep(CHANGE_SECONDS)
        finally:
            stop.set()
        for done in clients:
            done.result()
    return calls, changes


def figures(calls: Sequence[Call], changes: Sequence[tuple[float, str]], part: str) -> dict[str, float]:
    """How many calls failed, the longest wait for a new version of `part`, and how long calls took."""
    answered = [call for call in calls if call.answered]
    waits = [
        min((c.at for c in answered if c.at >= at and getattr(c.reply.versions, part) == version), default=math.inf)
        - at
        for at, version in changes
    ]
    return {
        "requests": len(calls),
        "failed": len(calls) - len(answered),
        "seconds_to_new_version_max": round(max(waits), 3),
        "p50_ms": round(float(np.percentile([c.seconds for c in answered], 50)) * 1e3, 2),
        "p99_ms": round(float(np.percentile([c.seconds for c in answered], 99)) * 1e3, 2),
    }


def _ask(
    address: str, requests: Sequence[pb.DecideRequest], number: int, stop: threading.Event, calls: list[Call]
) -> None:
    """One client's calls, one after another until `stop`, appended to `calls`."""
    with client(address) as stub:
        for n in itertools.count():
            if stop.is_set():
                return
            request = pb.DecideRequest()
            request.CopyFrom(requests[(n * CLIENTS + number) % len(requests)])
            request.application_id, request.event_time_ms = f"{number}-{n}", 0
            started = time.monotonic()
            try:
                reply = stub.Decide(request, timeout=5)
            except grpc.RpcError as error:
                print(json.dumps({"failed": request.application_id, "code": str(error.code())}))
                reply = pb.DecideResponse()
            now = time.monotonic()
            calls.append(Call(request.application_id, now, now - started, reply))

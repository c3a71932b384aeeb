"""Champions promoted and rolled back under load, a challenger scored beside them (R18, R19): does a request fail, and
how soon does a reply come from the new version?
"""

import asyncio
import itertools
import json
import math
import shutil
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import grpc
import numpy as np
from redis.asyncio import Redis

from bench import world
from bench.serving import SECRET, client, server_process
from features import schema as schemas
from features.embedded import embedded_store
from features.schema import Schema
from features.store import Store
from features.tokens import Tokenizer
from models import export, registry
from models.bundle import Bundle
from proto.miaopi.v1 import decision_pb2 as pb

SCHEMA = Path("features/schemas/consumer.yaml")
DEMO = Path("models/demo")
WORLD_SEED = 5
CLIENTS = 4
CANDIDATE_SHIFT, CHALLENGER_SHIFT = 0.1, -0.1  # of the champion's log-odds
CHANGE_SECONDS = 1.0  # from the first reply of one champion to the next change
WAIT_SECONDS = 10.0  # at most, for that reply
SETTLE_SECONDS = 0.5  # for what challengers have not scored when the load ends


@dataclass(frozen=True)
class Asked:
    """One call: when its answer came (time.monotonic), how long it took, and what it said; no version if it failed."""

    application_id: str
    at: float
    seconds: float
    version: str
    fraud_probability: float


def run(promotions: int) -> dict[str, float]:
    """Figures of the last line, of so many promotions and rollbacks in turn."""
    schema = schemas.load(SCHEMA)
    with tempfile.TemporaryDirectory(prefix="miaopi-") as name, embedded_store() as url:
        folder = Path(name)
        bundles = Path(shutil.copytree(DEMO, folder / "bundles"))
        champion = bundles / schema.name / registry.read(bundles / schema.name).champion
        candidate = variant(champion, folder / "candidate", CANDIDATE_SHIFT)
        shift_of = {champion.name: 0.0, Bundle.open(candidate).version: CANDIDATE_SHIFT}
        challenger, _ = registry.challenge(bundles, variant(champion, folder / "challenger", CHALLENGER_SHIFT), schema)
        with server_process(url, bundles=bundles) as (address, _):
            asked, changes = _load(address, bundles, candidate, schema, promotions)
            time.sleep(SETTLE_SECONDS)
        recorded = asyncio.run(_recorded(url, schema, asked, challenger))
    answered = [a for a in asked if a.version]
    waits = [
        min((a.at for a in answered if a.at >= at and a.version == version), default=math.inf) - at
        for at, version in changes
    ]
    return {
        "requests": len(asked),
        "failed": len(asked) - len(answered),
        "mixed": _mixed(answered, recorded, shift_of),
        "promotions": len(changes),
        "seconds_to_new_version_max": round(max(waits), 3),
        "p50_ms": round(float(np.percentile([a.seconds for a in answered], 50)) * 1e3, 2),
        "p99_ms": round(float(np.percentile([a.seconds for a in answered], 99)) * 1e3, 2),
        "challenger_recorded": len(recorded),
        "challenger_skipped": len(answered) - len(recorded),
    }


def variant(bundle: Path, out: Path, shift: float) -> Path:
    """Another version of a bundle, written to `out`: its log-odds moved by `shift`."""
    loaded = Bundle.open(bundle)
    models = {
        label: replace(m, calibration=replace(m.calibration, intercept=m.calibration.intercept + shift))
        for label, m in loaded.models.items()
    }
    said = {
        label: {key: value for key, value in spec.items() if key not in ("files", "calibration")}
        for label, spec in loaded.manifest["labels"].items()
    }
    return export.write(out, loaded.schema, models, loaded.manifest["training"], said)


def _load(
    address: str, bundles: Path, candidate: Path, schema: Schema, promotions: int
) -> tuple[list[Asked], list[tuple[float, str]]]:
    """Every call of the clients, and (time.monotonic, new champion) of every promotion and rollback meanwhile."""
    made = world.build(WORLD_SEED, 1000)
    requests = [e for e in made.events if isinstance(e, pb.DecideRequest) and schema.name == e.product]
    stop = threading.Event()
    asked: list[Asked] = []
    changes: list[tuple[float, str]] = []
    with ThreadPoolExecutor(CLIENTS) as pool:
        calls = [pool.submit(_ask, address, requests, number, stop, asked) for number in range(CLIENTS)]
        try:
            time.sleep(CHANGE_SECONDS)
            for n in range(promotions):
                if n % 2:
                    champion = registry.rollback(bundles, schema.name).champion
                else:
                    champion, _ = registry.promote(bundles, candidate, schema)
                changes.append((time.monotonic(), champion))
                while asked[-1].version != champion and time.monotonic() < changes[-1][0] + WAIT_SECONDS:
                    time.sleep(0.01)
                time.sleep(CHANGE_SECONDS)
        finally:
            stop.set()
        for call in calls:
            call.result()
    return asked, changes


def _ask(
    address: str, requests: Sequence[pb.DecideRequest], number: int, stop: threading.Event, asked: list[Asked]
) -> None:
    """One client's calls, one after another until `stop`, appended to `asked`."""
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
            version, said = reply.versions.bundle, reply.fraud_probability
            asked.append(Asked(request.application_id, now, now - started, version, said))


async def _recorded(url: str, schema: Schema, asked: Sequence[Asked], challenger: str) -> dict[str, float]:
    """By application, the fraud probability that the store holds of the challenger."""
    async with Redis.from_url(url) as redis:
        store = Store(redis, "demo", Tokenizer(SECRET.encode()), [schema])
        said = {a.application_id: await store.challengers(a.application_id) for a in asked}
    return {name: by_version[challenger][0] for name, by_version in said.items() if challenger in by_version}


def _mixed(answered: Sequence[Asked], recorded: Mapping[str, float], shift_of: Mapping[str, float]) -> int:
    """Replies whose probability is not the one of the version they name, told by its distance to the challenger's."""
    mixed = 0
    for a in answered:
        if a.application_id in recorded:
            apart = _log_odds(a.fraud_probability) - _log_odds(recorded[a.application_id])
            mixed += abs(apart - (shift_of[a.version] - CHALLENGER_SHIFT)) > 1e-6
    return mixed


def _log_odds(probability: float) -> float:
    return math.log(probability / (1 - probability))

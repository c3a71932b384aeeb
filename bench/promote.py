"""Champions promoted and rolled back under load, a challenger scored beside them (R18, R19): does a request fail, and
how soon does a reply come from the new version?
"""

import asyncio
import math
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from redis.asyncio import Redis

from bench import world
from bench.changes import Call, figures, requests_of, under_load
from bench.serving import SECRET, server_process
from features import schema as schemas
from features.embedded import embedded_store
from features.schema import Schema
from features.store import Store
from features.tokens import Tokenizer
from models import export, registry
from models.bundle import Bundle

SCHEMA = Path("features/schemas/consumer.yaml")
DEMO = Path("models/demo")
WORLD_SEED = 5
CANDIDATE_SHIFT, CHALLENGER_SHIFT = 0.1, -0.1  # of the champion's log-odds
SETTLE_SECONDS = 0.5  # for what challengers have not scored when the load ends


def run(promotions: int) -> dict[str, float]:
    """Figures of the last line, of so many promotions and rollbacks in turn."""
    schema = schemas.load(SCHEMA)
    requests = requests_of(world.build(WORLD_SEED, 1000), "consumer")
    with tempfile.TemporaryDirectory(prefix="miaopi-") as name, embedded_store() as url:
        folder = Path(name)
        bundles = Path(shutil.copytree(DEMO, folder / "bundles"))
        champion = bundles / schema.name / registry.read(bundles / schema.name).champion
        candidate = variant(champion, folder / "candidate", CANDIDATE_SHIFT)
        shift_of = {champion.name: 0.0, Bundle.open(candidate).version: CANDIDATE_SHIFT}
        challenger, _ = registry.challenge(bundles, variant(champion, folder / "challenger", CHALLENGER_SHIFT), schema)
        with server_process(url, bundles=bundles) as (address, _):
            champions = _promoted(bundles, candidate, schema, promotions)
            calls, changes = under_load(address, requests, champions, "bundle")
            time.sleep(SETTLE_SECONDS)
        recorded = asyncio.run(_recorded(url, schema, calls, challenger))
    answered = [call for call in calls if call.answered]
    return {
        **figures(calls, changes, "bundle"),
        "mixed": _mixed(answered, recorded, shift_of),
        "promotions": len(changes),
        "challenger_recorded": len(recorded),
        "challenger_skipped": len(answered) - len(recorded),
    }


def _promoted(bundles: Path, candidate: Path, schema: Schema, promotions: int) -> Iterator[str]:
    """The champion after each promotion and rollback."""
    for n in range(promotions):
        if n % 2:
            yield registry.rollback(bundles, schema.name).champion
        else:
            yield registry.promote(bundles, candidate, schema)[0]


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


async def _recorded(url: str, schema: Schema, calls: Sequence[Call], challenger: str) -> dict[str, float]:
    """By application, the fraud probability that the store holds of the challenger."""
    async with Redis.from_url(url) as redis:
        store = Store(redis, "demo", Tokenizer(SECRET.encode()), [schema])
        said = {a.application_id: await store.challengers(a.application_id) for a in calls}
    return {name: by_version[challenger][0] for name, by_version in said.items() if challenger in by_version}


def _mixed(answered: Sequence[Call], recorded: Mapping[str, float], shift_of: Mapping[str, float]) -> int:
    """Replies whose probability is not the one of the version they name, told by its distance to the challenger's."""
    mixed = 0
    for a in answered:
        if a.application_id in recorded:
            apart = _log_odds(a.reply.fraud_probability) - _log_odds(recorded[a.application_id])
            mixed += abs(apart - (shift_of[a.reply.versions.bundle] - CHALLENGER_SHIFT)) > 1e-6
    return mixed


def _log_odds(probability: float) -> float:
    return math.log(probability / (1 - probability))

"""Real things to test against: an embedded Valkey for the whole run, a tenant of its own for each test."""

import asyncio
import gc
import os
import secrets
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import hypothesis
import pytest
import uvloop
from redis.asyncio import Redis

from features import schema as schemas
from features.application import Application, Profile, Report, entity_tokens
from features.embedded import embedded_store
from features.profiles import Profiles
from features.schema import Schema
from features.store import Store
from features.tokens import Tokenizer
from models import registry

ROOT = Path(__file__).parent.parent
SHARED_DATA = ROOT.parent / "shared" / "data"
TOKENIZER = Tokenizer(b"a secret of tests")
# a machine that is busy refutes no property
hypothesis.settings.register_profile("busy", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("busy")
for _name in ("COLUMNS", "LINES"):  # who starts the workers of a run tells them the size of a terminal that is none
    os.environ.pop(_name, None)
SCANNED = 10_000  # keys that a SCAN looks at: tests share the store, so one of them has to pass by what all others keep


def pytest_asyncio_loop_factories(item: pytest.Item) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The native front end is tested on the server's event loop and on asyncio's own, all else on the latter."""
    loops: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.new_event_loop}
    if item.path.name in ("test_native_front.py", "test_native_peer.py", "test_bench_load.py", "test_round_trip.py"):
        loops["uvloop"] = uvloop.new_event_loop
    return loops


def pytest_collection_finish() -> None:
    """What all modules hold stays, half a million objects: no collection of garbage looks through it again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def consumer() -> Schema:
    return schemas.load(ROOT / "features/schemas/consumer.yaml")


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    with embedded_store() as url:
        yield url


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    client = Redis.from_url(redis_url)
    yield client
    await client.aclose()


@pytest.fixture
def tenant() -> str:
    """A tenant that no other test uses: tests share the store and not a key."""
    return f"test-{secrets.token_hex(4)}"


@pytest.fixture
async def store(redis: Redis, tenant: str, consumer: Schema) -> Store:
    opened = Store(redis, tenant, TOKENIZER, [consumer])
    await opened.open()
    return opened


def demo_bundle(name: str) -> Path:
    """The folder of the demo's champion of a schema."""
    place = ROOT / "models/demo" / name
    return place / registry.read(place).champion


def timeless(events: Sequence[Application | Report]) -> list[Application | Report]:
    """Events as a server takes them that is not replaying."""
    return [e._replace(event_time_ms=0) if isinstance(e, Application) else replace(e, event_time_ms=0) for e in events]


def profiles_of(schema: Schema, profiles: Profiles, row: int) -> dict[str, Profile]:
    """What the sources know of one application, by source."""
    known = zip(schema.sources.values(), profiles.fetched_at_ms[row].tolist(), strict=True)
    return {
        source.name: Profile(source.name, ms, profiles.numbers[row, source.first : source.first + len(source.features)])
        for source, ms in known if ms
    }  # fmt: skip


def application(schema: Schema, application_id: str, device: str = "device-1", **changes: object) -> Application:
    """A consumer application of an applicant of its own on a device."""
    made = Application(
        application_id=application_id,
        tenant="",
        schema=schema,
        product="consumer",
        amount_minor=1_000_000,
        term_months=12,
        tokens=entity_tokens(schema, TOKENIZER, f"applicant of {application_id}", [("device", device)], ()),
        numbers={"amount": 10_000.0, "term_months": 12.0, "declared_income": 8_000.0},
        body_hash=application_id.encode(),
    )
    return made._replace(**changes)  # type: ignore[arg-type]

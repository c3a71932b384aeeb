"""A deep champion where there is no GPU: refused, or served by the CPU at its pace, as the setting says."""

import asyncio
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from redis.asyncio import Redis

from bench import history, world
from bench.gpu_deep import deep_bundle
from features.application import Application
from features.replay import History, replay
from features.schema import Schema
from features.store import Store
from models import registry
from models.bundle import BundleError
from proto.miaopi.v1 import decision_pb2 as pb
from server import products, reload
from server.placement import Placement
from server.settings import Settings
from tests.conftest import ROOT, demo_bundle
from tests.cuda_shim import COMPILER
from tests.gpu_faults import Fault
from tests.placed import until_there
from tests.test_challengers import background, until
from tests.test_engine import TOKENIZER, engine_on, essence, run

APPLICATIONS = 120


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return deep_bundle("consumer", tmp_path_factory.mktemp("deep") / "consumer")


@pytest.fixture
def bundles(tmp_path: Path) -> Path:
    """A copy of the demo's registry."""
    return Path(shutil.copytree(ROOT / "models/demo", tmp_path / "bundles"))


@pytest.fixture(scope="module")
def past() -> History:
    made, of_product = world.build(9, 1000), history.schemas_by_product()
    events = made.events[:APPLICATIONS]
    return history.history(events, history.profiles(made.profiles, of_product, TOKENIZER), of_product, TOKENIZER)


def test_a_server_without_a_gpu_refuses_to_start_and_says_what_would_help(
    consumer: Schema, bundles: Path, deep: Path
) -> None:
    registry.promote(bundles, deep, consumer)
    with pytest.raises(BundleError, match=r"two hops.*for a GPU.*none here; MIAOPI_DEEP_ON_CPU=slow"):
        products.load(Settings(bundles=bundles, device="cpu"))


async def test_slow_serves_what_replay_scores(
    redis: Redis, tenant: str, consumer: Schema, bundles: Path, deep: Path, past: History
) -> None:
    """In batches of one and of many, with a retry after a crash among them; other products as ever."""
    version, _ = registry.promote(bundles, deep, consumer)
    served = products.load(Settings(bundles=bundles, device="cpu", deep_on_cpu="slow"))
    assert served["consumer"].bundle_version == version and served["consumer"].deep and not served["auto"].deep
    reload.rehearse(served["consumer"])
    probabilities = []
    for seed in (None, 3):
        async with engine_on(redis, f"{tenant}-{seed}", served, past) as (engine, _):
            replies = await run(engine, past.events, seed)
        probabilities.append({reply.application_id: reply.fraud_probability for reply in replies})
    rows = replay(past, deep=True)["consumer"]
    scores = served["consumer"].scorer.score(rows.snapshot)
    assert rows.snapshot.hops is not None and len(rows.snapshot.hops.far) > 0
    for found in probabilities:
        of_rows = [found[name] for name in rows.application_ids]
        np.testing.assert_allclose(of_rows, scores.fraud_probability, atol=1e-5, rtol=0)


async def test_a_retry_sees_its_hops_without_itself(
    redis: Redis, tenant: str, consumer: Schema, bundles: Path, deep: Path, past: History
) -> None:
    """Begun first, decided last: as if it had come last."""
    registry.promote(bundles, deep, consumer)
    served = products.load(Settings(bundles=bundles, device="cpu", deep_on_cpu="slow"))
    mine = [e._replace(event_time_ms=0) for e in past.events if isinstance(e, Application)][:40]
    lost = next(a for a in mine if a.schema.name == "consumer")
    others = [a for a in mine if a is not lost]
    async with engine_on(redis, tenant, served, past) as (engine, store):
        crashed = Store(redis, tenant, TOKENIZER, [p.schema for p in served.values()])
        await crashed.open()
        await crashed.begin([lost])
        await run(engine, others, 2)
        (reply,) = await run(engine, [lost], None)
        assert reply.log_position.as_of == len(mine) == await store.position()


@pytest.mark.skipif(COMPILER is None, reason="g++ is not installed: kernels were NOT run on the CPU")
@pytest.mark.parametrize("role", ["champion", "challenger"])
async def test_on_a_device_it_decides_as_on_the_cpu(
    redis: Redis, tenant: str, consumer: Schema, bundles: Path, deep: Path, past: History, role: str
) -> None:
    """Without the setting, as there is a device; the snapshots offered to a deep challenger hold hops there too."""
    admit = registry.promote if role == "champion" else registry.challenge
    admit(bundles, deep, consumer)
    slow = products.load(Settings(bundles=bundles, device="cpu", deep_on_cpu="slow"))
    device = Fault().device()
    version, scorers, refused = products.load_scorers(bundles / "consumer", consumer, {}, device, "refuse")
    assert not refused
    there = {**slow, "consumer": replace(slow["consumer"], scorer=scorers.pop(version), challengers=scorers)}
    reload.rehearse(there["consumer"])
    assert (device.losses, device.batches) == (0, 1)
    asked = [e for e in past.events if isinstance(e, Application) and e.product == "consumer"]
    found = list[list[pb.DecideResponse]]()
    for served, placement in ((slow, Placement()), (there, Placement(device))):
        async with engine_on(redis, f"{tenant}-{len(found)}", served, past, placement) as (engine, _):
            if served is there:
                await until_there(engine)
            found.append(await run(engine, asked, 3))
            await asyncio.sleep(0)
            offered = [some.snapshot.hops for some in engine._challengers._queue]
            assert len(offered) > 0 if role == "challenger" else not offered
            assert all(hops is not None for hops in offered)
    assert (device.losses, device.cpu_batches) == (0, 0) and device.batches > 1
    for one, other in zip(*found, strict=True):
        assert abs(one.fraud_probability - other.fraud_probability) <= 1e-6
        assert essence(one) == essence(other)


async def test_a_running_server_goes_on_with_the_champion_it_has(
    consumer: Schema, bundles: Path, deep: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    refusing, slow = (Settings(bundles=bundles, device="cpu", deep_on_cpu=how) for how in ("refuse", "slow"))
    served = products.load(refusing)
    before = served["consumer"]
    version, _ = registry.promote(bundles, deep, consumer)
    async with background(reload.follow(served, refusing)):
        await until(lambda: "MIAOPI_DEEP_ON_CPU=slow" in capfd.readouterr().out)
        assert served["consumer"] is before
    async with background(reload.follow(served, slow)):
        await until(lambda: served["consumer"].bundle_version == version)


async def test_a_deep_challenger_is_left_out_or_scores_beside(consumer: Schema, bundles: Path, deep: Path) -> None:
    """With it the view holds hops, though the champion looks at none."""
    registry.challenge(bundles, deep, consumer)
    alone = products.load(Settings(bundles=bundles, device="cpu"))["consumer"]
    assert not alone.challengers and not alone.deep
    beside = products.load(Settings(bundles=bundles, device="cpu", deep_on_cpu="slow"))["consumer"]
    assert beside.deep and not beside.scorer.deep and len(beside.challengers) == 1


def test_promoting_warns_of_what_it_needs(consumer: Schema, bundles: Path, deep: Path) -> None:
    from typer.testing import CliRunner

    from models.__main__ import app

    for bundle, warned in ((deep, True), (demo_bundle("consumer"), False)):
        done = CliRunner().invoke(app, ["promote", "--bundle", str(bundle), "--registry", str(bundles)])
        assert done.exit_code == 0, done.output
        assert ("MIAOPI_DEEP_ON_CPU=slow" in done.output) == warned

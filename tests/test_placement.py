"""The engine on a device that fails at every step there is: each request is answered, as the CPU answers it.

There is no CUDA here: kernels run by the shim and networks by ONNX Runtime on the CPU, behind the calls that a device
gets (tests/gpu_faults.py). The store is a real one.
"""

import asyncio
import threading
from dataclasses import replace

import numpy as np
import pytest
from redis.asyncio import Redis

from features.application import Application, Report, entity_tokens
from features.events import finish, pack_application, unpack
from features.forget import Forgetting
from features.list_entries import ListEntries, listable
from features.replay import History
from features.store import Store
from gpu_kernels.copying import Copy
from gpu_kernels.device import Device as Kernels
from gpu_kernels.graph import DeviceGraph
from models import registry
from proto.miaopi.v1 import decision_pb2 as pb
from server import placement as placed
from server.placement import Placement
from server.products import Product
from server.settings import Settings
from tests.cuda_shim import COMPILER
from tests.gpu_devices import networks_by_onnx
from tests.gpu_faults import Fault
from tests.placed import back, fault, follows_closely, past, recomputed, served, step, there, told, until_there
from tests.test_engine import TOKENIZER, batches, decide, engine_on

pytestmark = [
    pytest.mark.skipif(COMPILER is None, reason="g++ is not installed: kernels were NOT run on the CPU"),
    pytest.mark.usefixtures("networks_by_onnx"),
]
__all__ = ["fault", "follows_closely", "networks_by_onnx", "past", "served", "there"]
KERNELS = {
    "resolve", "mark_first", "number", "record", "relabel", "prepare_rows", "neighbors", "recents", "count_links",
    "finish_links", "use", "outcomes", "commit", "fill", "find_leaf", "add_leaves", "ask_splits", "contribute",
}  # fmt: skip
OTHERS = {"memory", "copy there", "network", "copy back", "wait"}


@pytest.mark.parametrize("alone", [True, False], ids=["every step", "three products in a batch"])
async def test_no_step_at_which_the_device_fails_changes_a_reply(
    redis: Redis, tenant: str, served: dict[str, Product], past: History, there: dict[str, Product], fault: Fault,
    alone: bool,
) -> None:  # fmt: skip
    """Each batch is decided with the device failing later than in the batch before: at once or, as CUDA does, where it
    is waited for. Then it comes back, its graph a copy of the CPU's.
    """
    events, stride = past.events[:200], 7
    if alone:  # of one product, so that a batch has few steps; it comes back sooner with one bundle
        asked = [e for e in past.events if isinstance(e, Application) and e.product == "consumer"]
        events, stride, fault = asked, 1, Fault()
        name = served["consumer"].bundle_version
        scorer = registry.load(Settings().bundles / "consumer", name, served["consumer"].schema, fault.device())
        there = {**served, "consumer": replace(served["consumer"], scorer=scorer)}
    parts = batches(events, None if alone else 3)
    placement = Placement(there["consumer"].scorer.device)
    found: list[pb.DecideResponse] = []
    before, rounds, after, fault.failed = placement._device.losses, 0, 0, []
    async with engine_on(redis, f"{tenant}-b", there, past, placement) as (engine, store):
        await until_there(engine)
        done = 0
        for batch in parts:
            fault.after, fault.late = None if isinstance(batch[0], Report) else after, rounds % 2 == 1
            found += await step(engine, batch)
            done += 1
            if not placement.there:
                after += stride
                await back(engine, fault)
            elif fault.after is not None:  # none of its steps is left to fail
                rounds, after = rounds + 1, rounds + 1
                if alone and rounds == 2:
                    break
        fault.after, parts = None, parts[:done]
        appended = await redis.xlen(f"{{{tenant}-b}}:log")
        kept, graph = await told(store, found), {n: a.tobytes() for n, a in engine.graph.host.arrays().items()}
    assert appended == sum(len(batch) for batch in parts)
    assert not alone or (rounds == 2 and KERNELS - set(fault.failed) <= {"relabel"} and set(fault.failed) >= OTHERS)
    assert placement._device.losses - before == len(fault.failed) > (90 if alone else 10)
    async with engine_on(redis, tenant, served, past) as (engine, store):
        expected = [reply for batch in parts for reply in await step(engine, batch)]
        assert await told(store, expected) == kept
        assert {n: a.tobytes() for n, a in engine.graph.host.arrays().items()} == graph


async def test_what_others_record_reaches_both_graphs(
    redis: Redis, tenant: str, served: dict[str, Product], past: History, there: dict[str, Product], fault: Fault,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Another replica's decisions, batches too small for the device, those begun before a crash, reports, lists, and
    who is forgotten, while the device comes and goes, also where it only catches up.
    """
    monkeypatch.setattr(placed, "BEHIND_MAX", 5)
    rng, schema = np.random.default_rng(4), served["consumer"].schema
    sent = next(e for e in past.events if isinstance(e, Application) and e.product == "consumer")

    def asked(name: str) -> Application:
        person, people = (
            f"person {rng.integers(12)}",
            [("device", f"d{rng.integers(4)}"), ("phone", f"1380000000{rng.integers(6)}")],
        )
        tokens = entity_tokens(schema, TOKENIZER, person, people, ())
        return sent._replace(application_id=name, body_hash=name.encode(), tokens=tokens, event_time_ms=0)

    placement, found, lost, forgotten = Placement(there["consumer"].scorer.device, 3), list[pb.DecideResponse](), 0, 0
    others = Store(redis, tenant, TOKENIZER, [schema])
    async with (
        engine_on(redis, tenant, there, past, placement) as (engine, store),
        engine_on(redis, tenant, served, past) as (replica, _),
    ):
        entries, decided = ListEntries(tenant, store, TOKENIZER), placement._device.batches
        await others.open()
        for turn in range(60):
            batch = [asked(f"{turn}-{i}") for i in range(int(rng.integers(1, 7)))]
            if turn % 9 == 4:  # a server that dies
                await others.begin(batch[:1])
            fault.after = int(rng.integers(0, 90)) if turn % 4 == 1 else None
            found += await step(replica if turn % 5 == 2 else engine, batch)
            await engine.report(Report(f"o{turn}", found[-1].application_id, "fraud_confirmed"))
            if turn % 13 == 7:
                await engine.forget(TOKENIZER, Forgetting(f"person {turn % 12}", "Li", None))
                forgotten += 1
            if turn == 20:
                made = entries.proposal(
                    listable([schema]), kind="grey", entity_type="device", identifier="d1", reason="农场",
                    source="court", proposed_by="Alice",
                )  # fmt: skip
                await entries.approve(await entries.propose(made), "Bob")
            async with engine._sequencer:
                await engine._catch_up()
            fault.after = None
            if not placement.there and turn % 3 == 0:
                lost += 1
                await back(engine, fault)
        assert placement.sequence == await store.position()
        assert lost > 4 and forgotten > 3 and placement._device.batches - decided > 20
    assert await recomputed(redis, tenant, served, found) > 150
    log = [entry async for entry in redis.scan_iter(f"{{{tenant}}}:a:*")]
    assert len(log) == len(found)


async def test_a_log_that_is_lost_is_read_again_on_both(
    redis: Redis, tenant: str, served: dict[str, Product], past: History, there: dict[str, Product], fault: Fault
) -> None:
    asked = [e._replace(event_time_ms=0) for e in past.events if isinstance(e, Application) and e.product == "consumer"]
    placement = Placement(there["consumer"].scorer.device)
    async with engine_on(redis, tenant, there, past, placement) as (engine, _):
        await step(engine, asked[:3])
        await redis.delete(*[key async for key in redis.scan_iter(f"{{{tenant}}}:*")])
        lost = placement._device.losses
        assert all(
            isinstance(reply, Exception)
            for reply in await asyncio.gather(decide(engine, asked[3:5]), return_exceptions=True)
        )
        async with asyncio.timeout(20):
            while not (engine.ready and placement.there):
                await asyncio.sleep(0.01)
        assert placement.sequence == 0 and placement._device.losses == lost  # which is no fault of the device
        decided = placement._device.batches
        found = await step(engine, asked[5:9])
        assert placement._device.batches == decided + 1
    assert await recomputed(redis, tenant, served, found) == 4


@pytest.mark.parametrize("forgotten", [False, True])
async def test_decisions_go_on_while_the_graph_is_copied(
    redis: Redis, tenant: str, served: dict[str, Product], past: History, there: dict[str, Product],
    monkeypatch: pytest.MonkeyPatch, forgotten: bool,
) -> None:  # fmt: skip
    """What they record reaches the copy last; where somebody is forgotten all is copied again."""
    asked = [e._replace(event_time_ms=0) for e in past.events if isinstance(e, Application) and e.product == "consumer"]
    taken, half, go_on = placed._taken, threading.Event(), threading.Event()

    def slow(kernels: Kernels, copy: Copy) -> DeviceGraph:
        half.set()
        assert go_on.wait(20)
        return taken(kernels, copy)

    placement = Placement(there["consumer"].scorer.device)
    async with engine_on(redis, tenant, there, past, placement) as (engine, _):
        await until_there(engine)
        found = await step(engine, asked[:20])
        monkeypatch.setattr(placed, "_taken", slow)
        placement._leave()
        await asyncio.to_thread(half.wait, 20)
        decided = placement._device.batches
        for i in range(20, 60, 4):
            found += await step(engine, asked[i : i + 4])
            await engine.report(Report(f"o{i}", asked[i - 3].application_id, "fraud_confirmed"))
        if forgotten:
            await engine.forget(TOKENIZER, Forgetting("somebody", "Li", None))
            found += await step(engine, asked[60:64])
        assert placement._device.batches == decided and not placement.there
        go_on.set()
        await until_there(engine)
        found += await step(engine, asked[64:80])
        assert placement._device.batches == decided + 1
    assert await recomputed(redis, tenant, served, found) == len(found) > 70


async def test_a_copy_that_fails_is_made_again(
    served: dict[str, Product], past: History, there: dict[str, Product], fault: Fault
) -> None:
    """Wherever it fails; until it is made the CPU decides."""
    device, schema = there["consumer"].scorer.device, served["consumer"].schema
    asked = [e for e in past.events if isinstance(e, Application) and e.product == "consumer"][:9]
    events = unpack([finish(pack_application(a), 0, i + 1) for i, a in enumerate(asked)], list(range(1, 10)))
    own, links = np.arange(1, 10), np.ones((9, schema.link_slots.size), dtype=np.bool_)
    placement, failed = Placement(device), 0
    placement.observe(events, own, links)
    for after in (*range(0, 20, 3), *range(20, 120, 9)):
        fault.after, fault.late = after, after % 2 == 1
        if await placement.return_to(asyncio.Lock()):
            placement._leave()
            continue
        failed += 1
        assert not device.working
        fault.after, fault.now = None, device._due
        assert device.retry() and await placement.return_to(asyncio.Lock())
        placement._leave()
    fault.after = None
    assert failed > 10

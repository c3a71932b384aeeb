"""The engine on a device that fails at every step there is: each request is answered, as the CPU answers it.

There is no CUDA here: kernels run by the shim and networks by ONNX Runtime on the CPU, behind the calls that a device
gets (tests/gpu_faults.py). The store is a real one.
"""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from redis.asyncio import Redis

from bench import history, world
from features import evidence
from features.application import Application, Report
from features.replay import History
from features.store import Store
from models import registry
from models.device import RETRY_SECONDS
from proto.miaopi.v1 import decision_pb2 as pb
from server import products
from server.batcher import Reply
from server.engine import Engine
from server.placement import Placement
from server.products import Product
from server.settings import Settings
from tests.cuda_shim import COMPILER
from tests.gpu_faults import Fault
from tests.test_engine import TOKENIZER, batches, decide, engine_on, essence

pytestmark = pytest.mark.skipif(COMPILER is None, reason="g++ is not installed: kernels were NOT run on the CPU")


@pytest.fixture(scope="module")
def served() -> dict[str, Product]:
    return products.load(Settings(device="cpu"))


@pytest.fixture(scope="module")
def past() -> History:
    """A small world of all its products."""
    made, of_product = world.build(11, 1000), history.schemas_by_product()
    known = history.profiles(made.profiles, of_product, TOKENIZER)
    return history.history(made.events[:400], known, of_product, TOKENIZER)


def on_device(served: dict[str, Product], fault: Fault) -> dict[str, Product]:
    """The same products on a device."""
    device, folder = fault.device(), Settings().bundles
    scorers = {
        p.schema.name: registry.load(folder / p.schema.name, p.bundle_version, p.schema, device)
        for p in served.values()
    }
    return {name: replace(p, scorer=scorers[p.schema.name]) for name, p in served.items()}


async def step(engine: Engine, batch: Sequence[Application | Report]) -> list[pb.DecideResponse]:
    if isinstance(batch[0], Report):
        await engine.report(batch[0])
        return []
    found = await decide(engine, [a for a in batch if isinstance(a, Application)])
    bodies = [reply.body if isinstance(reply, Reply) else b"" for reply in found]
    assert all(bodies), found
    return [pb.DecideResponse.FromString(body) for body in bodies]


async def told(store: Store, replies: Sequence[pb.DecideResponse]) -> list[tuple[object, ...]]:
    """All that is said and kept of decisions, but for what another log or moment says otherwise."""
    found = []
    for reply in replies:
        stored = await store.decision(reply.application_id)
        assert stored is not None
        facts, features = evidence.unpack(stored[1])
        reasons = [(r.code, r.text_en, r.contribution) for r in reply.reasons]
        probabilities = (reply.fraud_probability, reply.default_probability)
        found.append((essence(reply), reasons, probabilities, facts._replace(epoch=""), features.tobytes()))
    return found


async def back(engine: Engine, fault: Fault) -> None:
    """The device works again, and is taken again."""
    fault.after, device = None, engine._graph._device
    fault.now += RETRY_SECONDS
    assert not device.working and device.due and device.retry()
    async with engine._sequencer:
        await engine._graph.return_to()  # if the follower has not done it before
        assert engine._graph.there


async def test_no_step_at_which_the_device_may_fail_changes_a_reply(
    redis: Redis, tenant: str, served: dict[str, Product], past: History
) -> None:
    """Each batch is decided with the device failing one operation later than in the batch before: at once, or as CUDA
    does, where it is waited for. Then it comes back, its graph a copy of the CPU's.
    """
    parts, fault = batches(past.events, 3), Fault()
    async with engine_on(redis, tenant, served, past) as (engine, store):
        expected = [reply for batch in parts for reply in await step(engine, batch)]
        kept, graph = await told(store, expected), engine._graph.host.arrays()
    there = on_device(served, fault)
    placement = Placement(there["consumer"].scorer.device)
    found: list[pb.DecideResponse] = []
    losses, rounds, after = 0, 0, 0
    async with engine_on(redis, f"{tenant}-b", there, past, placement) as (engine, store):
        assert placement.there
        for batch in parts:
            fault.after = None if isinstance(batch[0], Report) else after
            found += await step(engine, batch)
            if not isinstance(batch[0], Report):
                print(len(batch), after, fault.failed[-1:], fault.after)
            if placement.there:
                rounds, after = rounds + (fault.after is not None), 0 if fault.after is not None else after
                fault.late = rounds % 2 == 1
            else:
                losses, after = losses + 1, after + 1
                assert placement._device.losses == losses
                await back(engine, fault)
            fault.after = None
        assert await redis.xlen(f"{{{tenant}-b}}:log") == await redis.xlen(f"{{{tenant}}}:log") == len(past.events)
        assert await told(store, found) == kept
        for name, array in engine._graph.host.arrays().items():
            assert array.tobytes() == graph[name].tobytes(), name
    print(losses, rounds, placement._device.batches, sorted(set(fault.failed)))

"""A device that fails, fails again, lies and comes back: every request is answered, as the CPU answers it.

There is no CUDA here. What stands for the device is onnxruntime's own session on the CPU behind the same binding, and
only the failure is made up: it is raised where onnxruntime raises it, as its exception.
"""

import asyncio
import contextlib
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnxruntime
import pytest
from grpc_health.v1 import health, health_pb2
from onnxruntime.capi import onnxruntime_pybind11_state as onnx_errors
from pydantic import ValidationError
from redis.asyncio import Redis

from bench import history, world
from features.replay import History
from features.schema import Schema
from models import registry
from models.bundle import Bundle
from models.device import RETRY_SECONDS, RETRY_SECONDS_MAX, Device, DeviceError, open_session
from models.probe import random_snapshot
from models.scorer import Scorer
from server import __main__ as server
from server import device as served_device
from server import products
from server.settings import Settings
from tests.conftest import demo_bundle
from tests.test_engine import TOKENIZER, engine_on, essence, run

ILLEGAL = onnx_errors.EPFail("CUDA failure 700: an illegal memory access was encountered")


@dataclass
class Fault:
    """What happens to the device: `error` is raised after `healthy` batches more; `shift` is added to what it says."""

    error: Exception | None = None
    healthy: int = 0
    shift: float = 0.0
    batches: int = 0
    opened: int = 0
    now: float = 0.0

    def open(self, model: bytes, index: int | None) -> Any:
        if index is None:
            return open_session(model, None)
        self.opened += 1
        self.check()
        return _OnDevice(open_session(model, None), self)

    def check(self) -> None:
        if self.error is not None and self.healthy <= 0:
            raise self.error
        self.healthy -= 1

    def device(self, choice: str = "cuda:0") -> Device:
        return Device(choice, self.open, lambda: self.now)


@dataclass
class _OnDevice:
    session: onnxruntime.InferenceSession
    fault: Fault

    def run_with_iobinding(self, binding: Any) -> None:
        self.fault.check()
        self.fault.batches += 1
        self.session.run_with_iobinding(binding)

    def io_binding(self) -> Any:
        return _Shifted(self.session.io_binding(), self.fault) if self.fault.shift else self.session.io_binding()

    def get_outputs(self) -> Any:
        return self.session.get_outputs()


class _Shifted:
    def __init__(self, binding: Any, fault: Fault) -> None:
        self._binding, self._iobinding, self._fault = binding, binding._iobinding, fault

    def __getattr__(self, name: str) -> Any:
        return getattr(self._binding, name)

    def copy_outputs_to_cpu(self) -> list[Any]:
        return [out + self._fault.shift for out in self._binding.copy_outputs_to_cpu()]


@pytest.fixture(scope="module")
def bundle(consumer: Schema) -> Bundle:
    return Bundle.load(demo_bundle("consumer"), consumer)


def same(one: Scorer, other: Scorer, schema: Schema, seed: int) -> None:
    rows = random_snapshot(schema, 9, seed)
    np.testing.assert_array_equal(one.score(rows).fraud_probability, other.score(rows).fraud_probability)


def test_a_failing_device_is_left_and_taken_again(bundle: Bundle, consumer: Schema) -> None:
    fault, cpu = Fault(), Scorer(bundle)
    device = fault.device()
    scorer = Scorer(bundle, device)
    same(scorer, cpu, consumer, 1)
    before = fault.batches
    assert before > 1 and (device.working, device.losses) == (True, 0)

    fault.error = ILLEGAL
    same(scorer, cpu, consumer, 2)
    assert (device.working, device.losses) == (False, 1) and "CUDA failure 700" in device.problem
    fault.error = None
    same(scorer, cpu, consumer, 3)
    assert fault.batches == before and device.cpu_batches == 2  # not touched again before its time

    due = [device.due]
    fault.now += RETRY_SECONDS
    assert [*due, device.due, device.retry()] == [False, True, True]
    same(scorer, cpu, consumer, 4)
    assert fault.batches > before and device.cpu_batches == 2


def test_retries_grow_rarer_while_the_device_stays_away(bundle: Bundle, consumer: Schema) -> None:
    fault = Fault()
    device = fault.device()
    scorer = Scorer(bundle, device)
    fault.error = onnx_errors.Fail("CUDA failure 100: no CUDA-capable device is detected")
    scorer.score(random_snapshot(consumer, 2, 1))
    pauses = []
    for _ in range(9):
        start = fault.now
        while not device.due:
            fault.now += 1.0
        pauses.append(fault.now - start)
        assert not device.retry()
    assert pauses == [min(RETRY_SECONDS * 2**i, RETRY_SECONDS_MAX) for i in range(9)]
    assert device.losses == 1


def test_a_device_that_says_otherwise_does_not_decide(bundle: Bundle, consumer: Schema) -> None:
    """Neither at the start, by the probe, nor after it was lost."""
    with pytest.raises(DeviceError, match=r"device and CPU differ by 0\.01"):
        Scorer(bundle, Fault(shift=0.01).device())
    fault = Fault()
    device = fault.device()
    scorer = Scorer(bundle, device)
    fault.error = ILLEGAL
    scorer.score(random_snapshot(consumer, 2, 1))
    fault.error, fault.shift = None, float("nan")
    assert not device.retry()
    same(scorer, Scorer(bundle), consumer, 2)


def test_a_bundle_that_comes_while_the_device_is_away_enters_with_it(bundle: Bundle, consumer: Schema) -> None:
    fault, cpu = Fault(), Scorer(bundle)
    device = fault.device()
    first = Scorer(bundle, device)
    fault.error = ILLEGAL
    first.score(random_snapshot(consumer, 2, 1))
    second = Scorer(bundle, device)
    same(second, cpu, consumer, 2)
    fault.error, before = None, fault.batches
    assert device.retry()
    entered = fault.batches
    same(second, cpu, consumer, 3)
    assert fault.batches > entered > before


def test_a_bundle_met_by_a_failure_loads_on_the_cpu(bundle: Bundle, consumer: Schema) -> None:
    fault = Fault()
    device = fault.device()
    Scorer(bundle, device)
    fault.error = ILLEGAL
    same(Scorer(bundle, device), Scorer(bundle), consumer, 1)
    assert not device.working


@pytest.mark.parametrize("choice", ["gpu", "cuda", "cuda:-1", "cuda:x", ""])
def test_another_choice_is_refused(choice: str) -> None:
    with pytest.raises(ValueError, match="is not auto, cpu or cuda:N"):
        Device(choice)
    with pytest.raises(ValidationError, match="device"):
        Settings(device=choice)


def test_without_a_device_auto_is_the_cpu_and_cuda_refuses(bundle: Bundle, consumer: Schema) -> None:
    """With onnxruntime as it is installed here."""
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has CUDA")
    auto = Device("auto")
    same(Scorer(bundle, auto), Scorer(bundle), consumer, 1)
    assert auto.name == "cpu" and auto.working and "has no CUDA" in auto.problem
    with pytest.raises(DeviceError, match=r"cuda:1 cannot be used: .*has no CUDA"):
        products.load(Settings(device="cuda:1"))


def small_world() -> History:
    made, of_product = world.build(11, 1000), history.schemas_by_product()
    known = history.profiles(made.profiles, of_product, TOKENIZER)
    return history.history(made.events[:400], known, of_product, TOKENIZER)


async def test_no_request_fails_when_the_device_does(redis: Redis, tenant: str) -> None:
    """Decided by the engine on a real store, the device lost in the middle and back later: the CPU's own decisions."""
    past, fault = small_world(), Fault()
    device, on_cpu = fault.device(), products.load(Settings(device="cpu"))
    folder = Settings().bundles
    on_device = {
        name: replace(p, scorer=registry.load(folder / p.schema.name, p.bundle_version, p.schema, device))
        for name, p in on_cpu.items()
    }
    async with engine_on(redis, tenant, on_cpu, past) as (engine, _):
        expected = await run(engine, past.events, 3)
    fault.error, fault.healthy = ILLEGAL, 5
    async with engine_on(redis, f"{tenant}-b", on_device, past) as (engine, _):
        half = len(past.events) // 2
        found = await run(engine, past.events[:half], 3)
        assert (device.working, device.losses) == (False, 1) and device.cpu_batches > 5
        fault.error, fault.now = None, RETRY_SECONDS
        assert device.due
        follower = asyncio.create_task(served_device.follow(device))
        async with asyncio.timeout(20):
            while not device.working:
                await asyncio.sleep(0.01)
        before = fault.batches
        found += await run(engine, past.events[half:], 3)
        assert fault.batches > before
        follower.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await follower
    assert [essence(one) for one in found] == [essence(one) for one in expected]
    assert [one.fraud_probability for one in found] == [one.fraud_probability for one in expected]


async def test_health_says_that_the_cpu_stands_in() -> None:
    device, servicer = Fault().device(), health.aio.HealthServicer()
    watching = asyncio.create_task(server._watch(servicer, server._serving({}, device)))

    async def status() -> int:
        await asyncio.sleep(2 * server.HEALTH_SECONDS)
        asked = health_pb2.HealthCheckRequest(service=served_device.SERVICE)
        return int((await servicer.Check(asked, None)).status)

    assert await status() == health_pb2.HealthCheckResponse.SERVING
    device.fail(ILLEGAL)
    assert await status() == health_pb2.HealthCheckResponse.NOT_SERVING
    watching.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await watching

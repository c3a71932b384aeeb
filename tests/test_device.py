"""A device that fails, fails again, lies and comes back, and what the service says of it.

There is no CUDA here: tests/gpu_faults.py stands for the device. What it means for decisions: test_placement.py.
"""

import asyncio
import contextlib
import os
import signal
from pathlib import Path

import grpc
import onnxruntime
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from pydantic import ValidationError
from structlog.testing import capture_logs

from bench.serving import SECRET
from features.schema import Schema
from models.bundle import Bundle
from models.device import RETRY_SECONDS, RETRY_SECONDS_MAX, Device, DeviceError
from models.device_scorer import DeviceScorer
from models.scorer import Scorer
from proto.miaopi.v1.decision_pb2_grpc import DecisionServiceStub
from server import __main__ as server
from server import device as served_device
from server import products
from server.settings import Settings
from tests.conftest import demo_bundle
from tests.cuda_shim import COMPILER
from tests.gpu_faults import ILLEGAL, Fault
from tests.requests import loan_request

shim = pytest.mark.skipif(COMPILER is None, reason="g++ is not installed: kernels were NOT run on the CPU")


@pytest.fixture(scope="module")
def bundle(consumer: Schema) -> Bundle:
    return Bundle.load(demo_bundle("consumer"), consumer)


@shim
def test_a_failing_device_is_left_and_taken_again(bundle: Bundle) -> None:
    fault = Fault()
    device = fault.device()
    there = Scorer(bundle, device).there
    assert there is not None and state(device, there) == (True, 0, True)

    fault.after, before = 0, fault.operations
    device.fail(ILLEGAL)
    assert state(device, there) == (False, 1, False) and "CUDA_ERROR" in device.problem
    due = [device.due]
    assert fault.operations == before  # not touched again before its time
    fault.now += RETRY_SECONDS
    due += [device.due, device.retry(), device.due]
    assert state(device, there) == (False, 1, False)

    fault.after = None
    fault.now += 2 * RETRY_SECONDS
    assert [*due, device.due, device.retry()] == [False, True, False, False, True, True]
    assert state(device, there) == (True, 1, True)


def state(device: Device, there: DeviceScorer) -> tuple[bool, int, bool]:
    """Whether the device works, how often it was lost, and whether somebody may score there."""
    return device.working, device.losses, device.kernels is not None and there.kernels is device.kernels


@shim
def test_retries_grow_rarer_while_the_device_stays_away(bundle: Bundle) -> None:
    fault = Fault()
    device = fault.device()
    scorer = Scorer(bundle, device)
    fault.after = 0
    device.fail(ILLEGAL)
    assert [waited(device, fault) for _ in range(9)] == PAUSES
    assert device.losses == 1 and scorer.there is not None


@shim
def test_retries_grow_rarer_where_what_comes_back_is_lost_at_once(bundle: Bundle) -> None:
    """As where a graph does not fit; who has worked for as long as it was waited for starts anew."""
    fault = Fault()
    device = fault.device()
    scorer = Scorer(bundle, device)
    pauses = []
    for _ in range(9):
        device.fail(ILLEGAL)
        pauses.append(waited(device, fault))
        assert device.working
        fault.now += 1.0
    assert pauses == PAUSES
    fault.now += RETRY_SECONDS_MAX
    device.fail(ILLEGAL)
    assert waited(device, fault) == RETRY_SECONDS and scorer.there is not None


PAUSES = [min(RETRY_SECONDS * 2**i, RETRY_SECONDS_MAX) for i in range(9)]


def waited(device: Device, fault: Fault) -> float:
    """Seconds until it is tried again, which is done."""
    start = fault.now
    while not device.due:
        fault.now += 1.0
    device.retry()
    return fault.now - start


@shim
def test_a_device_that_says_otherwise_does_not_decide(bundle: Bundle) -> None:
    """Neither at the start, by the probe, nor after it was lost; in trees any bit counts."""
    fault = Fault()
    fault.shift = 0.01
    with pytest.raises(DeviceError, match=r"device and CPU differ by 0\.01"):
        Scorer(bundle, fault.device())
    for kernel in ("fill", "find_leaf", "contribute"):
        fault = Fault()
        fault.left_out = frozenset({kernel})
        with pytest.raises(DeviceError, match="cannot be used"):
            Scorer(bundle, fault.device())
    fault = Fault()
    device = fault.device()
    scorer = Scorer(bundle, device)
    device.fail(ILLEGAL)
    fault.shift = float("nan")
    assert not device.retry() and scorer.there is not None
    fault.shift, fault.left_out = 0.0, frozenset({"add_leaves"})
    assert not device.retry() and "differ in the trees" in device.problem


@shim
def test_a_bundle_that_comes_while_the_device_is_away_enters_with_it(bundle: Bundle) -> None:
    fault = Fault()
    device = fault.device()
    first = Scorer(bundle, device).there
    device.fail(ILLEGAL)
    second = Scorer(bundle, device).there
    assert first is not None and second is not None and second.kernels is None
    assert device.retry()
    assert first.kernels is second.kernels is device.kernels


@shim
@pytest.mark.parametrize("after", [0, 5, 40, 70])
def test_a_bundle_met_by_a_failure_loads_on_the_cpu(bundle: Bundle, after: int) -> None:
    fault = Fault()
    device = fault.device()
    first = Scorer(bundle, device)
    fault.after = after
    second = Scorer(bundle, device)
    assert not device.working and device.losses == 1
    assert first.there is not None and second.there is not None and second.there.kernels is None


@pytest.mark.parametrize("choice", ["gpu", "cuda", "cuda:-1", "cuda:x", ""])
def test_another_choice_is_refused(choice: str) -> None:
    with pytest.raises(ValueError, match="is not auto, cpu or cuda:N"):
        Device(choice)
    with pytest.raises(ValidationError, match="device"):
        Settings(device=choice)


def test_without_a_device_auto_is_the_cpu_and_cuda_refuses(bundle: Bundle) -> None:
    """With onnxruntime as it is installed here."""
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has CUDA")
    auto = Device("auto")
    assert Scorer(bundle, auto).there is None
    assert auto.name == "cpu" and auto.working and "has no CUDA" in auto.problem
    with pytest.raises(DeviceError, match=r"cuda:1 cannot be used: .*has no CUDA"):
        products.load(Settings(device="cuda:1"))


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


@shim
async def test_the_service_says_where_it_decides(
    redis_url: str, tenant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From its start to its end, over gRPC; no call fails while the device is lost and comes back."""
    fault, where, states = Fault(), f"unix:{tmp_path}/server.sock", health_pb2.HealthCheckResponse
    monkeypatch.setattr(products, "Device", fault.device)
    monkeypatch.setenv("REDIS_URL", redis_url)
    settings = Settings(listen=where, token_secrets={tenant: SECRET}, device="cuda:0")
    with capture_logs() as logs:
        serving = asyncio.create_task(server.serve(settings))
        async with grpc.aio.insecure_channel(where) as channel:
            stub, health = DecisionServiceStub(channel), health_pb2_grpc.HealthStub(channel)

            async def until(service: str, status: int) -> None:
                asked = health_pb2.HealthCheckRequest(service=service)
                async with asyncio.timeout(30):
                    while (await health.Check(asked, wait_for_ready=True)).status != status:
                        await asyncio.sleep(0.02)

            async def decided(name: str) -> None:
                for i in range(3):
                    reply = await stub.Decide(loan_request(f"{name} {i}", tenant=tenant), timeout=10)
                    assert reply.log_position.sequence > 0

            await until("", states.SERVING)
            await until(served_device.SERVICE, states.SERVING)
            await decided("there")
            fault.after = 30
            await decided("lost")
            await until(served_device.SERVICE, states.NOT_SERVING)
            await until("", states.SERVING)
            fault.after, fault.now = None, RETRY_SECONDS
            await until(served_device.SERVICE, states.SERVING)
            await decided("back")
        os.kill(os.getpid(), signal.SIGTERM)
        await serving
    said = {entry["event"]: entry for entry in logs}
    assert (said["serving"]["device"], said["serving"]["on_cpu"]) == ("cuda:0", [])
    assert said["device_lost"]["problem"] and said["device_back"]["losses"] == 1
    assert said["stopped"]["device_batches"] > 3 and said["stopped"]["cpu_batches"] >= 1
    assert [entry["event"] for entry in logs].count("graph_on_device") >= 2

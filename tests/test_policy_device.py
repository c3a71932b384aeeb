"""A policy decides the same at a device as without; where the device fails or says something else, the CPU goes on."""

import random
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.gpu_policy import amounts, odd_values
from features.place import Place
from gpu_kernels.device import Cuda, Device, Launch, NoDeviceError
from policy import device as places
from policy import kernel
from policy.decide import Policy
from policy.device import DeviceJudge, differences
from policy.inputs import Asked
from policy.program import Judged
from tests.gpu_devices import NAMES, opened
from tests.test_policy_decide import policy_of, schema_of
from tests.test_policy_properties import asked_of, inputs_of
from tests.test_policy_tables import ROOT

LEAST = 64  # rows that go to the device here


class Faulty:
    """A device on which, after `healthy` calls of `method`, each raises `error`; without one, what it says is wrong."""

    def __init__(self, method: str, error: Exception | None, healthy: int = 0) -> None:
        self._device, self._method, self._error, self.healthy, self.launches = opened("shim"), method, error, healthy, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._device, name)

    def _called(self, method: str) -> None:
        if self._error is not None and method == self._method:
            self.healthy -= 1
            if self.healthy < 0:
                raise self._error

    def kernels(self, source: Path) -> Launch:
        self._called("kernels")
        launch = self._device.kernels(source)

        def counted(*arguments: Any) -> None:
            self._called("launch")
            self.launches += 1
            launch(*arguments)

        return counted

    def host(self, array: Any) -> Any:
        self._called("host")
        found = self._device.host(array)
        if self._error is None and found.dtype == np.int8:
            found[0, 0] ^= 1
        return found


def decided_at(monkeypatch: pytest.MonkeyPatch, device: Device, batches: int) -> tuple[Place, list[str], list[bool]]:
    """Batches of the consumer policy decided at a place with that device: the place, what it warned of, and which came
    out as without it.
    """
    monkeypatch.setattr(places, "LEAST", LEAST)
    policy = Policy.load(ROOT / "policy/products/consumer", "consumer", schema_of("consumer"))
    warned, same, rng = list[str](), list[bool](), random.Random(4)
    place = Place(device, "cuda:0", warned.append)
    there = DeviceJudge(lambda: place, policy.compiled.names)
    for _ in range(batches):
        parts = [(inputs_of(rng, policy, "consumer"), asked_of(rng)) for _ in range(2)]
        values = np.concatenate([values for values, _ in parts])
        asked = Asked(*(np.concatenate([getattr(asked, f.name) for _, asked in parts]) for f in fields(Asked)))
        policy.judge = there
        found = policy.decide(asked, values)
        policy.judge = kernel.judge
        expected = policy.decide(asked, values)
        same.append(all(found[i] == expected[i] for i in range(len(values))))
    return place, warned, same


@pytest.mark.parametrize("name", NAMES)
def test_a_policy_decides_the_same_at_a_device(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    place, warned, same = decided_at(monkeypatch, opened(name), 3)
    assert place.device is not None and not warned and same == [True] * 3


@pytest.mark.parametrize(
    ("method", "error", "healthy", "launches"),
    [
        ("kernels", RuntimeError("NVRTC_ERROR_COMPILATION"), 0, 0),
        ("launch", RuntimeError("cudaErrorIllegalAddress"), 2, 2),
        ("host", RuntimeError("cudaErrorIllegalAddress"), 7, 2),  # as an error of a kernel, which a copy meets
        ("launch", MemoryError("Out of memory allocating 1,024 bytes"), 1, 1),
    ],
)
def test_a_device_that_fails_costs_no_decision(
    monkeypatch: pytest.MonkeyPatch, method: str, error: Exception, healthy: int, launches: int
) -> None:
    device = Faulty(method, error, healthy)
    place, warned, same = decided_at(monkeypatch, device, 5)
    assert same == [True] * 5 and place.device is None and device.launches == launches
    assert warned == [f"cuda:0 failed, the CPU goes on: {type(error).__name__}: {error}"]


def test_a_device_that_says_something_else_is_not_entered(monkeypatch: pytest.MonkeyPatch) -> None:
    device = Faulty("", None)
    place, warned, same = decided_at(monkeypatch, device, 3)
    assert same == [True] * 3 and place.device is None and device.launches == 1
    assert warned == ["cuda:0 failed, the CPU goes on: DifferentError: device and CPU differ in status"]


def test_small_batches_open_no_device() -> None:
    def never() -> Place:
        raise AssertionError("opened")

    program, plan, names, votes_max = policy_of("consumer").compiled
    rng = np.random.default_rng(0)
    values, asked = odd_values(rng, policy_of("consumer"), 40, 0.1), amounts(rng, 40)
    one, other = (Judged.empty(40, program, votes_max) for _ in range(2))
    DeviceJudge(never, names)(program, plan, values, asked, one)
    kernel.judge(program, plan, values, asked, other)
    assert differences(one, other) == []


def test_a_device_that_is_not_there_leaves_the_policy_here(capsys: pytest.CaptureFixture[str]) -> None:
    try:
        Cuda()
    except NoDeviceError:
        pass
    else:
        pytest.skip("there is a GPU")
    policy = Policy.load(ROOT / "policy/products/card_transaction", "card_transaction", schema_of("card_transaction"))
    places.run_at(policy, "cuda:0")
    rng = np.random.default_rng(0)
    values, asked = odd_values(rng, policy, places.LEAST, 0.1), amounts(rng, places.LEAST)
    nothing = np.zeros(len(asked), dtype=np.int64)
    decided = policy.decide(Asked(asked, nothing + 1, nothing, nothing, nothing, nothing), values)
    assert set(decided.outcome.tolist()) == {kernel.APPROVE, kernel.REVIEW, kernel.DECLINE}
    assert "warning: cuda:0 cannot be opened here, the CPU decides: " in capsys.readouterr().err

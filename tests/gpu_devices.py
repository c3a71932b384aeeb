"""Where kernels are tested: on the CPU by the shim and, by the same test body, on a CUDA device where there is one."""

from functools import cache

import pytest

from gpu_kernels.device import Cuda, Device, NoDeviceError
from models.device import Device as RunsOn
from models.device import Network
from tests.cuda_shim import COMPILER, Shim

NAMES = ("shim", "cuda")


def opened(name: str, seed: int = 0) -> Device:
    """The device of that name; the test is skipped where it is not there."""
    if name == "shim":
        if COMPILER is None:
            pytest.skip("g++ is not installed (apt-get install g++): kernels were NOT run on the CPU")
        return Shim(seed)
    try:
        return _cuda()
    except NoDeviceError as error:
        pytest.skip(f"kernels were NOT run on a GPU: {error}")


def device_of(kernels: Device) -> RunsOn:
    """One that runs kernels and networks there."""
    return RunsOn("cuda:0", lambda _: kernels)


@pytest.fixture
def networks_by_onnx(monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime runs the CPU's networks too, as it does the shim's: then all replies can be compared to the bit."""
    monkeypatch.setattr(Network, "run", Network.by_onnx)


@cache
def _cuda() -> Cuda:
    """One for the process: kernels are compiled once."""
    return Cuda()

"""Where kernels are tested: on the CPU by the shim and, by the same test body, on a CUDA device where there is one."""

from functools import cache

import pytest

from gpu_kernels.device import Cuda, Device, NoDeviceError
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


@cache
def _cuda() -> Cuda:
    """One for the process: kernels are compiled once."""
    return Cuda()

"""Kernels on the CPU: .cu files compiled by g++ with cuda_shim.h, their threads run in a shuffled order."""

import ctypes
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu_kernels.device import BLOCK, Launch
from gpu_kernels.layout import FOLDER

HEADER = Path(__file__).parent / "cuda_shim.h"
# no fused multiply-add, as on the device
FLAGS = (
    "-std=c++17", "-O1", "-pthread", "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", "-Wno-unused-function",
    "-ffp-contract=off", "-g",
)  # fmt: skip
SANITIZERS = {"undefined": ("-fsanitize=undefined", "-fno-sanitize-recover=all"), "thread": ("-fsanitize=thread",)}
COMPILER = shutil.which("g++")


@cache
def library(source: Path, sanitizer: str) -> ctypes.CDLL:
    """The kernels of a .cu as a library of the host; one for the process."""
    assert COMPILER is not None
    built = Path(tempfile.mkdtemp(prefix="miaopi-shim-")) / f"{source.stem}.so"
    given = ("-include", str(HEADER), f"-I{FOLDER}", "-x", "c++", str(source), "-o", str(built))
    subprocess.run([COMPILER, *FLAGS, *SANITIZERS[sanitizer], *given], check=True)
    return ctypes.CDLL(str(built))


class Shim:
    """A device of gpu_kernels.device.Device on NumPy arrays; `workers` run a kernel's threads at the same time.

    Undefined behaviour ends the process, or, with the sanitizer "thread", what two threads touch without atomics is
    reported at its end.
    """

    xp: Any = np
    memory, index, stream = "cpu", 0, 0

    def __init__(self, seed: int = 0, workers: int = 1, sanitizer: str = "undefined") -> None:
        self._workers, self._sanitizer = workers, sanitizer
        self._rng = np.random.default_rng(seed)

    def kernels(self, source: Path) -> Launch:
        loaded = library(source, self._sanitizer)

        def launch(kernel: str, threads: int, first: int, second: int) -> None:
            if threads <= 0:
                return
            count = -(-threads // BLOCK) * BLOCK
            order = self._rng.permutation(count)
            loaded.run_threads(
                ctypes.cast(loaded[kernel], ctypes.c_void_p), ctypes.c_void_p(first), ctypes.c_void_p(second),
                ctypes.c_longlong(threads), ctypes.c_void_p(order.ctypes.data), ctypes.c_longlong(count),
                ctypes.c_uint(BLOCK), ctypes.c_int(self._workers),
            )  # fmt: skip

        return launch

    def address(self, array: Any) -> int:
        return int(array.ctypes.data)

    def fill(self, array: Any, host: NDArray[Any]) -> None:
        array[:] = host

    def host(self, array: Any) -> NDArray[Any]:
        return np.array(array)

    def deciding(self) -> AbstractContextManager[None]:
        return nullcontext()

    def beside(self) -> AbstractContextManager[None]:
        return nullcontext()

    def staging(self, size: int) -> NDArray[np.uint8]:
        return np.empty(size, dtype=np.uint8)

    def fetch(self, arrays: Sequence[Any]) -> list[NDArray[Any]]:
        return [np.array(array) for array in arrays]

"""Where kernels run: a CUDA device through CuPy, which is imported when one is opened and never before.

Anything with the methods of Cuda runs the launchers; the tests have one that runs kernels on the CPU.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from gpu_kernels.compiler import compiled

BLOCK = 128
Launch = Callable[[str, int, int, int], None]


class Device(Protocol):
    """What the launchers need."""

    @property
    def xp(self) -> Any:
        """numpy or cupy, whose arrays the device's kernels work on."""
        ...

    def kernels(self, source: Path) -> Launch:
        """`launch(kernel, threads, address of the first struct, address of the second)` for a .cu."""
        ...

    def address(self, array: Any) -> int:
        """Of an array's first element."""
        ...

    def fill(self, array: Any, host: NDArray[Any]) -> None:
        """Copy a NumPy array to an array of the device."""
        ...

    def host(self, array: Any) -> NDArray[Any]:
        """The array as a NumPy array, once all before is done."""
        ...


class NoDeviceError(RuntimeError):
    """There is no CUDA device, no driver or no CuPy; the message says which."""


class Cuda:
    """The CUDA device `index`, on the current stream. Raises NoDeviceError; `kernels` raises CompilerError."""

    def __init__(self, index: int = 0) -> None:
        try:
            import cupy
        except ImportError as error:
            raise NoDeviceError(f"CuPy is not installed (extra gpu): {error}") from error
        try:
            count = cupy.cuda.runtime.getDeviceCount()
        except cupy.cuda.runtime.CUDARuntimeError as error:
            raise NoDeviceError(f"no CUDA device: {error}") from error
        if index >= count:
            raise NoDeviceError(f"no CUDA device {index}: there are {count}")
        cupy.cuda.Device(index).use()
        self.xp = cupy
        self._architecture = f"sm_{cupy.cuda.Device(index).compute_capability}"
        self._loaded: dict[Path, Launch] = {}
        self.name = cupy.cuda.runtime.getDeviceProperties(index)["name"].decode()

    def kernels(self, source: Path) -> Launch:
        """Compiled by NVRTC for the device's architecture when first asked for, which takes about a second."""
        if source not in self._loaded:
            self._loaded[source] = self._load(source)
        return self._loaded[source]

    def _load(self, source: Path) -> Launch:
        module = self.xp.cuda.Module()
        module.load(compiled(source, self._architecture).cubin)
        functions: dict[str, Any] = {}

        def launch(kernel: str, threads: int, first: int, second: int) -> None:
            if threads <= 0:
                return
            if kernel not in functions:
                functions[kernel] = module.get_function(kernel)
            arguments = (np.uint64(first), np.uint64(second), np.int64(threads))
            functions[kernel]((-(-threads // BLOCK),), (BLOCK,), arguments)

        return launch

    def address(self, array: Any) -> int:
        return int(array.data.ptr)

    def fill(self, array: Any, host: NDArray[Any]) -> None:
        array.set(host)

    def host(self, array: Any) -> NDArray[Any]:
        found: NDArray[Any] = self.xp.asnumpy(array)
        return found

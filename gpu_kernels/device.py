"""Where kernels run: a CUDA device through CuPy, which is imported when one is opened and never before.

Anything with the methods of Cuda runs the launchers; the tests have one that runs kernels on the CPU. Work of decisions
is on one stream, in the order it was asked for; what is only brought there goes on streams of its own, beside it.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from gpu_kernels.compiler import compiled

BLOCK = 128
STAGED_BYTES = 1 << 26  # of copies under way from pinned memory after which they are waited for
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

    @property
    def memory(self) -> str:
        """What ONNX Runtime calls its memory."""
        ...

    @property
    def index(self) -> int:
        """Its number."""
        ...

    @property
    def stream(self) -> int:
        """Address of the stream of decisions, 0 where there are no streams."""
        ...

    def deciding(self) -> AbstractContextManager[None]:
        """What this thread asks for within goes on the stream of decisions."""
        ...

    def beside(self) -> AbstractContextManager[None]:
        """What this thread asks for within goes on a stream of its own, and is done at the end."""
        ...

    def staging(self, size: int) -> NDArray[np.uint8]:
        """So many bytes of the host to copy from, pinned; they stay as they are until the next wait."""
        ...

    def fetch(self, arrays: Sequence[Any]) -> list[NDArray[Any]]:
        """Some arrays as NumPy arrays, with one wait for all that was asked for before."""
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
        self.xp, self.index, self.memory = cupy, index, "cuda"
        self._decisions = cupy.cuda.Stream(non_blocking=True)
        self._staged = threading.local()  # a thread waits for what it asked for alone
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

    @property
    def stream(self) -> int:
        return int(self._decisions.ptr)

    @contextmanager
    def deciding(self) -> Iterator[None]:
        with self.xp.cuda.Device(self.index), self._decisions:
            yield

    @contextmanager
    def beside(self) -> Iterator[None]:
        with self.xp.cuda.Device(self.index), self.xp.cuda.Stream(non_blocking=True):
            yield
            self._wait()

    def staging(self, size: int) -> NDArray[np.uint8]:
        held: list[NDArray[np.uint8]] = self._staged.__dict__.setdefault("held", [])
        if sum(array.nbytes for array in held) > STAGED_BYTES:
            self._wait()
        held.append(self._pinned(size))
        return held[-1]

    def fetch(self, arrays: Sequence[Any]) -> list[NDArray[Any]]:
        found = [self._pinned(array.nbytes).view(array.dtype).reshape(array.shape) for array in arrays]
        for array, into in zip(arrays, found, strict=True):
            if array.size:
                array.get(out=into, blocking=False)
        self._wait()
        return found

    def _pinned(self, size: int) -> NDArray[np.uint8]:
        """It goes back to CuPy's pool with the last array that shows it."""
        return np.frombuffer(self.xp.cuda.alloc_pinned_memory(max(size, 1)), dtype=np.uint8, count=size)

    def _wait(self) -> None:
        """For all that this thread's stream was asked for; what failed there raises here."""
        self.xp.cuda.get_current_stream().synchronize()
        self._staged.__dict__.pop("held", None)

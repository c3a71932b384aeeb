"""A device that fails when it is told to: the shim's kernels and ONNX Runtime's own sessions on the CPU behind the same
calls, and a failure where CuPy or ONNX Runtime would raise theirs.
"""

import ctypes
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as onnx_errors

from gpu_kernels.device import Launch
from models.device import Device, open_session
from tests.cuda_shim import Shim

ALLOCATE = ("empty", "zeros", "full", "arange", "asarray", "array", "ascontiguousarray")
ERRORS = {
    "memory": MemoryError("out of memory allocating 1,024 bytes"),
    "network": onnx_errors.EPFail("CUDA failure 700: an illegal memory access was encountered"),
    "session": onnx_errors.Fail("CUDA failure 100: no CUDA-capable device is detected"),
}
ILLEGAL = RuntimeError("CUDA_ERROR_ILLEGAL_ADDRESS: an illegal memory access was encountered")


class Fault:
    """What happens to the device. after: operations that go well before it fails, None where it does not; then each
    fails until it is None again. late: as CUDA does, only what waits says so, and all between does nothing. shift is
    added to what networks say. left_out: kernels that do nothing. failed: kinds of operations that failed first.
    """

    def __init__(self) -> None:
        self.after: int | None = None
        self.late, self.shift, self.now = False, 0.0, 0.0
        self.left_out: frozenset[str] = frozenset()
        self.operations = self.networks = 0
        self.failed: list[str] = []
        self._down = False

    def device(self, choice: str = "cuda:0") -> Device:
        return Device(choice, self.opened, self.session, lambda: self.now)

    def opened(self, index: int) -> "FailingShim":
        self.does("open", waits=True)
        return FailingShim(self)

    def session(self, model: bytes, kernels: Any) -> Any:
        self.does("session", waits=True)
        return _Session(open_session(model), self)

    def does(self, kind: str, waits: bool = False) -> bool:
        """Count an operation; whether it happens. Raises as CuPy or ONNX Runtime does where it is to fail."""
        self.operations += 1
        if self.after is None:
            self._down = False
            return True
        if self.after > 0:
            self.after -= 1
            return True
        if not self._down:
            self._down = True
            self.failed.append(kind)
        if self.late and not waits:
            return False
        raise ERRORS.get(kind, ILLEGAL)


class FailingShim(Shim):
    def __init__(self, fault: Fault) -> None:
        super().__init__()
        self._fault, self.xp = fault, _Arrays(fault)

    def kernels(self, source: Path) -> Launch:
        launch = super().kernels(source)

        def failing(kernel: str, threads: int, first: int, second: int) -> None:
            if threads > 0 and self._fault.does(kernel) and kernel not in self._fault.left_out:
                launch(kernel, threads, first, second)

        return failing

    def fill(self, array: Any, host: NDArray[Any]) -> None:
        if self._fault.does("copy there"):
            super().fill(array, host)

    def staging(self, size: int) -> NDArray[np.uint8]:
        self._fault.does("memory", waits=True)
        return super().staging(size)

    def host(self, array: Any) -> NDArray[Any]:
        self._fault.does("wait", waits=True)
        return super().host(array)

    def fetch(self, arrays: Sequence[Any]) -> list[NDArray[Any]]:
        for _ in arrays:
            self._fault.does("copy back")
        self._fault.does("wait", waits=True)
        return super().fetch(arrays)


class _Arrays:
    """NumPy, in which memory may run out."""

    def __init__(self, fault: Fault) -> None:
        self._fault = fault

    def __getattr__(self, name: str) -> Any:
        made = getattr(np, name)
        if name not in ALLOCATE:
            return made

        def counted(*given: Any, **named: Any) -> Any:
            self._fault.does("memory", waits=True)
            return made(*given, **named)

        return counted


class _Session:
    def __init__(self, session: Any, fault: Fault) -> None:
        self._session, self._fault = session, fault

    def io_binding(self) -> Any:
        return _Binding(self._session.io_binding())

    def run_with_iobinding(self, binding: "_Binding", options: Any) -> None:
        self._fault.networks += 1
        if self._fault.does("network"):
            self._session.run_with_iobinding(binding.real, options)
            binding.shift(self._fault.shift)


class _Binding:
    def __init__(self, real: Any) -> None:
        self.real, self.bind_input = real, real.bind_input

    def bind_output(self, name: str, memory: str, index: int, dtype: Any, shape: tuple[int, ...], at: int) -> None:
        self.real.bind_output(name, memory, index, dtype, shape, at)
        floats = ctypes.cast(at, ctypes.POINTER(ctypes.c_float))
        self._out = np.ctypeslib.as_array(floats, shape) if shape[0] else np.empty(0, np.float32)

    def shift(self, by: float) -> None:
        self._out += np.float32(by)

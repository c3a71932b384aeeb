"""Where a process runs its networks: on a CUDA device while that works, on the CPU otherwise.

A network is opened on both. It enters the device with its first rows, a bundle's probe, and only where both say the
same of them. When the device fails, the batch that met the failure and all later ones run on the CPU, so no request
fails; `retry`, called beside the decisions, opens the networks anew and lets them back by the same test. CUDA keeps
some errors until the process ends: then every retry fails, and the CPU goes on.
"""

import re
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any
from weakref import WeakSet

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as onnx_errors

CUDA, ON_CPU = "CUDAExecutionProvider", "CPUExecutionProvider"
CHOICES = re.compile(r"auto|cpu|cuda:(\d+)")
RETRY_SECONDS, RETRY_SECONDS_MAX = 5.0, 300.0  # doubled each time
TOLERANCE = 1e-4  # of a logit between device and CPU, which add in other orders
# TF32 keeps 10 bits of a factor: a probability would differ in the fourth digit
_OPTIONS = {"use_tf32": "0", "arena_extend_strategy": "kSameAsRequested"}

_ON_DEVICE = "__cuda_array_interface__"  # of CuPy's arrays
Inputs = Mapping[str, Any]
Open = Callable[[bytes, "int | None"], Any]


class DeviceError(RuntimeError):
    """A device that is not there, or that answers otherwise than the CPU."""


FAILURES = (
    DeviceError, onnx_errors.DeviceReset, onnx_errors.EPFail, onnx_errors.EngineError, onnx_errors.Fail,
    onnx_errors.NotImplemented, onnx_errors.RuntimeException, RuntimeError, ValueError,
)  # fmt: skip


def open_session(model: bytes, index: int | None) -> onnxruntime.InferenceSession:
    """A session of an ONNX model on the CPU (None) or on a CUDA device. Raises DeviceError where that is not there."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # the event loop owns the core; a second thread would also reorder sums
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    if index is None:
        return onnxruntime.InferenceSession(model, options, providers=[ON_CPU])
    if CUDA not in onnxruntime.get_available_providers():
        raise DeviceError(f"cuda:{index}: this onnxruntime has no CUDA (extra gpu)")
    onnxruntime.preload_dlls()  # CUDA and cuDNN from their wheels
    session = onnxruntime.InferenceSession(model, options, providers=[(CUDA, {"device_id": index, **_OPTIONS}), ON_CPU])
    if CUDA not in session.get_providers():  # it goes over to the CPU with no more than a warning
        raise DeviceError(f"cuda:{index}: onnxruntime cannot open it")
    session.disable_fallback()
    return session


class Device:
    """`choice`: "cpu", "cuda:N", or "auto", which is cuda:0 where there is one.

    working: whether networks run where they were meant to. losses, cpu_batches: how often the device was lost, and
    batches that the CPU ran meanwhile. problem: what was wrong last. Raises ValueError for another choice.
    """

    def __init__(
        self, choice: str = "cpu", opened: Open = open_session, clock: Callable[[], float] = time.monotonic
    ) -> None:
        found = CHOICES.fullmatch(choice)
        if found is None:
            raise ValueError(f"{choice!r} is not auto, cpu or cuda:N")
        self.index = None if choice == "cpu" else int(found[1] or 0)
        self.opened = opened
        self.working, self.losses, self.cpu_batches, self.problem = True, 0, 0, ""
        self._choice, self._clock = choice, clock
        self._networks: WeakSet[Network] = WeakSet()
        self._entered = False  # whether any network ever ran there
        self._due, self._pause = 0.0, RETRY_SECONDS
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        """ "cpu" or "cuda:N"."""
        return "cpu" if self.index is None else f"cuda:{self.index}"

    @property
    def due(self) -> bool:
        """Whether the device is lost and should be tried again."""
        return not self.working and self._clock() >= self._due

    def join(self, network: "Network") -> None:
        """Take a new network to the device. Raises DeviceError where cuda:N was asked for and never worked."""
        with self._lock:
            self._networks.add(network)
            if not self.working:
                return
        try:
            network.enter(self.index)
            self._entered = True
        except FAILURES as error:
            if self._entered:
                self.fail(error)
            elif self._choice == "auto":
                self.index, self.problem = None, str(error)
            else:
                raise DeviceError(f"{self.name} cannot be used: {error}") from error

    def fail(self, error: Exception) -> None:
        """The device is lost from here on, until a retry."""
        with self._lock:
            if self.working:
                self.working, self.problem = False, f"{type(error).__name__}: {error}"
                self.losses += 1
                self._pause = RETRY_SECONDS
                self._due = self._clock() + self._pause

    def retry(self) -> bool:
        """Open every network anew; whether the device is back. May take seconds: call it beside the decisions."""
        entered: set[Network] = set()
        try:
            while True:
                with self._lock:
                    waiting = [network for network in self._networks if network not in entered]
                    if not waiting:
                        self.working = True
                        return True
                for network in waiting:
                    network.enter(self.index)
                    entered.add(network)
        except FAILURES as error:
            with self._lock:
                self.problem = f"{type(error).__name__}: {error}"
                self._pause = min(2 * self._pause, RETRY_SECONDS_MAX)
                self._due = self._clock() + self._pause
            return False


CPU = Device("cpu")


class Network:
    """An ONNX network of one output. inputs: names, as of fields of Snapshot."""

    def __init__(self, device: Device, model: bytes) -> None:
        self._device, self._model = device, model
        self._cpu = device.opened(model, None)
        self._there: Any = None
        self._first: Inputs | None = None
        self.inputs = [i.name for i in self._cpu.get_inputs()]
        self._outputs = [o.name for o in self._cpu.get_outputs()]

    def run(self, given: Inputs) -> NDArray[np.float64]:
        """float64 [B] of contiguous arrays [B, ...] by name."""
        device = self._device
        if self._first is None and device.index is not None:
            self._first = _on_host(given)
            device.join(self)
        if device.index is not None:
            if device.working and self._there is not None:
                try:
                    return self._on_device(self._there, given)
                except FAILURES as error:
                    device.fail(error)
            device.cpu_batches += 1
        return self._on_cpu(given)

    def enter(self, index: int | None) -> None:
        """Open the network on the device. Raises one of FAILURES where it does not run there as on the CPU."""
        session, given = self._device.opened(self._model, index), self._first
        if given is None:
            raise DeviceError("no rows to try the device with")
        apart = np.abs(self._on_device(session, given) - self._on_cpu(given)).max(initial=0.0)
        if not apart <= TOLERANCE:
            raise DeviceError(f"device and CPU differ by {apart:.2g}")
        self._there = session

    def _on_cpu(self, given: Inputs) -> NDArray[np.float64]:
        (out,) = self._cpu.run(self._outputs, _on_host(given))
        return np.asarray(out, dtype=np.float64)

    def _on_device(self, session: Any, given: Inputs) -> NDArray[np.float64]:
        """Arrays of the host are copied there; an array of the device is bound where it lies."""
        binding = session.io_binding()
        for name, array in given.items():
            if hasattr(array, _ON_DEVICE):
                at = array.__cuda_array_interface__["data"][0]
                binding.bind_input(name, "cuda", self._device.index, np.dtype(array.dtype), array.shape, at)
            else:
                binding.bind_cpu_input(name, array)
        binding.bind_output(session.get_outputs()[0].name)
        session.run_with_iobinding(binding)
        (out,) = binding.copy_outputs_to_cpu()
        return np.asarray(out, dtype=np.float64)


def _on_host(given: Inputs) -> dict[str, Any]:
    return {name: array if isinstance(array, np.ndarray) else array.get() for name, array in given.items()}

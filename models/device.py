"""Where a process decides: on a CUDA device while that works, on the CPU otherwise.

What is to run there joins with rows to be tried on, and is used only where the device says of them what the CPU says.
When the device fails, the batch that met the failure and all later ones run on the CPU, so no request fails; `retry`,
called beside the decisions, opens everything anew and lets it back by the same test. CUDA keeps some errors until the
process ends: then every retry fails, and the CPU goes on.
"""

import re
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol
from weakref import WeakSet

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as onnx_errors

from models.attention import Attention, Weights

if TYPE_CHECKING:  # loaded where there is a device, and never else
    from gpu_kernels.device import Device as Kernels

CUDA, ON_CPU = "CUDAExecutionProvider", "CPUExecutionProvider"
CHOICES = re.compile(r"auto|cpu|cuda:(\d+)")
RETRY_SECONDS, RETRY_SECONDS_MAX = 5.0, 300.0  # doubled each time, also where it is lost again as soon as it is back
TOLERANCE = 1e-4  # of a logit between device and CPU, which add in other orders
# TF32 keeps 10 bits of a factor: a probability would differ in the fourth digit
_OPTIONS = {"use_tf32": "0", "arena_extend_strategy": "kSameAsRequested"}

Inputs = Mapping[str, Any]


class DeviceError(RuntimeError):
    """A device that is not there, or that answers otherwise than the CPU."""


FAILURES = (  # CuPy's are RuntimeErrors, without memory a MemoryError; a missing CUDA library an ImportError or OSError
    DeviceError, onnx_errors.DeviceReset, onnx_errors.EPFail, onnx_errors.EngineError, onnx_errors.Fail,
    onnx_errors.InvalidArgument, onnx_errors.NotImplemented, onnx_errors.RuntimeException, RuntimeError, ValueError,
    MemoryError, ImportError, OSError,
)  # fmt: skip


class Member(Protocol):
    """What runs on the device."""

    def enter(self, device: "Device", kernels: "Kernels") -> None:
        """Bring all that is needed there. Raises one of FAILURES where it does not say there what the CPU says."""
        ...


def open_kernels(index: int) -> "Kernels":
    """Where kernels run. Raises DeviceError, NoDeviceError where there is no such device."""
    if CUDA not in onnxruntime.get_available_providers():
        raise DeviceError(f"cuda:{index}: this onnxruntime has no CUDA (extra gpu)")
    from gpu_kernels.device import Cuda

    return Cuda(index)


def open_session(model: bytes, kernels: "Kernels | None" = None) -> onnxruntime.InferenceSession:
    """A session of an ONNX model on the CPU, also where kernels run on it, or on a CUDA device and the stream of its
    decisions. Raises DeviceError where ONNX Runtime cannot open that.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # the event loop owns the core; a second thread would also reorder sums
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    if kernels is None or kernels.memory == "cpu":
        return onnxruntime.InferenceSession(model, options, providers=[ON_CPU])
    onnxruntime.preload_dlls()  # CUDA and cuDNN from their wheels
    on = {"device_id": kernels.index, "user_compute_stream": str(kernels.stream), **_OPTIONS}
    session = onnxruntime.InferenceSession(model, options, providers=[(CUDA, on), ON_CPU])
    if CUDA not in session.get_providers():  # it goes over to the CPU with no more than a warning
        raise DeviceError(f"cuda:{kernels.index}: onnxruntime cannot open it")
    session.disable_fallback()
    return session


class Device:
    """`choice`: "cpu", "cuda:N", or "auto", which is cuda:0 where there is one.

    working: whether batches run where they were meant to. kernels: what they run on, None where that is the CPU.
    losses, batches, cpu_batches: how often the device was lost, batches that it decided, and those that the CPU decided
    in its place. problem: what was wrong last. Raises ValueError for another choice.
    """

    def __init__(
        self, choice: str = "cpu", opened: "Callable[[int], Kernels]" = open_kernels,
        session: "Callable[[bytes, Kernels], Any]" = open_session, clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        found = CHOICES.fullmatch(choice)
        if found is None:
            raise ValueError(f"{choice!r} is not auto, cpu or cuda:N")
        self.index = None if choice == "cpu" else int(found[1] or 0)
        self.session = session
        self.kernels: Kernels | None = None
        self.working, self.problem = True, ""
        self.losses = self.batches = self.cpu_batches = 0
        self._choice, self._opened, self._clock = choice, opened, clock
        self._members: WeakSet[Member] = WeakSet()
        self._due, self._pause, self._back = 0.0, RETRY_SECONDS, -RETRY_SECONDS_MAX
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        """ "cpu" or "cuda:N"."""
        return "cpu" if self.index is None else f"cuda:{self.index}"

    @property
    def due(self) -> bool:
        """Whether the device is lost and should be tried again."""
        return not self.working and self._clock() >= self._due

    def join(self, member: Member) -> None:
        """Take another member to the device. Raises DeviceError where cuda:N was asked for and never worked."""
        with self._lock:
            if self.index is None:
                return
            self._members.add(member)
            if not self.working:
                return
        entered = self.kernels
        try:
            kernels = self._opened(self.index) if entered is None else entered
            member.enter(self, kernels)
            with self._lock:
                self.kernels = kernels if self.working else None
        except FAILURES as error:
            if entered is not None:
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
                self.kernels = None
                self.losses += 1
                now, held = self._clock(), self._pause
                self._pause = RETRY_SECONDS if now >= self._back + held else min(2 * held, RETRY_SECONDS_MAX)
                self._due = now + self._pause

    def retry(self) -> bool:
        """Bring every member there anew; whether the device is back. May take seconds: call it beside the decisions."""
        entered: set[Member] = set()
        try:
            kernels = self._opened(self.index or 0)
            while True:
                with self._lock:
                    waiting = [member for member in self._members if member not in entered]
                    if not waiting:
                        self.working, self.kernels, self._back = True, kernels, self._clock()
                        return True
                for member in waiting:
                    member.enter(self, kernels)
                    entered.add(member)
        except FAILURES as error:
            with self._lock:
                self.problem = f"{type(error).__name__}: {error}"
                self._pause = min(2 * self._pause, RETRY_SECONDS_MAX)
                self._due = self._clock() + self._pause
            return False


CPU = Device("cpu")


class Network:
    """An ONNX network of one output, on the CPU; where its `weights` are known, models.attention runs it instead.
    inputs: names, as of fields of Snapshot; output: its name.
    """

    def __init__(self, model: bytes, weights: Weights | None = None) -> None:
        self._session = open_session(model)
        self._loop = None if weights is None else Attention(weights)
        self.model = model
        self.inputs = [i.name for i in self._session.get_inputs()]
        (self.output,) = [o.name for o in self._session.get_outputs()]

    def run(self, given: Inputs) -> NDArray[np.float64]:
        """float64 [B] of contiguous arrays [B, ...] by name."""
        return self.by_onnx(given) if self._loop is None else self._loop.run(given)

    def by_onnx(self, given: Inputs) -> NDArray[np.float64]:
        """The same, by ONNX Runtime."""
        (out,) = self._session.run([self.output], given)
        return np.asarray(out, dtype=np.float64)

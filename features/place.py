"""Where a whole history is walked: on a CUDA device while that works, else on the CPU, with the same rows bit for bit.

A device walks longer stretches (DeviceGraph), and what it tells comes back as the Neighborhood that EntityGraph would
have given. One that fails costs no training: the walk begins again on the CPU, with a warning, and stays there.
CuPy and the kernels are imported when a device is asked for and never before, so the service loads neither.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from features.events import LABELS, Events
from features.graph import EntityGraph
from features.neighborhood import Neighborhood, empty_view

if TYPE_CHECKING:
    from gpu_kernels.device import Device

T = TypeVar("T")
Warn = Callable[[str], None]
CHUNK = 2048  # events observed in one call; bounds the memory of a neighbourhood
DEVICE_CHUNK = 16_384  # on a device, where a call costs more and an event less: some 200 MB there and 150 MB here
CHOICES = re.compile(r"auto|cpu|cuda(?::(\d+))?")


class PlaceError(ValueError):
    """A device that is not there, or no name of one; the message says which."""


class LostDeviceError(RuntimeError):
    """A device failed in the middle of a walk."""


class Graph(Protocol):
    """What a walk asks of EntityGraph, in whose words."""

    @property
    def sequence(self) -> int:
        """Number of the last event."""
        ...

    @property
    def last_ms(self) -> int:
        """Its time."""
        ...

    def observe(self, events: Events, own: NDArray[np.int64], links: NDArray[np.bool_]) -> Neighborhood:
        """The view strictly before each own event."""
        ...

    def review(self, sequences: NDArray[np.int64], links: NDArray[np.bool_]) -> Neighborhood:
        """The present view of applications recorded before."""
        ...

    def labels(self, sequences: NDArray[np.int64]) -> dict[str, NDArray[np.int8]]:
        """What is known by now of them."""
        ...


class Place:
    """A device, or none; `warn` is told of one that fails.

    `device` is None from then on. choice: its name, "cpu" or "cuda:N".
    """

    def __init__(self, device: "Device | None" = None, choice: str = "cpu", warn: Warn = lambda message: None) -> None:
        self.device, self.choice, self._warn = device, choice, warn
        self.failures: tuple[type[Exception], ...] = (RuntimeError, MemoryError, ImportError, OSError)
        if hasattr(device and device.xp, "cuda"):  # CuPy's own, of the operators that it compiles
            self.failures += (device.xp.cuda.compiler.CompileException,)  # type: ignore[union-attr]

    @classmethod
    def of(cls, choice: str, warn: Warn) -> "Place":
        """ "cpu", "cuda:N", "cuda" for cuda:0, or "auto": that where there is one, and CuPy. Raises PlaceError."""
        found = CHOICES.fullmatch(choice)
        if found is None:
            raise PlaceError(f"--device: {choice!r} is not auto, cpu or cuda:N")
        if choice == "cpu":
            return cls()
        from gpu_kernels.device import Cuda, NoDeviceError

        index = int(found[1] or 0)
        try:
            return cls(Cuda(index), f"cuda:{index}", warn)
        except (RuntimeError, MemoryError) as error:  # NoDeviceError, or one that others use up or hold for themselves
            if choice != "auto":
                raise PlaceError(f"--device {choice}: {error}") from None
            if not isinstance(error, NoDeviceError):
                warn(f"cuda:{index} cannot be opened, the CPU goes on: {type(error).__name__}: {error}")
            return cls()

    def walked(self, walk: Callable[[Graph, int], T], deep: bool = False) -> T:
        """What `walk` makes with a new graph, given stretches of so many events at most. It may be called twice. Hops,
        if `deep`, are walked on the CPU.
        """
        if self.device is not None and not deep:
            try:
                made = walk(_DeviceGraph(self.device, self.failures), DEVICE_CHUNK)
                if hasattr(self.device.xp, "get_default_memory_pool"):  # CuPy keeps what networks will need
                    self.device.xp.get_default_memory_pool().free_all_blocks()
                return made
            except LostDeviceError as error:
                self.lost(error)
        return walk(EntityGraph(deep), CHUNK)

    def lost(self, error: Exception) -> None:
        """The device is not used any more."""
        if self.device is not None:
            self.device = None
            self._warn(f"{self.choice} failed, the CPU goes on: {type(error).__name__}: {error}")


HERE = Place()  # the CPU


class _DeviceGraph:
    def __init__(self, device: "Device", failures: tuple[type[Exception], ...]) -> None:
        self._device, self._failures = device, failures
        with self._guarded():
            from gpu_kernels.graph import DeviceGraph

            self._graph = DeviceGraph(device)

    @property
    def sequence(self) -> int:
        return self._graph.sequence

    @property
    def last_ms(self) -> int:
        return self._graph.last_ms

    def observe(self, events: Events, own: NDArray[np.int64], links: NDArray[np.bool_]) -> Neighborhood:
        with self._guarded():
            return self._hosted(self._graph.observe(events, own, links))

    def review(self, sequences: NDArray[np.int64], links: NDArray[np.bool_]) -> Neighborhood:
        if not len(sequences):
            return empty_view(0, sequences)
        with self._guarded():
            return self._hosted(self._graph.review(sequences, links))

    def labels(self, sequences: NDArray[np.int64]) -> dict[str, NDArray[np.int8]]:
        with self._guarded():
            known = self._graph.labels(sequences)
        return {name: known[:, which].copy() for which, name in enumerate(LABELS)}

    def _hosted(self, view: object) -> Neighborhood:
        """A View brought here, which holds no hops. Its masks are bytes there."""
        found: list[Any] = [self._device.host(getattr(view, name)) for name in Neighborhood._fields if name != "hops"]
        return Neighborhood(*(array.view(np.bool_) if array.dtype == np.uint8 else array for array in found))

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """Whatever the device raises becomes LostDeviceError; what is wrong with the log stays a ValueError."""
        try:
            yield
        except self._failures as error:
            raise LostDeviceError(f"{type(error).__name__}: {error}") from error

"""A struct with all that it points to in one buffer on the device, so that a batch is one copy."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from gpu_kernels.device import Device
from gpu_kernels.layout import Struct

ALIGN = 16
Shapes = Mapping[str, tuple[DTypeLike, tuple[int, ...]]]


@dataclass(frozen=True)
class Staged:
    """address: of the struct on the device. bytes: copied to it."""

    address: int
    bytes: int
    _buffer: Any
    _places: Mapping[str, tuple[int, int, Any, tuple[int, ...]]]

    def array(self, name: str) -> Any:
        """What a field points to in the buffer, as an array of the device."""
        start, end, dtype, shape = self._places[name]
        return self._buffer[start:end].view(dtype).reshape(shape)


def stage(
    device: Device, struct: Struct, integers: Mapping[str, int], given: Mapping[str, NDArray[Any]], scratch: Shapes,
    others: Mapping[str, Any],
) -> Staged:  # fmt: skip
    """The struct with `integers`, copies of the host arrays `given`, arrays `scratch` with nothing in them yet, and
    arrays `others` of the device. Raises TypeError for an array of another dtype than the field's.
    """
    places: dict[str, tuple[int, int, Any, tuple[int, ...]]] = {}
    end = copied = _aligned(8 * len(struct.fields))
    for name, (dtype, shape) in [*((n, (a.dtype, a.shape)) for n, a in given.items()), *scratch.items()]:
        dtype = np.dtype(dtype)
        struct.check(name, dtype)
        places[name] = (end, end + math.prod(shape) * dtype.itemsize, dtype, shape)
        end = _aligned(places[name][1])
        if name in given:
            copied = end
    buffer = device.xp.empty(end, dtype=np.uint8)
    base = device.address(buffer)
    words = struct.words(
        {**integers, **{name: base + at for name, (at, *_) in places.items()}, **others}, device.address
    )
    host = device.staging(copied)
    host[: words.nbytes] = words.view(np.uint8)
    for name, array in given.items():
        start, stop, *_ = places[name]
        host[start:stop] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    device.fill(buffer[:copied], host)
    return Staged(base, copied, buffer, places)


def _aligned(size: int) -> int:
    return -(-size // ALIGN) * ALIGN

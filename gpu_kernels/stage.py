"""A struct with all that it points to in one buffer on the device, so that a batch is one copy."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from gpu_kernels.device import Device
from gpu_kernels.layout import ALIGN, Struct, place

Shapes = Mapping[str, tuple[DTypeLike, tuple[int, ...]]]


@dataclass(frozen=True)
class Staged:
    """address: of the struct on the device. arrays: what it points to, as arrays of the device. bytes: copied to it."""

    address: int
    arrays: Mapping[str, Any]
    bytes: int
    buffer: Any


def stage(
    device: Device, struct: Struct, integers: Mapping[str, int], given: Mapping[str, NDArray[Any]], scratch: Shapes,
    others: Mapping[str, Any],
) -> Staged:  # fmt: skip
    """The struct with `integers`, copies of the host arrays `given`, arrays `scratch` with nothing in them yet, and
    arrays `others` of the device.
    """
    start = -(-8 * len(struct.fields) // ALIGN) * ALIGN
    spans, copied = place({name: (a.dtype, a.shape) for name, a in given.items()}, start)
    more, size = place(scratch, copied)
    buffer = device.xp.empty(size, dtype=np.uint8)
    arrays = {n: buffer[span].view(given[n].dtype).reshape(given[n].shape) for n, span in spans.items()}
    arrays |= {n: buffer[span].view(scratch[n][0]).reshape(scratch[n][1]) for n, span in more.items()}
    arrays |= others
    words = struct.words({**integers, **arrays}, device.address)
    host = np.empty(copied, dtype=np.uint8)
    host[: words.nbytes] = words.view(np.uint8)
    for name, span in spans.items():
        host[span] = np.ascontiguousarray(given[name]).reshape(-1).view(np.uint8)
    device.fill(buffer[:copied], host)
    return Staged(device.address(buffer), arrays, copied, buffer)

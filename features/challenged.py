"""What challengers said of an application, as it stands in its hash: `c:<version>`, two float64."""

import struct
from collections.abc import Mapping

from features.durability import StoreError

FIELD = "c:"
PROBABILITIES = struct.Struct("<dd")


def challengers_said(fields: Mapping[bytes, bytes]) -> dict[str, tuple[float, float]]:
    """By version of each challenger in an application's hash, its fraud and default probability. Raises StoreError."""
    said = {}
    for field, packed in fields.items():
        name = field.decode()
        if name.startswith(FIELD):
            if len(packed) != PROBABILITIES.size:
                raise StoreError(f"{name}: {len(packed)} bytes are no two probabilities")
            said[name.removeprefix(FIELD)] = PROBABILITIES.unpack(packed)
    return said

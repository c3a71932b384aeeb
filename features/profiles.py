"""Profiles as packed blobs: 8 bytes of layout fingerprint, int64 fetch time in ms, then float32 numbers.

The names behind a fingerprint are registered in the store, so a blob written under an older schema is read by feature
name; an unknown fingerprint is an error, never a guess.
"""

import json
import struct
from collections.abc import Mapping, Sequence

import numpy as np

from features.application import Profile
from features.schema import Schema

_HEADER = struct.Struct("<8sq")


class UnknownLayoutError(ValueError):
    """A profile whose layout nobody registered, or whose length is not its layout's."""


class Layouts:
    """What is known of profile layouts: feature names by fingerprint. `own` are those of this process's schemas."""

    def __init__(self, schemas: Sequence[Schema]) -> None:
        self.own: dict[bytes, bytes] = {
            source.layout: json.dumps(source.features).encode() for s in schemas for source in s.sources.values()
        }
        self._names: dict[bytes, list[str]] = {}
        self.learn(self.own)

    def learn(self, registered: Mapping[bytes, bytes]) -> None:
        """Add the layouts registered in the store: JSON lists of feature names by fingerprint."""
        self._names.update({layout: json.loads(names) for layout, names in registered.items()})

    def pack(self, schema: Schema, profile: Profile) -> bytes:
        """The blob of a profile in the present layout of its source."""
        layout = schema.sources[profile.source].layout
        return _HEADER.pack(layout, profile.fetched_at_ms) + profile.numbers.astype("<f4").tobytes()

    def unpack(self, schema: Schema, source: str, blob: bytes) -> Profile:
        """The profile in a blob, its numbers in the order of `schema`'s source, NaN where the blob has none."""
        layout, fetched_at_ms = _HEADER.unpack_from(blob) if len(blob) >= _HEADER.size else (b"", 0)
        names = self._names.get(layout)
        if names is None or len(blob) != _HEADER.size + 4 * len(names):
            raise UnknownLayoutError(f"profile of {source}: unknown layout {layout.hex()}, {len(blob)} bytes")
        numbers = np.frombuffer(blob, dtype="<f4", offset=_HEADER.size)
        wanted = schema.sources[source]
        if layout != wanted.layout:
            by_name = dict(zip(names, numbers, strict=True))
            numbers = np.array([by_name.get(name, np.nan) for name in wanted.features], dtype=np.float32)
        return Profile(source, fetched_at_ms, numbers)

"""Profiles as packed blobs: 8 bytes of layout fingerprint, int64 fetch time in ms, then float32 numbers.

The names behind a fingerprint are registered in the store, so a blob written under an older schema is read by feature
name; an unknown fingerprint is an error, never a guess.
"""

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from features.application import Profile
from features.schema import Schema

_HEADER = struct.Struct("<8sq")
HEADER_BYTES = _HEADER.size


@dataclass(frozen=True)
class Profiles:
    """What the sources of a schema know of B applications.

    fetched_at_ms: int64 [B, S] in the order of `schema.sources`, 0 where a source knows nothing. numbers: float32
    [B, N] of the columns `schema.source_columns`, NaN where missing.
    """

    fetched_at_ms: NDArray[np.int64]
    numbers: NDArray[np.float32]

    @classmethod
    def none(cls, schema: Schema, applications: int) -> "Profiles":
        """Where no source knows anything."""
        return cls(
            np.zeros((applications, len(schema.sources)), dtype=np.int64),
            np.full((applications, len(schema.source_columns)), np.nan, dtype=np.float32),
        )

    @classmethod
    def of(cls, schema: Schema, known: Sequence[Mapping[str, Profile]]) -> "Profiles":
        """Of the profiles of each application by source."""
        profiles = cls.none(schema, len(known))
        for s, (name, source) in enumerate(schema.sources.items()):
            held = [b for b, some in enumerate(known) if name in some]
            if held:
                profiles.fetched_at_ms[held, s] = [known[b][name].fetched_at_ms for b in held]
                profiles.numbers[held, source.first : source.first + len(source.features)] = np.array(
                    [known[b][name].numbers for b in held]
                )
        return profiles

    def __len__(self) -> int:
        return len(self.numbers)

    def take(self, rows: NDArray[np.int64]) -> "Profiles":
        """Those of some of the applications."""
        return Profiles(self.fetched_at_ms[rows], self.numbers[rows])

    def about(self, schema: Schema, logged: NDArray[np.bool_]) -> "Profiles":
        """Without what is known of identifiers that the log does not have; logged: bool [B, 16], the slots it has."""
        known = logged[:, [source.slot for source in schema.sources.values()]]
        return self if known.all() else Profiles(np.where(known, self.fetched_at_ms, 0), self.numbers)


class ProfileTable:
    """Profiles of many, by token of whom they know and by source, to be looked up many at once."""

    def __init__(self, profiles: Mapping[int, Mapping[str, Profile]]) -> None:
        tokens = np.array(list(profiles), dtype=np.uint64)
        order = np.argsort(tokens)
        self._tokens = tokens[order]  # ascending
        found: dict[str, tuple[list[int], list[Profile]]] = {}
        for place, some in zip(np.argsort(order).tolist(), profiles.values(), strict=True):
            for name, profile in some.items():
                places, held = found.setdefault(name, ([], []))
                places.append(place)
                held.append(profile)
        self._columns = {name: _column(*some, len(tokens)) for name, some in found.items()}

    def of(self, schema: Schema, tokens: NDArray[np.uint64]) -> Profiles:
        """What each source knows of the entities that it is about, of applications with these tokens, uint64 [B, 16].

        Raises ValueError where a profile has other numbers than its source in the schema.
        """
        made, place_of = Profiles.none(schema, len(tokens)), {}
        for slot in {source.slot for source in schema.sources.values()} if len(self._tokens) else ():
            place = np.searchsorted(self._tokens, tokens[:, slot]).clip(max=len(self._tokens) - 1)
            place_of[slot] = np.where(self._tokens[place] == tokens[:, slot], place, len(self._tokens))
        for s, source in enumerate(schema.sources.values()):
            if source.name not in self._columns or not place_of:
                continue
            place, count = place_of[source.slot], len(source.features)
            into = made.fetched_at_ms, made.numbers
            if not _look_up(self._columns[source.name], place, s, source.first, count, into):
                raise ValueError(f"profiles of {source.name}: {count} numbers expected")
        return made


def _column(places: Sequence[int], held: Sequence[Profile], tokens: int) -> tuple[NDArray[Any], ...]:
    """Of one source: the row of each token, -1 where it has none, then one more -1; and of each row when it was
    fetched, where its numbers start and how many there are; and all numbers on end.
    """
    row_of = np.full(tokens + 1, -1, dtype=np.int64)
    row_of[places] = np.arange(len(held))
    width = np.array([len(profile.numbers) for profile in held], dtype=np.int64)
    fetched_at_ms = np.array([profile.fetched_at_ms for profile in held], dtype=np.int64)
    return row_of, fetched_at_ms, np.cumsum(width) - width, width, np.concatenate([p.numbers for p in held])


@njit(cache=True, nogil=True)
def _look_up(column, place, source, first, count, into):  # type: ignore[no-untyped-def]
    """Fill what a source knows; False where a profile has not `count` numbers."""
    row_of, fetched_at_ms, start, width, numbers = column
    to_time, to_numbers = into
    for i in range(len(place)):
        row = row_of[place[i]]
        if row >= 0:
            if width[row] != count:
                return False
            to_time[i, source] = fetched_at_ms[row]
            for n in range(count):
                to_numbers[i, first + n] = numbers[start[row] + n]
    return True


@cache
def _forms(schema: Schema) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Of each source uint8 [S, 8] its layout, and int64 [S, 2] where its numbers begin and end, bytes."""
    sources = schema.sources.values()
    layouts = np.frombuffer(b"".join([s.layout for s in sources]), dtype=np.uint8).reshape(-1, 8)
    ends = [(4 * s.first, 4 * (s.first + len(s.features))) for s in sources]
    return layouts, np.array(ends, dtype=np.int64).reshape(-1, 2)


@njit(cache=True, nogil=True)
def _unpack(stored, sizes, at, layouts, ends, times, numbers):  # type: ignore[no-untyped-def]
    """Fill what blobs say, which stand in uint8 `stored` on end, as bytes; which of them are of another layout, a list.

    at: int64 [n], source and application of each.
    """
    left, start = [0 for _ in range(0)], 0
    for k in range(len(at)):
        s, b = divmod(at[k], len(numbers))
        end, fits = start + sizes[k], sizes[k] == HEADER_BYTES + ends[s, 1] - ends[s, 0]
        for i in range(layouts.shape[1]):
            fits = fits and stored[start + i] == layouts[s, i]
        if fits:
            times[b, 8 * s : 8 * s + 8] = stored[start + 8 : start + HEADER_BYTES]
            numbers[b, ends[s, 0] : ends[s, 1]] = stored[start + HEADER_BYTES : end]
        else:
            left.append(k)
        start = end
    return left


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

    def read(
        self, schema: Schema, blobs: Sequence[Sequence[bytes | None]], applications: int
    ) -> tuple[Profiles, list[str]]:
        """Profiles of the blobs of each source, one for each application, and what is wrong with those that cannot be
        read: they count as missing.
        """
        profiles, unreadable = Profiles.none(schema, applications), list[str]()
        flat = list(chain.from_iterable(blobs))
        at = [place for place, blob in enumerate(flat) if blob is not None]
        if not at:
            return profiles, unreadable
        stored = [blob for blob in flat if blob is not None]
        left = _unpack(
            np.frombuffer(b"".join(stored), dtype=np.uint8), np.array([len(blob) for blob in stored]), np.array(at),
            *_forms(schema), profiles.fetched_at_ms.view(np.uint8), profiles.numbers.view(np.uint8),
        )  # fmt: skip
        for k in left:  # of an older or newer schema
            s, b = divmod(at[k], applications)
            source = list(schema.sources.values())[s]
            try:
                fetched_at_ms, numbers = self._unpack(schema, source.name, stored[k])
            except UnknownLayoutError as error:
                unreadable.append(str(error))
                continue
            profiles.fetched_at_ms[b, s] = fetched_at_ms
            profiles.numbers[b, source.first : source.first + len(source.features)] = numbers
        return profiles, unreadable

    def _unpack(self, schema: Schema, source: str, blob: bytes) -> tuple[int, NDArray[np.float32]]:
        """When a blob was fetched, and its numbers in the order of `schema`'s source, NaN where the blob has none."""
        layout, fetched_at_ms = _HEADER.unpack_from(blob) if len(blob) >= _HEADER.size else (b"", 0)
        names = self._names.get(layout)
        if names is None or len(blob) != _HEADER.size + 4 * len(names):
            raise UnknownLayoutError(f"profile of {source}: unknown layout {layout.hex()}, {len(blob)} bytes")
        by_name = dict(zip(names, np.frombuffer(blob, dtype="<f4", offset=_HEADER.size), strict=True))
        wanted = schema.sources[source].features
        return fetched_at_ms, np.array([by_name.get(name, np.nan) for name in wanted], dtype=np.float32)

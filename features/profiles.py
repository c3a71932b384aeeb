"""Profiles as packed blobs: 8 bytes of layout fingerprint, int64 fetch time in ms, then float32 numbers.

The names behind a fingerprint are registered in the store, so a blob written under an older schema is read by feature
name; an unknown fingerprint is an error, never a guess.
"""

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from features.application import Profile
from features.schema import Schema

_HEADER = struct.Struct("<8sq")
_WORD = np.dtype("<u4")


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


class _Row(NamedTuple):
    """How the blobs of an application's sources stand beside one another, in words of 4 bytes, int64 each: where the
    layouts, fetch times and numbers are. missing: of each source the blob where it knows nothing; size: of all, bytes.
    """

    missing: tuple[bytes, ...]
    size: int
    layout_words: NDArray[np.int64]
    time_words: NDArray[np.int64]
    number_words: NDArray[np.int64]
    layouts: NDArray[np.uint32]

    def words(self, blobs: Sequence[bytes]) -> NDArray[np.uint32] | None:
        """uint32 [B, words of a row] of the blobs of B applications; None where they are not all in these layouts."""
        joined = b"".join(blobs)
        if len(joined) * len(self.missing) != self.size * len(blobs):
            return None
        words = np.frombuffer(joined, dtype=_WORD).reshape(-1, self.size // 4)
        return words if (words.take(self.layout_words, axis=1) == self.layouts).all() else None


@cache
def _row(schema: Schema) -> _Row:
    missing, first, words = [], 0, list[tuple[range, range, range]]()
    for source in schema.sources.values():
        missing.append(_HEADER.pack(source.layout, 0) + np.full(len(source.features), np.nan, dtype="<f4").tobytes())
        last = first + len(missing[-1]) // 4
        words.append((range(first, first + 2), range(first + 2, first + 4), range(first + 4, last)))
        first = last
    layout, time, numbers = (np.array([w for some in parts for w in some]) for parts in zip(*words, strict=True))
    layouts = np.frombuffer(b"".join(source.layout for source in schema.sources.values()), dtype=_WORD)
    return _Row(tuple(missing), 4 * first, layout, time, numbers, layouts)


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

    def read(self, schema: Schema, blobs: Sequence[bytes | None], applications: int) -> tuple[Profiles, list[str]]:
        """Profiles of the blobs of each application in turn, one for each source, and what is wrong with those that
        cannot be read: they count as missing.
        """
        if not blobs:
            return Profiles.none(schema, applications), []
        row, unreadable = _row(schema), list[str]()
        held = [none if blob is None else blob for blob, none in zip(blobs, row.missing * applications, strict=True)]
        words = row.words(held)
        if words is None:  # some are of an older or newer schema
            held = [self._present(schema, *some, unreadable) for some in enumerate(held)]
            words = np.frombuffer(b"".join(held), dtype=_WORD).reshape(applications, -1)
        fetched_at_ms = words.take(row.time_words, axis=1).view(np.int64)
        return Profiles(fetched_at_ms, words.take(row.number_words, axis=1).view(np.float32)), unreadable

    def _present(self, schema: Schema, place: int, blob: bytes, unreadable: list[str]) -> bytes:
        """A blob in the present layout of its source; of one that cannot be read, `unreadable` is told."""
        sources = list(schema.sources)
        source = sources[place % len(sources)]
        try:
            return self.pack(schema, Profile(source, *self._unpack(schema, source, blob)))
        except UnknownLayoutError as error:
            unreadable.append(str(error))
            return _row(schema).missing[place % len(sources)]

    def _unpack(self, schema: Schema, source: str, blob: bytes) -> tuple[int, NDArray[np.float32]]:
        """When a blob was fetched, and its numbers in the order of `schema`'s source, NaN where the blob has none."""
        layout, fetched_at_ms = _HEADER.unpack_from(blob) if len(blob) >= _HEADER.size else (b"", 0)
        names = self._names.get(layout)
        if names is None or len(blob) != _HEADER.size + 4 * len(names):
            raise UnknownLayoutError(f"profile of {source}: unknown layout {layout.hex()}, {len(blob)} bytes")
        by_name = dict(zip(names, np.frombuffer(blob, dtype="<f4", offset=_HEADER.size), strict=True))
        wanted = schema.sources[source].features
        return fetched_at_ms, np.array([by_name.get(name, np.nan) for name in wanted], dtype=np.float32)

"""Profiles of a batch are read as each alone is, whatever stands beside them."""

import json

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from features.application import Profile
from features.profiles import Layouts
from features.schema import Schema

_HEAD = 16  # bytes of layout and time
NOTHING, OWN, OLDER, SHORT, UNKNOWN, EMPTY = range(6)
kinds = st.lists(st.lists(st.integers(NOTHING, EMPTY), min_size=3, max_size=3), min_size=1, max_size=5)


@settings(max_examples=200, deadline=None)
@given(kinds)
def test_a_batch_is_read_as_each_alone(consumer: Schema, every: list[list[int]]) -> None:
    """Of each application the kind of blob that each of three sources has; the others have none."""
    layouts, number = Layouts([consumer]), 0
    names = list(consumer.sources)[:3]
    layouts.learn(
        {b"older..%d" % s: json.dumps(consumer.sources[n].features[:1]).encode() for s, n in enumerate(names)}
    )
    blobs: list[list[bytes | None]] = [[None] * len(consumer.sources) for _ in every]
    for b, of_it in enumerate(every):
        for s, (name, kind) in enumerate(zip(names, of_it, strict=True)):
            width, number = len(consumer.sources[name].features), number + 1
            own = layouts.pack(consumer, Profile(name, number << 33, np.arange(width, dtype=np.float32) + number))
            older = b"older..%d" % s + own[8 : _HEAD + 4]
            blobs[b][s] = (None, own, older, own[:-1], b"unknown." + own[8:], b"")[kind]
    found, unreadable = layouts.read(consumer, [blob for own in blobs for blob in own], len(every))
    for b, of_it in enumerate(every):
        alone, _ = layouts.read(consumer, blobs[b], 1)
        np.testing.assert_array_equal(found.fetched_at_ms[b], alone.fetched_at_ms[0])
        np.testing.assert_array_equal(found.numbers[b], alone.numbers[0])
        for s, (name, kind) in enumerate(zip(names, of_it, strict=True)):
            source = consumer.sources[name]
            told = found.numbers[b, source.first : source.first + len(source.features)]
            assert (found.fetched_at_ms[b, s] > 0) == (kind in (OWN, OLDER))
            assert np.count_nonzero(~np.isnan(told)) == {OWN: len(told), OLDER: 1}.get(kind, 0)
            if kind in (OWN, OLDER):
                np.testing.assert_array_equal(told[0], np.float32(found.fetched_at_ms[b, s] >> 33))
    assert len(unreadable) == sum(kind in (SHORT, UNKNOWN, EMPTY) for of_it in every for kind in of_it)

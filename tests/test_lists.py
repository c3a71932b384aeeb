"""Lists from the log: equal to a naive count, whatever the batches; strictly before; harmless to the graph."""

from dataclasses import dataclass

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from features.application import Report
from features.events import LISTED, Events, finish, pack_application, pack_listing, pack_report, packed, unpack
from features.graph import EntityGraph
from features.lists import Lists
from features.schema import SLOTS_MAX, Schema
from features.specs import LISTS
from tests.conftest import application

ENTRY = "00" * 16
TOKENS = (1, 2, 3, 2**63 + 5)


@dataclass(frozen=True)
class Change:
    kind: str
    token: int
    remove: bool
    shared: bool
    expires_after_ms: int  # 0 for never


@dataclass(frozen=True)
class Asked:
    tokens: tuple[int, ...]
    shared: tuple[int, ...]


change = st.builds(
    Change, st.sampled_from(LISTS), st.sampled_from(TOKENS), st.booleans(), st.booleans(), st.sampled_from((0, 1, 5, 9))
)
some = st.lists(st.sampled_from((0, *TOKENS, 99)), min_size=3, max_size=3).map(tuple)
steps = st.lists(
    st.tuples(st.integers(0, 3), st.one_of(change, st.builds(Asked, some, some)), st.booleans()), max_size=40
)


def slots(tokens: tuple[int, ...]) -> NDArray[np.uint64]:
    row = np.zeros(SLOTS_MAX, dtype=np.uint64)
    row[: len(tokens)] = tokens
    return row


def log(schema: Schema, walked: list[tuple[int, Change | Asked]]) -> Events:
    """The events of (time, what happened)."""
    blobs = []
    for sequence, (time_ms, event) in enumerate(walked, 1):
        if isinstance(event, Change):
            expires = time_ms + event.expires_after_ms if event.expires_after_ms and not event.remove else 0
            blob = pack_listing(ENTRY, event.kind, event.token, event.remove, event.shared, expires)
        else:
            blob = pack_application(application(schema, str(sequence))._replace(tokens=slots(event.tokens)))
        blobs.append(finish(blob, 0, sequence))
    return unpack(blobs, [time_ms for time_ms, _ in walked])


def naive(walked: list[tuple[int, Change | Asked]], at: int) -> list[int]:
    """How many slots of the application at a place are on each list, by going through all that came before."""
    now_ms, asked = walked[at]
    assert isinstance(asked, Asked)
    counts = []
    for kind in LISTS:
        on = 0
        for pair in zip(asked.tokens, asked.shared, strict=True):
            listed = False
            for shared, token in enumerate(pair):
                entries: list[int] = []
                for time_ms, event in walked[:at]:
                    if isinstance(event, Change) and (event.kind, event.token, event.shared) == (kind, token, shared):
                        if event.remove:
                            entries.clear()
                        else:
                            entries.append(time_ms + event.expires_after_ms if event.expires_after_ms else 10**15)
                listed |= any(expires > now_ms for expires in entries)
            on += listed
        counts.append(on)
    return counts


@settings(max_examples=300, deadline=None)
@given(steps)
def test_equal_to_a_naive_count(consumer: Schema, taken: list[tuple[int, Change | Asked, bool]]) -> None:
    """Cut into batches at random; what `count` says after a batch is what an application there would be told."""
    time_ms, walked, cuts = 1_000_000_000_000, [], [0]
    for i, (later_ms, event, cut) in enumerate(taken, 1):
        time_ms += later_ms
        walked.append((time_ms, event))
        if cut:
            cuts.append(i)
    events, lists = log(consumer, walked), Lists()
    for start, end in zip(cuts, [*cuts[1:], len(walked)], strict=True):
        part = Events(events.fields[start:end], events.time_ms[start:end])
        asked = [(i, event) for i, (_, event) in enumerate(walked[start:end], start) if isinstance(event, Asked)]
        own, shared = [i for i, _ in asked], [slots(event.shared) for _, event in asked]
        made = np.array(shared, dtype=np.uint64).reshape(-1, SLOTS_MAX)
        found = lists.observe(part, np.array(own, dtype=np.int64) + 1, made)
        assert found.dtype == np.int64 and found.tolist() == [naive(walked, i) for i in own]
    probe = Asked(TOKENS[:3], TOKENS[1:])
    now = np.array([time_ms])
    here = lists.count(slots(probe.tokens)[None], slots(probe.shared)[None], now)
    assert here.tolist() == [naive([*walked, (time_ms, probe)], len(walked))]


def test_a_token_of_both_sides_counts_once(consumer: Schema) -> None:
    walked: list[tuple[int, Change | Asked]] = [
        (1000, Change("black", 1, False, False, 0)),
        (1000, Change("black", 2, False, True, 0)),
        (1000, Asked((1, 3), (2, 3))),
    ]
    found = Lists().observe(log(consumer, walked), np.array([3]), slots((2, 3))[None])
    assert found.tolist() == [[1, 0, 0]]


def test_the_graph_sees_applications_as_if_nothing_were_listed(consumer: Schema) -> None:
    """All but the sequence numbers: a change of a list sets no label and makes no neighbour."""
    listing = pack_listing("ab" * 16, "black", 7, False, True, 2**40)
    report = pack_report(Report("o", "a", "fraud_confirmed"), consumer)
    one, two = (pack_application(application(consumer, name)) for name in ("a", "b"))
    links = np.ones((2, SLOTS_MAX), dtype=np.bool_)
    plain = unpack([finish(one, 0, 1), finish(report, 1, 2), finish(two, 0, 3)], [1, 2, 3])
    mixed = unpack(
        [
            finish(listing, 0, 1), finish(one, 0, 2), finish(listing, 0, 3), finish(report, 2, 4),
            finish(listing, 0, 5), finish(two, 0, 6), finish(listing, 0, 7),
        ],
        [1, 1, 1, 2, 2, 3, 3],
    )  # fmt: skip
    graphs = EntityGraph(), EntityGraph()
    expected = graphs[0].observe(plain, np.array([1, 3]), links)
    found = graphs[1].observe(mixed, np.array([2, 6]), links)
    for name in ("entity_state", "graph_state", "neighbor_state", "neighbor_mask", "time_ms"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), name)
    assert graphs[1].applications == 2 and graphs[1].labels(np.array([2]))["fraud"].tolist() == [1]
    assert [blob for blob in packed(mixed) if blob[1] == LISTED] == [listing] * 4

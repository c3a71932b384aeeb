"""Forgetting is exact: the graph is the one of a log whose earlier events never carried the forgotten tokens (R20)."""

from dataclasses import dataclass

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from features.application import Report
from features.events import (
    APPLICATION,
    EVENT,
    EVENT_VERSION,
    FORGETTING,
    FORGOTTEN,
    REPORT,
    Events,
    finish,
    pack_forgotten,
    pack_report,
    unpack,
)
from features.graph import EntityGraph
from features.neighborhood import Neighborhood
from features.schema import SLOTS_MAX, Schema
from tests.test_graph import SLOTS, Item, applications, cut, encode, links_for, own_of, reports

EVERY_SLOT = (1 << SLOTS_MAX) - 1
VIEW = ("entity_state", "graph_state", "neighbor_state", "neighbor_mask")
NODE = ("uses", "first_ms", "amount_sum", "amount_max", "bucket", "bucket_epoch", "label_count")
NONE = np.empty(0, dtype=np.int64)


@dataclass(frozen=True)
class Forget:
    """A request to forget slots of an applicant's applications of one schema, 0 for all."""

    applicant: int
    slots: int
    schema: int = 0
    gap_minutes: int = 1


def requests() -> st.SearchStrategy[Forget]:
    slots = st.one_of(st.just(EVERY_SLOT), st.sampled_from([0b0010, 0b1100, 0b0001]))
    return st.builds(Forget, st.integers(100, 103), slots, st.sampled_from([0, 0, 7, 8]))


def forgotten(asked: Forget, sequence: int) -> np.void:
    """The event of a request, as the store finishes it."""
    packed = finish(pack_forgotten(asked.applicant, asked.slots, asked.schema), 0, sequence)
    return np.void(np.frombuffer(packed, dtype=EVENT)[0])


def log_of(items: list[Item | Forget]) -> Events:
    """Items as a log; applications are of schemas 7 and 8 in turn."""
    events = encode([Item(i.gap_minutes, subject=0) if isinstance(i, Forget) else i for i in items])
    fields = events.fields
    fields["schema"] = np.where(fields["kind"] == APPLICATION, 7 + fields["sequence"] % 2, 0)
    for i, item in enumerate(items):
        if isinstance(item, Forget):
            fields[i] = forgotten(item, i + 1)
    return events


def never_named(events: Events) -> Events:
    """The log without the tokens that its requests forget in the events before them, and without the requests."""
    fields = events.fields.copy()
    for i, request in enumerate(fields.view(FORGETTING)):
        if fields["kind"][i] == FORGOTTEN:
            before = fields[:i]
            mine = (before["kind"] == APPLICATION) & (before["tokens"][:, 0] == request["applicant"])
            mine &= (request["schema"] == 0) | (before["schema"] == request["schema"])
            emptied = (int(request["slots"]) >> np.arange(SLOTS_MAX)) & 1 == 1
            before["tokens"][np.ix_(mine, emptied)] = 0
    gone = fields["kind"] == FORGOTTEN
    fields["tokens"][gone], fields["kind"][gone], fields["schema"][gone] = 0, REPORT, 0
    return Events(fields, events.time_ms)


def graph_of(events: Events) -> EntityGraph:
    graph = EntityGraph()
    graph.observe(events, NONE, links_for(NONE))
    return graph


def nodes_of(graph: EntityGraph) -> dict[int, dict[str, list[object]]]:
    """By token of every entity that somebody names, its state: numbers to the bit, and its latest applications."""
    state, found = graph._state, {}
    for token, place in zip(state.key, state.place, strict=True):
        if token and (uses := int(state.uses[place])):
            ring = [int(state.ring[place, (uses - j) % state.ring.shape[1]]) for j in range(1, min(uses, 17) + 1)]
            found[int(token)] = {name: getattr(state, name)[place].tolist() for name in NODE} | {"ring": ring}
    return found


def assert_same(found: Neighborhood, expected: Neighborhood) -> None:
    for name in VIEW:
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), name)


LOG = st.lists(st.one_of(applications(), applications(), reports(), requests()), min_size=2, max_size=70)


@settings(max_examples=120, deadline=None)
@given(LOG, st.lists(st.one_of(applications(), reports(), requests()), min_size=1, max_size=12))
def test_it_is_the_graph_of_a_log_without_the_tokens(past: list[Item | Forget], later: list[Item | Forget]) -> None:
    """State, masked retries of every application, and what later applications see, whatever else is still reported."""
    whole = log_of([*past, *later])
    before, rest = cut(whole, 0, len(past)), cut(whole, len(past), len(whole))
    found, expected = graph_of(before), graph_of(never_named(before))
    assert nodes_of(found) == nodes_of(expected)
    every = own_of(before)
    assert_same(found.review(every, links_for(every)), expected.review(every, links_for(every)))
    for event, time_ms in zip(rest.fields, rest.time_ms, strict=True):
        one = Events(event.reshape(1), np.array([time_ms]))
        own = own_of(one)
        view = found.observe(one, own, links_for(own))
        if event["kind"] == FORGOTTEN:
            expected = graph_of(never_named(cut(whole, 0, int(event["sequence"]))))
        else:
            assert_same(view, expected.observe(one, own, links_for(own)))
    np.testing.assert_equal(found.labels(own_of(whole)), expected.labels(own_of(whole)))


@settings(max_examples=30, deadline=None)
@given(LOG, st.lists(st.integers(1, 9), max_size=12))
def test_chunks_change_nothing(items: list[Item | Forget], sizes: list[int]) -> None:
    events, chunked, start = log_of(items), EntityGraph(), 0
    for size in [*sizes, len(events)]:
        chunked.observe(cut(events, start, min(start + size, len(events))), NONE, links_for(NONE))
        start = min(start + size, len(events))
    assert nodes_of(chunked) == nodes_of(graph_of(events))


def test_more_applications_than_a_ring_holds() -> None:
    """One of two people on a device leaves: the other's applications, long out of the ring, are its latest again."""
    items: list[Item | Forget] = [Item(60, (1 + i // 20 % 2, 1, 1, 0), 10.0 * i) for i in range(80)]
    items += [Forget(101, EVERY_SLOT), Item(5, (1, 1, 0, 0), 1.0)]
    events = log_of(items)
    own = own_of(cut(events, 81, 82))
    found = EntityGraph().observe(events, own, links_for(own))
    assert_same(found, EntityGraph().observe(never_named(events), own, links_for(own)))
    assert found.entity_state[0, 1, 4] == 40 and found.entity_state[0, 0, 4] == 0


def test_who_was_forgotten_starts_anew_and_nothing_comes_back(consumer: Schema) -> None:
    """A report and a retry of a forgotten application neither fail nor count; nobody is made of an unknown token."""
    items: list[Item | Forget] = [Item(1, (1, 1, 1, 0), 10.0), Item(1, (2, 1, 1, 0), 20.0), Forget(101, EVERY_SLOT)]
    graph = graph_of(log_of(items))
    known = graph.nodes
    for sequence, event, subject in (
        (4, pack_report(Report("o", "a", "fraud_confirmed"), consumer), 1),
        (5, pack_forgotten(999, EVERY_SLOT, 0), 0),
        (6, pack_forgotten(101, EVERY_SLOT, 0), 0),
    ):
        graph.observe(unpack([finish(event, subject, sequence)], [graph.last_ms + 1]), NONE, links_for(NONE))
    own = np.array([1])
    assert np.isnan(graph.review(own, links_for(own)).entity_state).all() and graph.nodes == known
    assert graph.labels(own)["fraud"].tolist() == [1]
    again = log_of([*items, *[Item(1, subject=40)] * 3, Item(1, (1, 1, 1, 0), 5.0)])
    own = np.array([7])
    view = graph.observe(cut(again, 6, 7), own, links_for(own))
    assert view.entity_state[0, :SLOTS, 4].tolist()[:3] == [0, 1, 1]  # count_all: the other person's only
    assert view.entity_state[0, 1, 12] == 0  # no confirmed fraud


def test_a_token_in_two_slots_and_of_two_schemas() -> None:
    fields = np.zeros(5, dtype=EVENT)
    fields["version"], fields["kind"], fields["sequence"] = EVENT_VERSION, APPLICATION, np.arange(1, 6)
    fields["schema"] = [7, 8, 7, 8, 0]
    fields["tokens"][:4, 0] = [11, 11, 12, 12]
    fields["tokens"][:4, 1:3] = 50
    fields["tokens"][2, 5] = 11  # who is forgotten, named by somebody else
    events = Events(fields, np.arange(1, 6, dtype=np.int64) * 1000)
    for slots, schema, uses in ((0b010, 0, 6), (0b110, 7, 6), (0b110, 0, 4), (EVERY_SLOT, 8, 6)):
        fields[4] = forgotten(Forget(11, slots, schema), 5)
        graph = graph_of(events)
        assert nodes_of(graph) == nodes_of(graph_of(never_named(events)))
        assert graph._state.uses[graph._state.place[list(graph._state.key).index(50)]] == uses

"""EntityGraph against a plain oracle on networkx, and the property that makes training honest: no look-ahead."""

from dataclasses import dataclass

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from features.events import APPLICATION, EVENT, EVENT_VERSION, LABEL_PRESUMED_GOOD, REPORT, Events
from features.graph import EntityGraph, SequenceGapError
from features.graph_kernels import BUCKETS, HOUR_MS, RATE_PRIOR, RATE_WEIGHT, RING, SPREAD_MIN, WIDTHS_MS
from features.neighborhood import FANOUT, Neighborhood
from features.schema import SLOTS_MAX
from features.statistics import ENTITY_STATS, GRAPH_STATS

SLOTS = 4
LINKS = np.array([False, True, True, False] + [False] * (SLOTS_MAX - SLOTS))


@dataclass(frozen=True)
class Item:
    """An application with its entities, or (subject set) a report."""

    gap_minutes: int
    entities: tuple[int, ...] = ()
    amount: float = 0.0
    subject: int = -1
    fraud: int = -2
    default: int = -2


def applications() -> st.SearchStrategy[Item]:
    entity = st.integers(0, 3)
    return st.builds(
        Item, st.sampled_from([0, 1, 30, 400, 9000, 50_000]), st.tuples(*[entity] * SLOTS),
        st.sampled_from([0.0, 10.0, 250.5]),
    )  # fmt: skip


def reports() -> st.SearchStrategy[Item]:
    label = st.sampled_from([-2, -1, 0, 1, LABEL_PRESUMED_GOOD])
    return st.builds(
        Item, st.sampled_from([0, 5]), st.just(()), st.just(0.0), st.integers(0, 40), label, label
    )  # fmt: skip


def encode(items: list[Item]) -> Events:
    """Items as a log; entity 0 of a slot is absent, the applicant always there; a report's subject counts modulo."""
    fields = np.zeros(len(items), dtype=EVENT)
    fields["version"] = EVENT_VERSION
    fields["sequence"] = np.arange(1, len(items) + 1)
    asked = [i + 1 for i, item in enumerate(items) if item.subject < 0]
    for i, item in enumerate(items):
        fields["kind"][i] = APPLICATION if item.subject < 0 else REPORT
        fields["fraud"][i], fields["default"][i] = item.fraud, item.default
        fields["amount"][i] = item.amount
        fields["record"][i] = np.arange(8) + i
        for slot, entity in enumerate(item.entities):
            if entity or slot == 0:
                fields["tokens"][i, slot] = 100 * (slot + 1) + entity
        before = [s for s in asked if s <= i]
        fields["subject"][i] = before[item.subject % len(before)] if item.subject >= 0 and before else 0
    time_ms = 1_700_000_000_000 + np.cumsum([item.gap_minutes * 60_000 for item in items], dtype=np.int64)
    return Events(fields, time_ms)


def cut(events: Events, start: int, end: int) -> Events:
    return Events(events.fields[start:end], events.time_ms[start:end])


def own_of(events: Events) -> NDArray[np.int64]:
    return np.asarray(events.fields["sequence"][events.fields["kind"] == APPLICATION])


def links_for(own: NDArray[np.int64]) -> NDArray[np.bool_]:
    return np.tile(LINKS, (len(own), 1))


def walk(events: Events, sizes: list[int]) -> list[Neighborhood]:
    """Observe in chunks of the given sizes, the last one taking the rest."""
    graph, start, views = EntityGraph(), 0, []
    for size in [*sizes, len(events)]:
        part = cut(events, start, min(start + size, len(events)))
        start += len(part)
        own = own_of(part)
        views.append(graph.observe(part, own, links_for(own)))
    return views


def merged(views: list[Neighborhood], name: str) -> NDArray[np.float32]:
    return np.concatenate([getattr(view, name) for view in views])


class Oracle:
    """What is known before each application, from the definitions, on a bipartite networkx graph."""

    def __init__(self) -> None:
        self.graph = nx.Graph()
        self.label: dict[tuple[int, str], int] = {}
        self.records: dict[int, list[float]] = {}

    def history(self, token: int) -> list[int]:
        """Sequence numbers of the applications of an entity, newest first."""
        if ("entity", token) not in self.graph:
            return []
        return sorted((n[1] for n in self.graph[("entity", token)]), reverse=True)

    def facts(self, sequence: int) -> dict[str, float]:
        return dict(self.graph.nodes[("application", sequence)])

    def record(self, event: np.void, time_ms: int) -> None:
        node = ("application", int(event["sequence"]))
        tokens = [int(t) for t in event["tokens"]]
        self.records[node[1]] = event["record"].tolist()
        self.graph.add_node(node, time_ms=time_ms, amount=float(event["amount"]), applicant=tokens[0])
        self.graph.add_edges_from((node, ("entity", token)) for token in tokens if token)

    def report(self, event: np.void) -> None:
        if event["subject"]:
            for name in ("fraud", "default"):
                key, reported = (int(event["subject"]), name), int(event[name])
                if reported == LABEL_PRESUMED_GOOD:
                    self.label[key] = max(self.label.get(key, -1), 0)
                elif reported != -2:
                    self.label[key] = reported

    def rate(self, labels: list[int]) -> float:
        return (labels.count(1) + RATE_PRIOR) / (len(labels) + RATE_WEIGHT)

    def labels(self, sequences: list[int], name: str) -> list[int]:
        return [v for v in (self.label.get((s, name), -1) for s in sequences) if v >= 0]

    def entity(self, token: int, now_ms: int, amount: float, applicant: int) -> dict[str, float]:
        past = self.history(token)
        facts = [self.facts(s) for s in past]
        stats = dict.fromkeys(ENTITY_STATS, np.nan)
        for name, width in zip(("count_1h", "count_24h", "count_7d", "count_30d"), WIDTHS_MS, strict=True):
            stats[name] = sum(f["time_ms"] // width > now_ms // width - BUCKETS for f in facts)
        fraud, default = self.labels(past, "fraud"), self.labels(past, "default")
        stats |= {
            "count_all": len(past), "age_days": 0.0, "fraud_count": fraud.count(1), "fraud_rate": self.rate(fraud),
            "recent_fraud_rate": self.rate(self.labels(past[:RING], "fraud")), "default_count": default.count(1),
            "default_rate": self.rate(default), "labelled_count": len(fraud),
            "distinct_applicants": len({f["applicant"] for f in facts[:RING]}),
            "other_applicants": len({f["applicant"] for f in facts[:RING]} - {applicant}),
            "fraud_score": self.rate(fraud), "default_score": self.rate(default),  # of so few entities
        }  # fmt: skip
        if past:
            mean = sum(f["amount"] for f in facts) / len(past)
            stats["gap_hours"] = (now_ms - facts[0]["time_ms"]) / HOUR_MS
            stats["age_days"] = (now_ms - facts[-1]["time_ms"]) / HOUR_MS / 24
            stats["amount_mean"] = mean
            stats["amount_ratio"] = amount / mean if mean else np.nan
            stats["amount_last_ratio"] = amount / facts[0]["amount"] if facts[0]["amount"] else np.nan
            largest = max(f["amount"] for f in facts)
            stats["amount_max_ratio"] = amount / largest if largest else np.nan
            spread = float(np.std([f["amount"] for f in facts]))
            if spread**2 > SPREAD_MIN * mean**2:
                stats["amount_deviation"] = (amount - mean) / spread
        return stats

    def neighbor(self, sequence: int, now_ms: int, applicant: int) -> list[float]:
        facts = self.facts(sequence)
        fraud, default = (self.label.get((sequence, name), -1) for name in ("fraud", "default"))
        labels = [float(fraud == 1), float(fraud == 0), float(default == 1), float(default == 0)]
        gap_hours = (now_ms - facts["time_ms"]) / HOUR_MS
        return [gap_hours, facts["amount"], float(facts["applicant"] == applicant), *labels, *self.records[sequence]]

    def links(self, tokens: list[int], now_ms: int) -> dict[str, float]:
        shared: dict[int, int] = {}
        for slot, token in enumerate(tokens):
            for sequence in self.history(token)[:RING] if token and LINKS[slot] else ():
                if self.facts(sequence)["applicant"] != tokens[0]:
                    shared[sequence] = shared.get(sequence, 0) + 1
        linked = list(shared)
        fraud = self.labels(linked, "fraud")
        return {
            "linked_applications": len(linked),
            "linked_applicants": len({self.facts(s)["applicant"] for s in linked}),
            "linked_24h": sum(now_ms - self.facts(s)["time_ms"] <= 24 * HOUR_MS for s in linked),
            "linked_fraud": fraud.count(1), "linked_fraud_rate": self.rate(fraud),
            "shared_entities": max(shared.values(), default=0),
        }  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(st.lists(st.one_of(applications(), applications(), reports()), min_size=1, max_size=60))
def test_equals_oracle(items: list[Item]) -> None:
    events = encode(items)
    view, oracle, row = walk(events, [])[0], Oracle(), 0
    for event, time_ms in zip(events.fields, events.time_ms.tolist(), strict=True):
        if event["kind"] == REPORT:
            oracle.report(event)
            continue
        tokens = [int(t) for t in event["tokens"]]
        for slot, token in enumerate(tokens[:SLOTS]):
            if not token:
                assert np.isnan(view.entity_state[row, slot]).all()
                continue
            expected = oracle.entity(token, time_ms, float(event["amount"]), tokens[0])
            np.testing.assert_allclose(view.entity_state[row, slot], list(expected.values()), rtol=1e-6)
            newest = oracle.history(token)[:FANOUT]
            assert view.neighbor_mask[row, slot].sum() == len(newest)
            expected_neighbors = [oracle.neighbor(s, time_ms, tokens[0]) for s in newest]
            np.testing.assert_allclose(
                view.neighbor_state[row, slot, : len(newest)], np.array(expected_neighbors).reshape(-1, 15), rtol=1e-6
            )
        expected = oracle.links(tokens, time_ms)
        assert list(expected) == list(GRAPH_STATS)
        np.testing.assert_allclose(view.graph_state[row], list(expected.values()), rtol=1e-6)
        oracle.record(event, time_ms)
        row += 1


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.one_of(applications(), reports()), min_size=2, max_size=60),
    st.lists(st.integers(1, 9), max_size=12),
    st.integers(1, 59),
)
def test_chunks_and_later_events_change_nothing(items: list[Item], sizes: list[int], keep: int) -> None:
    events = encode(items)
    whole, chunked = walk(events, []), walk(events, sizes)
    early = walk(cut(events, 0, min(keep, len(events))), [])
    for name in ("entity_state", "graph_state", "neighbor_state", "neighbor_mask", "as_of", "time_ms"):
        np.testing.assert_array_equal(merged(whole, name), merged(chunked, name))
        seen = merged(early, name)
        np.testing.assert_array_equal(merged(whole, name)[: len(seen)], seen)


@settings(max_examples=40, deadline=None)
@given(st.lists(applications(), min_size=2, max_size=50), st.data())
def test_review_masks_own_marks(items: list[Item], data: st.DataObject) -> None:
    """The masked view is the view of a log in which the application comes last instead."""
    chosen = data.draw(st.integers(0, len(items) - 1))
    events = encode(items)
    graph = EntityGraph()
    graph.observe(events, np.empty(0, dtype=np.int64), links_for(np.empty(0, dtype=np.int64)))
    masked = graph.review(np.array([chosen + 1]), links_for(np.array([chosen + 1])))
    order = [i for i in range(len(items)) if i != chosen] + [chosen]
    fields, time_ms = events.fields[order].copy(), events.time_ms[order].copy()
    fields["sequence"] = np.arange(1, len(items) + 1)
    time_ms[-1] = events.time_ms[-1]
    last = walk(Events(fields, time_ms), [len(items) - 1])[-1]
    np.testing.assert_allclose(masked.entity_state, last.entity_state, rtol=1e-5)
    for name in ("graph_state", "neighbor_state", "neighbor_mask"):
        np.testing.assert_array_equal(getattr(masked, name), getattr(last, name))
    assert masked.as_of[0] == len(items)


def test_correction_takes_back() -> None:
    application, again = Item(0, (1, 1, 0, 0), 10.0), Item(1, (2, 1, 0, 0), 10.0)
    for reported, expected in (([1], 1), ([1, 0], 0), ([1, -1], 0), ([1, 1], 1), ([0, 1], 1), ([1, 2], 1), ([2, 1], 1)):
        items = [application, *(Item(1, subject=0, fraud=value) for value in reported), again]
        view = walk(encode(items), [])[0]
        assert view.entity_state[-1, 1, list(ENTITY_STATS).index("fraud_count")] == expected


def test_gap_repeat_and_foreign_own_are_refused() -> None:
    events = encode([Item(1, (1, 1, 1, 1), 5.0)] * 4)
    none = np.empty(0, dtype=np.int64)
    graph = EntityGraph()
    graph.observe(cut(events, 0, 2), none, links_for(none))
    for wrong in (cut(events, 3, 4), cut(events, 1, 3)):
        with pytest.raises(SequenceGapError):
            graph.observe(wrong, none, links_for(none))
    with pytest.raises(SequenceGapError):
        graph.observe(cut(events, 2, 3), np.array([9]), links_for(np.array([9])))
    assert graph.sequence == 2
    with pytest.raises(SequenceGapError):
        graph.review(np.array([3]), links_for(np.array([3])))


def test_grows_past_its_first_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("features.graph_memory.ROOM", (1024, 512, 1024))
    items = [Item(1, (i % 4, i % 4, 0, 0), 1.0) for i in range(3000)]
    events = encode(items)
    fields = events.fields.copy()
    fields["tokens"][:, 3] = np.arange(1000, 4000)
    graph = EntityGraph()
    none = np.empty(0, dtype=np.int64)
    graph.observe(Events(fields, events.time_ms), none, links_for(none))
    assert (graph.applications, graph.nodes) == (3000, 3000 + 4 + 3)

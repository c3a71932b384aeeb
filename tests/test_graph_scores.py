"""Empirical-Bayes scores of entities against their definition, on random streams with corrections."""

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.graph import EntityGraph
from features.graph_kernels import BAD_MIN, KNOWN_MIN, RATE_PRIOR, RATE_WEIGHT, WEIGHT_RANGE
from features.statistics import ENTITY_STATS
from tests.test_graph import Item, cut, encode, links_for, own_of

COLUMN = {name: list(ENTITY_STATS).index(f"{name}_score") for name in ("fraud", "default")}
Results = dict[int, list[int]]  # what is known of each entity's applications, 1 bad, 0 good


def prior(results: Results) -> tuple[float, float]:
    """Mean and weight of the beta prior: the correlation that makes the spread of the rates what it is."""
    known = {entity: r for entity, r in results.items() if r}
    n = np.array([len(r) for r in known.values()], dtype=np.float64)
    b = np.array([sum(r) for r in known.values()], dtype=np.float64)
    if len(n) < KNOWN_MIN or n.sum() - len(n) < KNOWN_MIN or b.sum() < BAD_MIN:
        return RATE_PRIOR / RATE_WEIGHT, RATE_WEIGHT
    p = b.sum() / n.sum()
    if p == 1:
        return 1.0, WEIGHT_RANGE[1]
    unlike = (n * (b / n - p) ** 2).sum() / (p * (1 - p))
    rho = (unlike - (1 - n / n.sum()).sum()) / ((1 - n / n.sum()) * (n - 1)).sum()
    weight = 1 / rho - 1 if rho > 0 else np.inf
    return p, float(np.clip(weight, *WEIGHT_RANGE))


def score(results: Results, entity: int) -> float:
    mean, weight = prior(results)
    own = results.get(entity, [])
    return (sum(own) + mean * weight) / (len(own) + weight)


def known(items: list[Item], before: int, label: str, slot: int, without: int = -1) -> Results:
    """Results by entity of a slot, of the items before one; `without` is an application left out."""
    applications = [i for i, item in enumerate(items) if item.subject < 0]
    labels: dict[int, int] = {}
    for i, item in enumerate(items[:before]):
        earlier = [a for a in applications if a < i]
        if item.subject >= 0 and earlier:
            subject, value = earlier[item.subject % len(earlier)], getattr(item, label)
            if value == 2:
                value = max(labels.get(subject, -1), 0)
            labels[subject] = labels.get(subject, -1) if value == -2 else value
    results: Results = {}
    for a in applications:
        if a < before and a != without and labels.get(a, -1) >= 0:
            results.setdefault(items[a].entities[slot], []).append(labels[a])
    return results


@st.composite
def streams(draw: st.DrawFn) -> list[Item]:
    """Applications of some dozens of entities, some much worse than others, and reports, among them corrections."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    entities, worse = int(rng.integers(15, 60)), rng.beta(*draw(st.sampled_from([(1, 9), (0.3, 2), (30, 70)])), 60)
    rate, items, applied = [worse, rng.permutation(worse)], [], 0
    for _ in range(int(rng.integers(60, 260))):
        if applied and rng.random() < 0.55:
            subject = int(rng.integers(applied))
            values = [int(rng.random() < rate[0][subject % entities]), int(rng.random() < rate[1][subject % entities])]
            odd = [int(v) for v in rng.choice([-2, -1, 0, 1, 2], 2)]
            fraud, default = [o if rng.random() < 0.2 else v for v, o in zip(values, odd, strict=True)]
            items.append(Item(1, subject=subject, fraud=fraud, default=default))
        else:
            one, two = (1 + int(rng.integers(entities)) for _ in range(2))
            items.append(Item(1, (1 + applied % 90, one, two, 0), 10.0))
            applied += 1
    return items


def scored(items: list[Item]) -> Iterator[tuple[int, np.ndarray]]:
    """Index and entity states of each application, observed in three calls."""
    events, graph = encode(items), EntityGraph()
    for start, end in ((0, 40), (40, 41), (41, len(items))):
        part = cut(events, start, end)
        own = own_of(part)
        yield from zip((own - 1).tolist(), graph.observe(part, own, links_for(own)).entity_state, strict=True)


@settings(max_examples=40, deadline=None)
@given(streams())
def test_scores_are_the_posterior_mean_under_the_prior_of_all_entities_of_the_slot(items: list[Item]) -> None:
    for i, state in list(scored(items))[::5]:
        for label, column in COLUMN.items():
            for slot in (0, 1, 2):
                results = known(items, i, label, slot)
                assert state[slot, column] == pytest.approx(score(results, items[i].entities[slot]), rel=1e-5)


@settings(max_examples=40, deadline=None)
@given(streams(), st.data())
def test_a_retry_sees_the_scores_without_its_own_result(items: list[Item], data: st.DataObject) -> None:
    graph, none = EntityGraph(), np.empty(0, dtype=np.int64)
    graph.observe(encode(items), none, links_for(none))
    chosen = data.draw(st.sampled_from([i for i, item in enumerate(items) if item.subject < 0]))
    own = np.array([chosen + 1])
    state = graph.review(own, links_for(own)).entity_state[0]
    for label, column in COLUMN.items():
        for slot in (0, 1, 2):
            results = known(items, len(items), label, slot, without=chosen)
            assert state[slot, column] == pytest.approx(score(results, items[chosen].entities[slot]), rel=1e-5)


def test_an_outcome_moves_its_entity_and_a_correction_moves_it_back() -> None:
    """40 dealers, of which a quarter is bad: one result of a stranger says much, its correction takes it back."""
    items = [Item(1, (1 + i % 90, 1 + i % 40, 0, 0), 10.0) for i in range(200)]
    items += [Item(1, subject=i, fraud=int(i % 40 < 10), default=0) for i in range(200)]
    items.append(Item(1, (91, 99, 0, 0), 10.0))
    ask = Item(1, (92, 99, 0, 0), 10.0)
    reports = [Item(1, subject=200, fraud=value) for value in (1, 0, -1)]
    states = dict(scored([*items, ask, reports[0], ask, reports[1], ask, reports[2], ask]))
    at = len(items)
    before, bad, good, unknown = (float(states[at + 2 * i][1, COLUMN["fraud"]]) for i in range(4))
    assert before == pytest.approx(0.25) and unknown == pytest.approx(before)
    assert bad > 0.49 and good < 0.17  # the prior counts for two results

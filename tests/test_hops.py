"""Two hops: what they are by definition, strictly before each application, whatever the batches."""

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from bench.gpu_streams import HOP_ARRAYS, batches, random_log
from features.events import APPLICATION, Events
from features.graph import EntityGraph
from features.hops import FAR, NEAR, Hops
from features.neighborhood import FANOUT, Neighborhood, join
from features.schema import SLOTS_MAX
from gpu_kernels.reference import Reference

BITS = np.arange(SLOTS_MAX, dtype=np.uint64)


def walked(log: Events, most: int, *, deep: bool = True) -> tuple[EntityGraph, list[Neighborhood]]:
    """A graph after the log, in stretches of `most` events, and the views of all its applications."""
    graph, views = EntityGraph(deep), []
    for start in range(0, len(log), most):
        part = Events(log.fields[start : start + most], log.time_ms[start : start + most])
        own = np.ascontiguousarray(part.fields["sequence"][part.fields["kind"] == APPLICATION])
        views.append(graph.observe(part, own, np.ones((len(own), SLOTS_MAX), dtype=np.bool_)))
    return graph, views


def joined(views: Sequence[Neighborhood]) -> Hops:
    return Hops.join([view.hops for view in views if view.hops is not None])


def shown(hops: Hops) -> dict[str, NDArray[np.int64]]:
    """HOP_ARRAYS with the applications' numbers, which do not depend on the table."""
    return {
        name: hops.application[getattr(hops, name)] if name in ("near", "far") else getattr(hops, name)
        for name in HOP_ARRAYS
    }


def assert_same(one: Hops, other: Hops) -> None:
    first, second = shown(one), shown(other)
    for name in HOP_ARRAYS:
        np.testing.assert_array_equal(first[name], second[name], name)
    for name, array in one.given().items():
        np.testing.assert_array_equal(array, other.given()[name], name)


@pytest.mark.parametrize("seed", range(6))
def test_equals_the_definition(seed: int) -> None:
    rng, graph, oracle = np.random.default_rng(seed), EntityGraph(deep=True), Reference()
    seen = 0
    for part, own, links in batches(rng, random_log(rng, 160, int(rng.choice([2, 4, 20])), forgets=0.03), 30):
        hops = graph.observe(part, own, links).hops
        assert hops is not None
        found, expected = shown(hops), oracle.observe(part, own, links)
        for name in HOP_ARRAYS:
            np.testing.assert_array_equal(found[name], expected[name], name)
        seen += len(hops.far)
    assert seen > 1000


def test_no_batch_changes_what_an_application_saw() -> None:
    """Alone, it sees nothing later; reports and requests to forget stand between others of a batch."""
    log = random_log(np.random.default_rng(1), 120, 4, forgets=0.02)
    _, alone = walked(log, 1)
    for most in (7, 120):
        assert_same(joined(walked(log, most)[1]), joined(alone))


def test_the_graph_is_none_the_other_for_it() -> None:
    """To the bit, labels too, which go back and forth while hops are walked."""
    log = random_log(np.random.default_rng(2), 400, 5, forgets=0.02)
    (deep, views), (plain, expected) = walked(log, 90), walked(log, 90, deep=False)
    for name, array in plain.arrays().items():
        assert deep.arrays()[name].tobytes() == array.tobytes(), name
    for view, other in zip(views, expected, strict=True):
        assert other.hops is None
        for one, two in zip(view[:-1], other[:-1], strict=True):
            np.testing.assert_array_equal(one, two)


def test_the_first_hop_begins_with_the_neighbours_of_the_small_network() -> None:
    _, views = walked(random_log(np.random.default_rng(3), 300, 3), 100)
    for view in views:
        assert view.hops is not None
        given = view.hops.given()
        place = given["near_place"][:, :, :FANOUT]
        np.testing.assert_array_equal(place >= 0, view.neighbor_mask)
        near = np.vstack([given["near_state"], np.zeros((1, view.neighbor_state.shape[-1]), np.float32)])[place]
        np.testing.assert_array_equal(near, view.neighbor_state)


def test_at_most_so_many() -> None:
    hops = joined(walked(random_log(np.random.default_rng(4), 150, 1, reports=0.1), 50)[1])
    assert (hops.near_count.max(), hops.far_count.max()) == (NEAR, FAR)
    given = hops.given()
    assert given["near_place"].shape == (len(hops.near_count), SLOTS_MAX, NEAR)
    assert given["far_place"].shape == (len(hops.near), SLOTS_MAX * FAR)
    assert (np.sort(given["far_place"][given["far_place"] >= 0]) == np.arange(len(hops.far))).all()


def test_review_leaves_out_the_application_itself() -> None:
    """Of the last one in the log, before which there is all else: as it was seen before it came."""
    log = random_log(np.random.default_rng(5), 200, 3, reports=0.2, forgets=0)
    last = int(log.fields["sequence"][log.fields["kind"] == APPLICATION][-1])
    graph, views = walked(Events(log.fields[:last], log.time_ms[:last]), 50)
    again = graph.review(np.array([last]), np.ones((1, SLOTS_MAX), dtype=np.bool_))
    whole = joined(views)
    assert again.hops is not None
    assert_same(again.hops, whole.take(np.array([len(whole.near_count) - 1])))


def test_some_rows_and_slots() -> None:
    log = random_log(np.random.default_rng(6), 150, 4)
    _, views = walked(log, 150)
    whole = joined(views)
    rows = np.array([5, 3, 20, 3])
    some = whole.take(rows, 6)
    for at, row in enumerate(rows):
        one = whole.take(np.array([row]))
        keep = np.repeat(np.arange(SLOTS_MAX), one.near_count[0]) < 6
        assert_same(some.take(slice(at, at + 1)), one.take(slice(None), 6))
        np.testing.assert_array_equal(one.near[keep], some.take(slice(at, at + 1)).near)
    both = Hops.join([whole.take(slice(0, 30)), whole.take(slice(30, None))])
    assert_same(both, whole)
    two = join(views[0], views[0])
    assert two.hops is not None and len(two.hops.near_count) == 2 * len(whole.near_count)


def test_what_is_emptied_later_is_left_out() -> None:
    """Of who asks, what is seen by the slots; of who is seen, what they had seen by theirs."""
    whole = joined(walked(random_log(np.random.default_rng(7), 120, 3, forgets=0), 120)[1])
    rng = np.random.default_rng(8)
    emptied = rng.integers(0, 1 << SLOTS_MAX, len(whole.near_count)).astype(np.uint64)
    by_application = rng.integers(0, 1 << SLOTS_MAX, 120).astype(np.uint64)
    left = whole.without(emptied, by_application)
    empty = emptied[:, None] >> BITS & np.uint64(1) == 1
    assert not left.near_count[empty].any()
    np.testing.assert_array_equal(left.near_count[~empty], whole.near_count[~empty])
    kept = ~np.repeat(empty.ravel(), whole.near_count.ravel())
    np.testing.assert_array_equal(left.near, whole.near[kept])
    gone = by_application[left.application[left.near]][:, None] >> BITS & np.uint64(1) == 1
    assert not left.far_count[gone].any()
    np.testing.assert_array_equal(left.far_count[~gone], whole.far_count[kept][~gone])
    far_kept = np.repeat((kept[:, None] & ~_by_near(whole, by_application)).ravel(), whole.far_count.ravel())
    np.testing.assert_array_equal(left.far, whole.far[far_kept])


def _by_near(hops: Hops, by_application: NDArray[np.uint64]) -> NDArray[np.bool_]:
    return np.asarray(by_application[hops.application[hops.near]][:, None] >> BITS & np.uint64(1) == 1)

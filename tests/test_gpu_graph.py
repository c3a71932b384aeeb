"""DeviceGraph = EntityGraph = the oracle, bit for bit, whatever the batches and the order of threads."""

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.gpu_streams import ARRAYS, batches, differing, graph_differences, random_log
from features import graph_kernels as graph
from features.events import (
    APPLICATION,
    FORGOTTEN,
    LABEL_PRESUMED_GOOD,
    LABEL_UNCHANGED,
    LABEL_UNKNOWN,
    Events,
)
from features.graph import EntityGraph
from features.hops import FAR, NEAR
from features.neighborhood import FANOUT, N_ENTITY, N_GRAPH, N_NEIGHBOR, empty_view
from features.schema import RECORD_MAX, SLOTS_MAX
from gpu_kernels import copying, hops
from gpu_kernels import graph as device_graph
from gpu_kernels.apply import TOTALS
from gpu_kernels.device import Device
from gpu_kernels.gather import View
from gpu_kernels.graph import DeviceGraph
from gpu_kernels.layout import FOLDER
from tests.gpu_devices import NAMES, opened

Batch = tuple[Events, Any, Any]
SMALL = 2000  # logs of each device, beside those that hypothesis draws


@pytest.mark.parametrize("name", NAMES)
def test_equals_entity_graph_on_many_small_logs(name: str) -> None:
    device, rows = opened(name), 0
    for seed in range(SMALL):
        differing, seen, _ = graph_differences(device, seed, 24, 16, deep=True)
        assert not differing, (seed, differing)
        rows += seen
    assert rows > 5 * SMALL


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=120, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 80), st.integers(1, 80))
def test_equals_the_oracle(name: str, seed: int, events: int, most: int) -> None:
    differing, _, _ = graph_differences(opened(name, seed), seed, events, most, oracle=True, deep=True)
    assert not differing


@pytest.mark.parametrize("name", NAMES)
def test_equals_where_priors_are_estimated_and_rooms_grow(name: str) -> None:
    """Long logs: enough results for a prior from them, a first room of two entities, and one batch of all."""
    estimated = 0
    for seed, most in ((1, 40), (2, 300), (3, 800)):
        differing, _, some = graph_differences(opened(name), seed, 800, most, oracle=True, room=(2, 1, 1))
        assert not differing, (seed, differing)
        estimated += some
    assert estimated > 500


class Busy(copying.Copy):
    """Records the next stretch of a log on the host after each piece that is copied."""

    def __init__(self, device: Device, host: EntityGraph, log: Iterator[Batch], seen: list[Any]) -> None:
        super().__init__(device, host)
        self._host, self._log, self._seen = host, log, seen

    def _put(self, there: DeviceGraph, records: Any, at: Any) -> None:
        super()._put(there, records, at)
        if isinstance(at, slice) and (batch := next(self._log, None)):  # else it is being finished
            self._host.observe(*batch)
            self._seen.append(batch[0].fields)


@pytest.mark.parametrize("name", NAMES)
def test_a_graph_of_the_host_goes_on_on_the_device(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Copied anywhere in a log, at once or while it is recorded, it says what the host's says from there on."""
    device, rows, meanwhile = opened(name), 0, 0
    for seed in range(120):
        rng, seen = np.random.default_rng(seed), list[Any]()
        monkeypatch.setattr(copying, "RECORDS", int(rng.choice([3, 20, 1 << 18])))
        forgets = 0.0 if seed % 3 else 0.02
        long = seed % 30 == 1  # long enough for priors that are estimated from a slot's totals
        log = random_log(rng, 900 if long else 90, 40 if long else int(rng.choice([3, 8, 40])), forgets)
        host, parts, copied = EntityGraph(), batches(rng, log, 12), 700 if long else int(rng.integers(0, 60))
        while host.sequence < copied:
            host.observe(*next(parts))
        copy = Busy(device, host, parts, seen) if seed % 4 else copying.Copy(device, host)
        there = copy.finish(copy.take(), seen)
        assert (there.sequence, there.last_ms) == (host.sequence, host.last_ms)
        meanwhile += len(seen)
        for batch in parts:
            assert differing(device, host.observe(*batch), there.observe(*batch)) == [], (seed, copied)
            rows += len(batch[1])
    assert rows > 1000 and meanwhile > 300


@pytest.mark.parametrize("name", NAMES)
def test_a_graph_larger_than_the_first_room_is_copied(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its hash still moving into a larger one, in several parts."""
    monkeypatch.setattr(copying, "RECORDS", 1 << 14)
    device, log = opened(name), random_log(np.random.default_rng(1), 16_000, 1 << 20, forgets=0.0, reports=0.1)
    host, none, no_links = EntityGraph(), np.empty(0, np.int64), np.empty((0, 16), np.bool_)
    cut = next(
        i for i in range(0, 15_000, 50) if host.observe(part_of(log, i, i + 50), none, no_links) and moving(host)
    )
    there = copying.at_once(device, host)
    part = part_of(log, cut + 50, cut + 300)
    own = np.ascontiguousarray(part.fields["sequence"][part.fields["kind"] == APPLICATION])
    links = np.ones((len(own), 16), np.bool_)
    assert differing(device, host.observe(part, own, links), there.observe(part, own, links)) == []


def part_of(log: Events, start: int, end: int) -> Events:
    return Events(log.fields[start:end], log.time_ms[start:end])


def moving(graph: EntityGraph) -> bool:
    return bool(graph._memory.moving)


@pytest.mark.parametrize("name", NAMES)
def test_hops_are_equal_on_long_logs(name: str) -> None:
    """Entities of more uses than a ring holds, over many batches and in one."""
    for seed, most in ((4, 60), (5, 700)):
        differing, _, _ = graph_differences(opened(name), seed, 700, most, deep=True, room=(2, 1, 1))
        assert not differing, (seed, differing)


def seen(order: int, most: int) -> list[View]:
    rng = np.random.default_rng(5)
    found, log = DeviceGraph(opened("shim", order)), random_log(rng, 200, 8)
    return [found.observe(*batch) for batch in batches(rng, log, most)]


def test_the_order_of_threads_changes_nothing() -> None:
    for one, other in zip(seen(1, 90), seen(2, 90), strict=True):
        for name in ARRAYS:
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


@pytest.mark.parametrize("name", NAMES)
def test_what_does_not_continue_the_log_is_refused(name: str) -> None:
    log, none, no_links = random_log(np.random.default_rng(0), 9, 5), np.empty(0, np.int64), np.empty((0, 16), np.bool_)
    refused = DeviceGraph(opened(name))
    refused.observe(Events(log.fields[:4], log.time_ms[:4]), none, no_links)
    with pytest.raises(ValueError, match="events from 5 on"):
        refused.observe(Events(log.fields[5:], log.time_ms[5:]), none, no_links)
    with pytest.raises(ValueError, match="own ones among them"):
        refused.observe(Events(log.fields[4:], log.time_ms[4:]), np.array([99]), np.ones((1, 16), np.bool_))
    with pytest.raises(ValueError, match="no application"):
        refused.review(np.array([99]), np.ones((1, 16), np.bool_))
    assert refused.sequence == 4


def test_shapes_and_constants_are_those_of_the_features() -> None:
    """gpu_kernels stands below features and states them again; here they are held together."""
    view, expected = View.empty(np, np.zeros(2, np.int64), np.zeros(2, np.int64)), empty_view(2, np.zeros(2, np.int64))
    for name in ARRAYS:
        assert getattr(view, name).shape == getattr(expected, name).shape
    source = (FOLDER / "graph.cuh").read_text()
    defined = {name: value for name, value in re.findall(r"#define (\w+) ([\d.e-]+|\(-\d\))\s", source)}
    said = {name: float(value.strip("()")) for name, value in defined.items()}
    assert said == {
        "SLOTS": SLOTS_MAX, "RECORD": RECORD_MAX, "RING": graph.RING, "KEPT": graph.KEPT, "BUCKETS": graph.BUCKETS,
        "WINDOWS": len(graph.WIDTHS_MS), "FANOUT": FANOUT, "ENTITY": N_ENTITY, "GRAPH": N_GRAPH, "NEIGHBOR": N_NEIGHBOR,
        "TOTALS": TOTALS, "HOUR_MS": graph.HOUR_MS, "SPREAD_MIN": graph.SPREAD_MIN, "RATE_PRIOR": graph.RATE_PRIOR,
        "RATE_WEIGHT": graph.RATE_WEIGHT, "KNOWN_MIN": graph.KNOWN_MIN, "BAD_MIN": graph.BAD_MIN,
        "WEIGHT_LEAST": graph.WEIGHT_RANGE[0], "WEIGHT_MOST": graph.WEIGHT_RANGE[1], "UNKNOWN": LABEL_UNKNOWN,
        "UNCHANGED": LABEL_UNCHANGED, "PRESUMED_GOOD": LABEL_PRESUMED_GOOD,
    }  # fmt: skip
    widths = re.search(r"width_ms\[WINDOWS\] = {([\d, ]+)}", source)
    assert widths is not None and [int(width) for width in widths[1].split(",")] == graph.WIDTHS_MS.tolist()
    assert (device_graph.APPLICATION, device_graph.FORGOTTEN) == (APPLICATION, FORGOTTEN)
    assert re.findall(r"#define (?:NEAR|FAR) (\d+)", (FOLDER / "hops.cu").read_text()) == [str(NEAR), str(FAR)]
    assert (hops.NEAR, hops.FAR) == (NEAR, FAR)

"""Random logs, and what a device makes of them against EntityGraph and the oracle, for the tests and `bench gpu`."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.events import APPLICATION, EVENT, EVENT_VERSION, FORGOTTEN, REPORT, Events
from features.graph import EntityGraph
from features.hops import Hops
from features.schema import SLOTS_MAX
from gpu_kernels.device import Device
from gpu_kernels.gather import View
from gpu_kernels.graph import ROOM, DeviceGraph
from gpu_kernels.hops import DeviceHops
from gpu_kernels.reference import Reference

ARRAYS = ("entity_state", "graph_state", "neighbor_state", "neighbor_mask")
HOP_COUNTS = ("near_count", "near_code", "far_count", "far_code")
HOP_ARRAYS = (*HOP_COUNTS, "near", "far")
START_MS = 1_700_000_000_000
SPREAD = np.uint64(0xD1342543DE82EF95)  # odd: tokens fill 64 bits, as keyed ones do, and a hash spreads them
GAPS_MS = np.array([0, 0, 1, 60_000, 1_800_000, 24_000_000, 540_000_000], dtype=np.int64)


def random_log(
    rng: np.random.Generator, events: int, identifiers: int, forgets: float = 0.01, reports: float | None = None
) -> Events:
    """A log of applications that share `identifiers` of each of eight kinds, reports, and a share `forgets` of requests
    to forget; the share `reports` is drawn too where it is None.

    Slots 2i and 2i + 1 draw from one kind, so an application may name an entity twice.
    """
    fields = np.zeros(events, dtype=EVENT)
    fields["version"], fields["sequence"] = EVENT_VERSION, np.arange(1, events + 1)
    share = rng.uniform(0.1, 0.7) if reports is None else reports
    fields["kind"] = np.where(rng.random(events) < share, REPORT, APPLICATION)
    fields["kind"][rng.random(events) < forgets] = FORGOTTEN
    for label in ("fraud", "default"):
        fields[label] = rng.choice([-2, -1, 0, 0, 1, 1, 2], events)
    applied, forgotten = (fields["kind"] == kind for kind in (APPLICATION, FORGOTTEN))
    fields["fraud"][applied] = fields["default"][applied] = -2
    kind = np.arange(SLOTS_MAX) // 2 + 1
    tokens = ((kind << 32) + rng.integers(0, identifiers, (events, SLOTS_MAX))).astype(np.uint64) * SPREAD
    tokens[rng.random((events, SLOTS_MAX)) < 0.3] = 0
    fields["tokens"][applied] = tokens[applied]
    fields["tokens"][forgotten, 0] = tokens[forgotten, 0]
    fields["tokens"][forgotten, 1] = rng.integers(0, 1 << SLOTS_MAX, forgotten.sum())
    fields["schema"] = np.where(applied, rng.integers(1, 3, events), forgotten * rng.integers(0, 3, events))
    fields["amount"] = np.where(applied, rng.choice([0.0, 10.0, 250.5, *rng.lognormal(9, 1, 5)], events), 0)
    fields["record"] = np.where(
        rng.random((events, 1)) < 0.1, np.nan, rng.normal(size=(events, fields["record"].shape[1]))
    )
    reach = np.maximum(fields["sequence"] - rng.integers(-1, 60, events), 0)  # some name the future, or a report
    fields["subject"] = np.where(fields["kind"] == REPORT, reach, 0)
    return Events(fields, START_MS + np.cumsum(rng.choice(GAPS_MS, events)))


def batches(
    rng: np.random.Generator, log: Events, most: int
) -> Iterator[tuple[Events, NDArray[np.int64], NDArray[np.bool_]]]:
    """The log in stretches of at most `most` events; of each some own applications and their linking slots."""
    start = 0
    while start < len(log):
        end = start + int(rng.integers(1, most + 1))
        part = Events(log.fields[start:end], log.time_ms[start:end])
        own = part.fields["sequence"][part.fields["kind"] == APPLICATION]
        own = np.ascontiguousarray(own[rng.random(len(own)) < 0.8])
        yield part, own, rng.random((len(own), SLOTS_MAX)) < 0.5
        start = end


def differing(device: Device, expected: Any, found: View) -> list[str]:
    """Names of the arrays of a view that are not equal in every bit but the payload of a NaN."""
    names = []
    for name in ARRAYS:
        one = expected[name] if isinstance(expected, dict) else getattr(expected, name)
        other = device.host(getattr(found, name)).astype(one.dtype)
        if one.size != other.size or not np.array_equal(one, other.reshape(one.shape), equal_nan=one.dtype != np.bool_):
            names.append(name)
    return names


def differing_hops(device: Device, expected: Hops | None, found: DeviceHops | None) -> list[str]:
    """Names of the arrays of hops that are not equal in every bit but the payload of a NaN."""
    if expected is None or found is None:
        return ["no hops"]
    given, number = expected.given(), expected.application.astype(np.int32)
    pairs = {name: (getattr(expected, name), getattr(found, name)) for name in HOP_COUNTS}
    pairs |= {name: (number[getattr(expected, name)], getattr(found, name)) for name in ("near", "far")}
    pairs |= {name: (given[name], getattr(found, name)) for name in ("near_state", "far_state")}
    return [
        name for name, (one, other) in pairs.items()
        if not np.array_equal(one, device.host(other), equal_nan=one.dtype == np.float32)
    ]  # fmt: skip


def graph_differences(
    device: Device, seed: int, events: int, most: int, *, oracle: bool = False, deep: bool = False,
    room: tuple[int, int, int] = ROOM,
) -> tuple[list[str], int, int]:  # fmt: skip
    """What differs on a random log in batches of at most `most`: names of arrays, rows compared, estimated priors.

    oracle: against gpu_kernels.reference too; deep: hops as well. An estimated prior is a score that the entity's own
    slot drew elsewhere.
    """
    rng = np.random.default_rng(seed)
    log = random_log(rng, events, int(rng.choice([3, 8, 40])))
    host, found, reference = EntityGraph(deep), DeviceGraph(device, room, deep), Reference()
    names: set[str] = set()
    rows = estimated = 0
    for part, own, links in batches(rng, log, most):
        view, expected = found.observe(part, own, links), host.observe(part, own, links)
        names |= set(differing(device, expected, view))
        names |= set(differing_hops(device, expected.hops, view.hops) if deep else ())
        if oracle:
            told = reference.observe(part, own, links)
            names |= {f"{name} of the oracle" for name in differing(device, told, view)}
            if view.hops is not None:
                same = {n: np.array_equal(told[n], device.host(getattr(view.hops, n))) for n in HOP_ARRAYS}
                names |= {f"{name} of the oracle" for name in HOP_ARRAYS if not same[name]}
        rows += len(own)
        estimated += int((abs(expected.entity_state[..., 20] - expected.entity_state[..., 13]) > 1e-6).sum())
        asked = log.fields["sequence"][: host.sequence][log.fields["kind"][: host.sequence] == APPLICATION]
        if len(asked):
            again, links = rng.choice(asked, 3), rng.random((3, SLOTS_MAX)) < 0.5
            one, other = host.review(again, links), found.review(again, links)
            names |= {f"{name} of review" for name in differing(device, one, other)}
            names |= {f"{name} of review" for name in (differing_hops(device, one.hops, other.hops) if deep else ())}
    return sorted(names), rows, estimated

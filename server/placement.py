"""Where a tenant's batches are decided: on the device, graph, trees and network, or on the CPU; never partly.

The CPU's graph records every event, so it can go on at once, and only the device's is ever behind: it sees what others
recorded with the next batch that it decides. A batch that meets a failure anywhere is decided by the CPU, whose graph
records it only then; what the device's graph has become is not asked: it is dropped, and copied anew when the device is
back. Both say the same to the bit, so neither replies nor evidence tell which one it was, but for a network's last
digits.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from features.application import Application, Snapshot
from features.assemble import count, snapshot, uncounted
from features.consent import within
from features.events import Events
from features.graph import EntityGraph
from features.neighborhood import Neighborhood
from features.profiles import Profiles
from features.schema import SLOTS_MAX, Schema
from features.store import Started
from models.device import CPU, FAILURES, Device
from models.scorer import Scorer, Scores
from server.products import Product

if TYPE_CHECKING:  # loaded where there is a device, and never else
    from gpu_kernels.copying import Copy
    from gpu_kernels.device import Device as Kernels
    from gpu_kernels.graph import DeviceGraph

BEHIND_MAX = 1 << 16  # events after which the device's graph records them without a batch
_NONE = np.empty(0, dtype=np.int64)
_NO_LINKS = np.empty((0, SLOTS_MAX), dtype=np.bool_)

Told = tuple[Snapshot, Scores]


@dataclass(frozen=True)
class Found:
    """What the device says of a batch: the view of its own applications and, by product that was scored there, what its
    models saw and said.
    """

    view: Neighborhood
    scored: Mapping[str, Told]


@dataclass(frozen=True)
class _Part:
    """Own applications of one product; rows: int64 [n], which of the view."""

    schema: Schema
    scorer: Scorer
    applications: Sequence[Application]
    profiles: Profiles
    rows: NDArray[np.int64]


class _Twin(NamedTuple):
    """A graph on a device."""

    kernels: "Kernels"
    graph: "DeviceGraph"


class Placement:
    """One tenant's graph, `host`, and its twin on a device. Batches of fewer than `batch_min` are the CPU's."""

    def __init__(self, device: Device = CPU, batch_min: int = 1) -> None:
        self.host = EntityGraph()
        self._device, self._batch_min = device, batch_min
        self._twin: _Twin | None = None
        self._copy: Copy | None = None  # on its way
        self._behind: list[Events] = []  # recorded by `host` alone, since the twin or the copy saw it last

    @property
    def sequence(self) -> int:
        """Number of the last event recorded."""
        return self.host.sequence

    @property
    def there(self) -> bool:
        """Whether the graph is on the device that works now."""
        return self._working() is not None

    def hold(self, graph: EntityGraph) -> None:
        """Go on with another graph of the host."""
        self.host = graph
        self._leave()

    async def return_to(self, sequencer: asyncio.Lock) -> bool:
        """Copy the graph to a device that works and has none; whether it did. One call at a time. The sequencer is held
        at the beginning and at the end: what is recorded in between is copied last.
        """
        kernels = self._device.kernels
        if kernels is None or self.there:
            return False
        try:
            async with sequencer:
                copy = await asyncio.to_thread(self._begin, kernels)
            there = await asyncio.to_thread(_taken, kernels, copy)
            async with sequencer:
                await asyncio.to_thread(self._finish, kernels, copy, there)
        except FAILURES as error:
            self._device.fail(error)
        self._copy = None
        return self.there

    def copy(self) -> None:
        """As `return_to`, where nothing is recorded meanwhile."""
        kernels = self._device.kernels
        if kernels is None:
            return
        try:
            copy = self._begin(kernels)
            self._finish(kernels, copy, _taken(kernels, copy))
        except FAILURES as error:
            self._device.fail(error)

    def observe(self, events: Events, own: NDArray[np.int64], links: NDArray[np.bool_]) -> Neighborhood:
        """As EntityGraph.observe: on the CPU. The device's graph sees the events later."""
        view, twin = self.host.observe(events, own, links), self._working()
        if twin is None:
            self._twin = None
            self._device.cpu_batches += len(own) > 0 and self._device.index is not None
        if twin is None and self._copy is None:
            self._behind.clear()
        elif len(events):
            self._behind.append(events)
            if twin is not None and sum(map(len, self._behind)) > BEHIND_MAX:
                self._catch_up(twin)
        return view

    def decide(
        self, products: Mapping[str, Product], batch: Sequence[Application], started: Started, own: NDArray[np.int64],
        places: Sequence[int],
    ) -> Found | None:  # fmt: skip
        """Record the events read with a batch and score its own applications on the device. None where the CPU has to:
        then nothing is recorded. own: as of `observe`; places: where each of them stands in the batch.
        """
        twin = self._working()
        if twin is None or not len(own) or len(own) < self._batch_min or not self.host.follows(started.events, own):
            return None
        if any(scorer.deep for i in places for scorer in products[batch[i].product].challengers.values()):
            return None  # the host scores challengers, and no hops come back from the device
        try:
            links = links_of([batch[i] for i in places])
            found = self._decided(twin, started.events, own, links, _parts(products, batch, started, places))
        except FAILURES as error:
            self._device.fail(error)
            self._leave()
            return None
        self._behind.clear()
        self._device.batches += 1
        self.host.observe(started.events, _NONE, _NO_LINKS)
        return found

    def _decided(
        self, twin: _Twin, events: Events, own: NDArray[np.int64], links: NDArray[np.bool_], parts: Mapping[str, _Part]
    ) -> Found:
        from models.device_scorer import fetched

        place = own - events.fields["sequence"][0]
        named, time_ms = events.fields["tokens"][place] != 0, events.time_ms[place]
        asked, told = {}, {}
        with twin.kernels.deciding():
            twin.graph.deep = self.host.deep
            view = twin.graph.observe(_joined([*self._behind, events]), own, links)
            for name, part in parts.items():
                there, rows = part.scorer.there, part.rows
                if there is not None and there.kernels is twin.kernels:
                    features, state = _uncounted(part, named[rows], time_ms[rows])
                    some = view if len(rows) == len(own) else view.take(twin.kernels.xp, rows)
                    asked[name], told[name] = there.ask(some, features), (there, features, state)
            host, answers = fetched(twin.kernels, view, asked)
        scored = {}
        for name, (there, features, state) in told.items():
            schema, rows = parts[name].schema, parts[name].rows
            count(schema, features, host, rows)
            scores = there.scores(asked[name], answers[name])
            scored[name] = snapshot(schema, features, state, host, rows), scores
        return Found(host, scored)

    def _catch_up(self, twin: _Twin) -> None:
        try:
            with twin.kernels.deciding():
                twin.kernels.fetch([twin.graph.observe(_joined(self._behind), _NONE, _NO_LINKS).graph_state])
            self._behind.clear()
        except FAILURES as error:
            self._device.fail(error)
            self._leave()

    def _working(self) -> _Twin | None:
        twin = self._twin
        return twin if twin is not None and self._device.working and twin.kernels is self._device.kernels else None

    def _leave(self) -> None:
        self._twin = self._copy = None
        self._behind.clear()

    def _begin(self, kernels: "Kernels") -> "Copy":
        from gpu_kernels.copying import Copy

        self._leave()
        self._copy = Copy(kernels, self.host)
        return self._copy

    def _finish(self, kernels: "Kernels", copy: "Copy", there: "DeviceGraph") -> None:
        """Unless the host's graph is another by now, or the device."""
        if self._copy is copy and self._device.kernels is kernels:
            with kernels.beside():
                there = copy.finish(there, [events.fields for events in self._behind])
            self._leave()
            self._twin = _Twin(kernels, there)


def _taken(kernels: "Kernels", copy: "Copy") -> "DeviceGraph":
    with kernels.beside():
        return copy.take()


def links_of(applications: Sequence[Application]) -> NDArray[np.bool_]:
    """bool [B, 16], as EntityGraph.observe takes them."""
    slots: list[Any] = [a.schema.link_slots for a in applications]
    return np.frombuffer(bytearray().join(slots), np.bool_).reshape(-1, SLOTS_MAX)


def _parts(
    products: Mapping[str, Product], batch: Sequence[Application], started: Started, places: Sequence[int]
) -> dict[str, _Part]:
    """By product the own applications, in the order of the batch."""
    of: dict[str, list[tuple[int, int]]] = {}
    for row, i in enumerate(places):
        of.setdefault(batch[i].product, []).append((i, row))
    parts = {}
    for name, some in of.items():
        at, rows = np.ascontiguousarray(np.array(sorted(some), dtype=np.int64).T)
        product, profiles = products[name], started.profiles[products[name].schema.name]
        if len(at) < len(profiles):
            profiles = profiles.take(started.place[at])
        parts[name] = _Part(product.schema, product.scorer, [batch[i] for i in at.tolist()], profiles, rows)
    return parts


def _joined(some: Sequence[Events]) -> Events:
    if len(some) == 1:
        return some[0]
    return Events(np.concatenate([e.fields for e in some]), np.concatenate([e.time_ms for e in some]))


def _uncounted(
    part: _Part, named: NDArray[np.bool_], time_ms: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """As features.assemble.uncounted, without what the log does not have; named: bool [n, 16], the slots it has."""
    schema, profiles, applications = part.schema, part.profiles, within(part.applications, named)
    if applications is not part.applications:
        profiles = profiles.about(schema, named)
    return uncounted(schema, applications, profiles, time_ms)

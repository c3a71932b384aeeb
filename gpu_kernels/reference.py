"""What the kernels must give, in NumPy and by definition: each view is computed anew from all applications before it.

Slow on purpose, and shaped unlike the kernels: histories in lists, no ring, no bucket, no hash. Sums of doubles run in
log order (`np.cumsum` adds one by one), so equality is bit for bit. Times must not fall.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu_kernels.apply import SLOTS, TOTALS
from gpu_kernels.gather import ENTITY, FANOUT, GRAPH, NEIGHBOR, RING
from gpu_kernels.graph import APPLICATION, FORGOTTEN, Log
from gpu_kernels.hops import FAR, NEAR
from gpu_kernels.trees import Forest

WINDOWS_MS = tuple(hours * 3_600_000 // 6 for hours in (1, 24, 168, 720))
HOUR_MS = 3_600_000.0


@dataclass
class _Application:
    time_ms: int
    event: np.void
    entities: list["_Entity | None"]
    number: int = 0
    label: list[int] = field(default_factory=lambda: [-1, -1])


@dataclass
class _Entity:
    number: int
    slot: int = 0
    uses: list[tuple[_Application, int]] = field(default_factory=list)
    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros((2, 2), dtype=np.int64))


class Reference:
    """One tenant's graph. `observe` as gpu_kernels.graph.DeviceGraph's, its arrays NumPy's by name, hops too."""

    def __init__(self) -> None:
        self._entities: dict[int, _Entity] = {}
        self._applications: dict[int, _Application] = {}
        self._totals = np.zeros((SLOTS, 2, TOTALS))

    def observe(self, log: Log, own: NDArray[np.int64], links: NDArray[np.bool_]) -> dict[str, NDArray[Any]]:
        """Record the events, which continue the log; the view strictly before each own one."""
        row_of = {int(sequence): row for row, sequence in enumerate(own)}
        views, hops = [], []
        for event, time_ms in zip(log.fields, log.time_ms.tolist(), strict=True):
            if event["kind"] == APPLICATION:
                application = self._named(event, time_ms)
                row = row_of.get(int(event["sequence"]))
                if row is not None:
                    views.append(self._view(application, links[row]))
                    hops.append(_hops(application))
                self._record(application)
            elif event["kind"] == FORGOTTEN:
                self._forget(int(event["tokens"][0]), int(event["tokens"][1]), int(event["schema"]))
            elif event["subject"] in self._applications and event["subject"] < event["sequence"]:
                self._report(self._applications[int(event["subject"])], [int(event["fraud"]), int(event["default"])])
        names = ("entity_state", "graph_state", "neighbor_state", "neighbor_mask")
        return {name: np.array([view[i] for view in views]) for i, name in enumerate(names)} | _listed(hops)

    def _named(self, event: np.void, time_ms: int) -> _Application:
        entities: list[_Entity | None] = [None] * SLOTS
        for slot, token in enumerate(event["tokens"].tolist()):
            if token:
                found = entities[slot] = self._entities.setdefault(token, _Entity(len(self._entities)))
                found.slot = found.slot if found.uses else slot
        return _Application(time_ms, event, entities, len(self._applications))

    def _record(self, application: _Application) -> None:
        self._applications[int(application.event["sequence"])] = application
        for slot, entity in enumerate(application.entities):
            if entity is not None:
                entity.uses.append((application, slot))

    def _report(self, application: _Application, reported: list[int]) -> None:
        for which, said in enumerate(reported):
            known = application.label[which]
            now = {2: 0 if known == -1 else known, -2: known}.get(said, said)
            for entity in application.entities if now != known else ():
                if entity is not None:
                    self._count(entity, which, known, -1)
                    self._count(entity, which, now, 1)
            application.label[which] = now

    def _count(self, entity: _Entity, which: int, value: int, by: int) -> None:
        if value >= 0:
            self._total(entity, which, -1.0)
            entity.counts[which, value] += by
            self._total(entity, which, 1.0)

    def _total(self, entity: _Entity, which: int, by: float) -> None:
        bad, results = float(entity.counts[which, 1]), float(entity.counts[which].sum())
        if results:
            terms = (by, by * results, by * bad, by * results * results, by * bad * bad / results)
            self._totals[entity.slot, which] += terms

    def _forget(self, applicant: int, slots: int, schema: int) -> None:
        entity = self._entities.get(applicant)
        named: dict[int, _Entity] = {}
        for application, own_slot in entity.uses if entity else ():
            if own_slot != 0 or (schema and application.event["schema"] != schema):
                continue
            for slot, other in enumerate(application.entities):
                if other is not None and slots >> slot & 1:
                    named[other.number] = other
                    application.entities[slot] = None
        for _, other in sorted(named.items()):
            for which in range(2):
                self._total(other, which, -1.0)
                other.counts[which] = 0
            other.uses = [(a, slot) for a, slot in other.uses if a.entities[slot] is other]
            other.slot = other.uses[0][1] if other.uses else other.slot
            for application, _ in other.uses:
                for which in range(2):
                    self._count(other, which, application.label[which], 1)

    def _view(self, application: _Application, links: NDArray[np.bool_]) -> tuple[NDArray[Any], ...]:
        state = np.full((SLOTS, ENTITY), np.nan, dtype=np.float32)
        neighbors = np.zeros((SLOTS, FANOUT, NEIGHBOR), dtype=np.float32)
        mask = np.zeros((SLOTS, FANOUT), dtype=np.bool_)
        shared: dict[int, tuple[_Application, int]] = {}
        for slot, entity in enumerate(application.entities):
            if entity is None:
                continue
            recent = [a for a, _ in entity.uses[: -RING - 1 : -1]]
            state[slot] = self._entity(entity, application, recent)
            for k, other in enumerate(recent):
                same = other.entities[0] is application.entities[0]
                if k < FANOUT:
                    mask[slot, k] = True
                    labels = [other.label[0] == 1, other.label[0] == 0, other.label[1] == 1, other.label[1] == 0]
                    hours = (application.time_ms - other.time_ms) / HOUR_MS
                    neighbors[slot, k] = [hours, other.event["amount"], same, *labels, *other.event["record"]]
                if links[slot] and not same:
                    shared[id(other)] = (other, shared.get(id(other), (other, 0))[1] + 1)
        linked = [other for other, _ in shared.values()]
        known = [other.label[0] for other in linked if other.label[0] >= 0]
        day = sum(application.time_ms - other.time_ms <= 24 * HOUR_MS for other in linked)
        most = max((times for _, times in shared.values()), default=0)
        counts = [len(linked), len({id(other.entities[0]) for other in linked}), day, sum(known)]
        graph = np.array([*counts, (sum(known) + 0.5) / (len(known) + 10.0), most], dtype=np.float32)
        assert graph.shape == (GRAPH,)
        return state, graph, neighbors, mask

    def _entity(self, entity: _Entity, application: _Application, recent: list[_Application]) -> NDArray[np.float64]:
        out = np.full(ENTITY, np.nan)
        past, now_ms, amount = [a for a, _ in entity.uses], application.time_ms, np.float64(application.event["amount"])
        for w, width in enumerate(WINDOWS_MS):
            out[w] = sum(a.time_ms // width > now_ms // width - 6 for a in past)
        out[4], out[6] = len(past), 0.0
        if past:
            amounts = np.array([a.event["amount"] for a in past])
            total, squares, largest = np.cumsum(amounts)[-1], np.cumsum(amounts * amounts)[-1], amounts.max()
            out[5] = (now_ms - past[-1].time_ms) / HOUR_MS
            out[6] = (now_ms - past[0].time_ms) / HOUR_MS / 24.0
            mean = out[7] = total / len(past)
            for column, against in ((8, mean if total > 0 else 0.0), (9, amounts[-1]), (10, largest)):
                if against > 0:
                    out[column] = amount / against
            variance = squares / len(past) - mean * mean
            if variance > 1e-6 * mean * mean:
                out[11] = (amount - mean) / np.sqrt(variance)
        known = [a.label[0] for a in recent if a.label[0] >= 0]
        out[14] = (sum(known) + 0.5) / (len(known) + 10.0)
        for which in range(2):
            bad, results = entity.counts[which, 1], entity.counts[which].sum()
            mean, weight = _prior(*self._totals[entity.slot, which])
            out[12 + 3 * which], out[13 + 3 * which] = bad, (bad + 0.5) / (results + 10.0)
            out[20 + which] = (bad + mean * weight) / (results + weight)
        out[17] = entity.counts[0].sum()
        applicants = {id(a.entities[0]) for a in recent}
        out[18], out[19] = len(applicants), len(applicants - {id(application.entities[0])})
        return out


_Item = tuple[int, int]  # number of an application, and its flags
_Near = tuple[_Item, list[list[_Item]]]  # and, by slot, what it had seen


def _hops(application: _Application) -> list[list[_Near]]:
    """By slot, what an application that is not yet recorded sees."""

    def item(other: _Application) -> _Item:
        known = [other.label[which] == value for which in range(2) for value in (1, 0)]
        return other.number, sum(
            bit << i for i, bit in enumerate([other.entities[0] is application.entities[0], *known])
        )

    def before(entity: _Entity | None, than: int, most: int) -> list[_Application]:
        return [a for a, _ in reversed(entity.uses) if a.number < than][:most] if entity else []

    return [
        [
            (item(near), [[item(far) for far in before(of, near.number, FAR)] for of in near.entities])
            for near in before(entity, application.number, NEAR)
        ]
        for entity in application.entities
    ]


def _listed(hops: list[list[list[_Near]]]) -> dict[str, NDArray[Any]]:
    nears = [near for slots in hops for slot in slots for near in slot]
    fars = [far for _, slots in nears for slot in slots for far in slot]
    near_count = np.array([len(slot) for slots in hops for slot in slots], dtype=np.uint8).reshape(-1, SLOTS)
    far_count = np.array([len(slot) for _, slots in nears for slot in slots], dtype=np.uint8).reshape(-1, SLOTS)
    near, far = (np.array(some, dtype=np.int64).reshape(-1, 2) for some in ([item for item, _ in nears], fars))
    return {
        "near_count": near_count, "near": near[:, 0], "near_code": near[:, 1], "far_count": far_count,
        "far": far[:, 0], "far_code": far[:, 1],
    }  # fmt: skip


def _prior(known: float, results: float, bad: float, squares: float, spread: float) -> tuple[float, float]:
    """(mean, weight) of the beta prior by the method of moments."""
    if known < 20 or results - known < 20 or bad < 5:
        return 0.05, 10.0
    mean = bad / results
    excess = (spread - mean * bad) - mean * (1.0 - mean) * (known - 1.0)
    if excess <= 0.0:
        return mean, 1000.0
    weight = mean * (1.0 - mean) * (results - squares / results - known + 1.0) / excess - 1.0
    return mean, min(max(weight, 2.0), 1000.0)


def margins(forest: Forest, rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """float32 [B] log-odds of rows float32 [B, n]: leaves added tree by tree in float32, the base last."""
    total, every = np.zeros(len(rows), dtype=np.float32), np.arange(len(rows))
    for root in forest.roots:
        node = np.full(len(rows), root)
        while (inner := forest.left[node] >= 0).any():
            x = rows[every, forest.feature[node]]
            left = (x < forest.threshold[node]) | (np.isnan(x) & forest.default_left[node])
            node = np.where(inner, np.where(left, forest.left[node], forest.right[node]), node)
        total += forest.value[node]
    return total + np.float32(forest.base)


def contributions(
    forest: Forest, tables: Mapping[str, NDArray[Any]], rows: NDArray[np.float32], columns: int
) -> NDArray[np.float64]:
    """float64 [B, columns]: of each block the line of its table that the row's answers name, added block by block."""
    out, every = np.zeros((len(rows), columns)), np.arange(len(rows))
    for i in range(len(tables["split_at"]) - 1):
        answers = np.zeros(len(rows), dtype=np.int64)
        for bit, node in enumerate(tables["split"][tables["split_at"][i] : tables["split_at"][i + 1]]):
            x = rows[every, forest.feature[node]]
            answers |= ((x < forest.threshold[node]) | (np.isnan(x) & forest.default_left[node])) << np.int64(bit)
        mine = tables["column"][tables["columns_at"][i] : tables["columns_at"][i + 1]]
        lines = tables["table"][tables["table_at"][i] : tables["table_at"][i + 1]].reshape(-1, max(len(mine), 1))
        if len(mine):
            out[:, mine] += lines[answers]
    return out

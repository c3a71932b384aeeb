"""A batch of applications, their profiles and their neighbourhoods become the Snapshot that models see.

The same function serves and makes training rows. Sums in float64, columns in float32.
"""

from collections.abc import Sequence
from functools import cache
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from features.application import Application, Snapshot
from features.neighborhood import NEIGHBOR_COLUMNS, Neighborhood
from features.profiles import Profiles
from features.schema import SOURCE_FRESH, SOURCE_MISSING, SOURCE_STALE, Schema
from features.statistics import ENTITY_STATS, GRAPH_STATS

DAY_MS = 86_400_000.0
SKEW_MS = 300_000  # by which the clock of whoever fetched may be ahead of the store's
_ENTITY_COLUMN = {name: i for i, name in enumerate(ENTITY_STATS)}
_GRAPH_COLUMN = {name: i for i, name in enumerate(GRAPH_STATS)}


class _Plan:
    """Where the columns of sources, velocity and graph features come from; made once for a schema.

    age, completeness: int64 [S], columns; first, width: int64 [S], of a source's features among all; source_of: int64
    [N], the source of each; fresh_days: float64 [S].
    velocity, slot, stat: int64 [n], features of entities with one slot; several: (column, slots, statistic) of the
    others, of which a feature takes the largest; graph, graph_stat: int64 [m].
    """

    def __init__(self, schema: Schema) -> None:
        single, graph = [], []
        self.several: list[tuple[int, slice, int]] = []
        for column, feature in enumerate(schema.features):
            if feature.origin == "velocity":
                entity, stat = schema.entities[feature.entity], _ENTITY_COLUMN[feature.stat]
                if entity.slots == 1:
                    single.append((column, entity.first_slot, stat))
                else:
                    slots = slice(entity.first_slot, entity.first_slot + entity.slots)
                    self.several.append((column, slots, stat))
            elif feature.origin == "graph":
                graph.append((column, _GRAPH_COLUMN[feature.stat]))
        self.velocity, self.slot, self.stat = np.array(single, dtype=np.int64).reshape(-1, 3).T
        sources = schema.sources.values()
        self.age = np.array([schema.column[f"{s.name}_age_days"] for s in sources], dtype=np.int64)
        self.completeness = np.array([schema.column[f"{s.name}_completeness"] for s in sources], dtype=np.int64)
        self.first = np.array([s.first for s in sources], dtype=np.int64)
        self.width = np.array([len(s.features) for s in sources], dtype=np.int64)
        self.source_of = np.repeat(np.arange(len(self.width)), self.width)
        self.fresh_days = np.array([s.fresh_days for s in sources], dtype=np.float64)
        self.graph, self.graph_stat = np.array(graph, dtype=np.int64).reshape(-1, 2).T


_plan = cache(_Plan)


def assemble(
    schema: Schema, applications: Sequence[Application], profiles: Profiles, view: Neighborhood, rows: NDArray[np.int64]
) -> Snapshot:
    """The Snapshot of applications of one schema; `rows` int64 [B] are theirs in `view`."""
    return complete(schema, declared(schema, applications), profiles, view, rows)


def declared(schema: Schema, applications: Sequence[Application]) -> NDArray[np.float64]:
    """float64 [B, F], NaN but for what applications of one schema say themselves."""
    features = np.full((len(applications), len(schema.features)), np.nan, dtype=np.float64)
    numbers = [a.numbers for a in applications]
    told = np.array([len(some) for some in numbers])
    at = np.fromiter(map(schema.column.__getitem__, chain.from_iterable(numbers)), np.int64, told.sum())
    said = np.fromiter(chain.from_iterable([some.values() for some in numbers]), np.float64, told.sum())
    features.ravel()[np.repeat(np.arange(len(told)) * len(schema.features), told) + at] = said
    return features


def complete(
    schema: Schema, features: NDArray[np.float64], profiles: Profiles, view: Neighborhood, rows: NDArray[np.int64]
) -> Snapshot:
    """The Snapshot of what `declared` gave, which is filled, for the same applications."""
    plan = _plan(schema)
    age_days, source_state = freshness(schema, profiles.fetched_at_ms, view.time_ms[rows])
    numbers = np.where((source_state != SOURCE_MISSING)[:, plan.source_of], profiles.numbers, np.float32(np.nan))
    features[:, schema.source_columns] = numbers
    features[:, plan.age] = age_days
    if len(plan.age):
        features[:, plan.completeness] = np.add.reduceat(~np.isnan(numbers), plan.first, axis=1) / plan.width
    count(schema, features, view, rows)
    schema.fill_crosses(features)
    return snapshot(schema, features.astype(np.float32), source_state, view, rows)


def freshness(
    schema: Schema, fetched_at_ms: NDArray[np.int64], now_ms: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
    """Age in days, NaN where missing, and state of what each source knows, both [B, S]; what was fetched after the
    application, int64 [B], is not known at it. fetched_at_ms: int64 [B, S], 0 for nothing.
    """
    age_ms = now_ms[:, None] - fetched_at_ms
    missing = (fetched_at_ms == 0) | (age_ms < -SKEW_MS)
    age_days = np.where(missing, np.nan, np.maximum(age_ms, 0) / DAY_MS)
    stale = np.where(age_days <= _plan(schema).fresh_days, SOURCE_FRESH, SOURCE_STALE)
    return age_days, np.where(missing, SOURCE_MISSING, stale).astype(np.uint8)


def count(schema: Schema, features: NDArray[np.floating], view: Neighborhood, rows: NDArray[np.int64]) -> None:
    """Fill the velocity and graph columns of `features` [B, F] from `rows` of the view."""
    entity_state, plan = view.entity_state[rows, : schema.slots], _plan(schema)
    features[:, plan.velocity] = entity_state[:, plan.slot, plan.stat]
    for column, slots, stat in plan.several:
        features[:, column] = np.fmax.reduce(entity_state[:, slots, stat], axis=1)
    features[:, plan.graph] = view.graph_state[rows][:, plan.graph_stat]


def snapshot(
    schema: Schema, features: NDArray[np.float32], source_state: NDArray[np.uint8], view: Neighborhood,
    rows: NDArray[np.int64],
) -> Snapshot:  # fmt: skip
    """The Snapshot of finished features [B, F] and source states [B, S], with the neighbours in `rows` of the view."""
    return Snapshot(
        features,
        np.ascontiguousarray(view.entity_state[rows, : schema.slots]),
        np.ascontiguousarray(
            view.neighbor_state[rows, : schema.slots, :, : len(NEIGHBOR_COLUMNS) + len(schema.record)]
        ),
        np.ascontiguousarray(view.neighbor_mask[rows, : schema.slots]),
        source_state,
    )

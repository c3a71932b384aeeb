"""A batch of applications, their profiles and their neighbourhoods become the Snapshot that models see.

The same function serves and makes training rows. Sums in float64, columns in float32.
"""

from collections.abc import Mapping, Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from features.application import Application, Profile, Snapshot
from features.neighborhood import NEIGHBOR_COLUMNS, Neighborhood
from features.schema import SOURCE_FRESH, SOURCE_MISSING, SOURCE_STALE, Schema, Source
from features.statistics import ENTITY_STATS, GRAPH_STATS

DAY_MS = 86_400_000.0
SKEW_MS = 300_000  # by which the clock of whoever fetched may be ahead of the store's
_ENTITY_COLUMN = {name: i for i, name in enumerate(ENTITY_STATS)}
_GRAPH_COLUMN = {name: i for i, name in enumerate(GRAPH_STATS)}


class _Plan:
    """Where the columns of velocity and graph features come from; made once for a schema.

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
        self.graph, self.graph_stat = np.array(graph, dtype=np.int64).reshape(-1, 2).T


_plan = cache(_Plan)


def assemble(
    schema: Schema,
    applications: Sequence[Application],
    profiles: Sequence[Mapping[str, Profile]],
    view: Neighborhood,
    rows: NDArray[np.int64],
) -> Snapshot:
    """The Snapshot of applications of one schema; `rows` int64 [B] are theirs in `view`, `profiles` by source name."""
    features = np.full((len(applications), len(schema.features)), np.nan, dtype=np.float64)
    source_state = np.full((len(applications), len(schema.sources)), SOURCE_MISSING, dtype=np.uint8)
    for b, application in enumerate(applications):
        for name, number in application.numbers.items():
            features[b, schema.column[name]] = number
        for s, source in enumerate(schema.sources.values()):
            completeness = schema.column[f"{source.name}_completeness"]
            features[b, completeness] = 0
            profile = profiles[b].get(source.name)
            if profile is None:
                continue
            age_days, source_state[b, s] = freshness(source, profile.fetched_at_ms, int(view.time_ms[rows[b]]))
            if source_state[b, s] != SOURCE_MISSING:
                features[b, source.columns] = profile.numbers
                features[b, schema.column[f"{source.name}_age_days"]] = age_days
                features[b, completeness] = np.mean(~np.isnan(profile.numbers))
    count(schema, features, view, rows)
    for i, expression in schema.crosses:
        features[:, i] = expression(lambda name: features[:, schema.column[name]])
    return snapshot(schema, features.astype(np.float32), source_state, view, rows)


def freshness(source: Source, fetched_at_ms: int, now_ms: int) -> tuple[float, int]:
    """Age in days and state of what a source knows; what was fetched after the application is not known at it."""
    if now_ms - fetched_at_ms < -SKEW_MS:
        return np.nan, SOURCE_MISSING
    age_days = max(now_ms - fetched_at_ms, 0) / DAY_MS
    return age_days, SOURCE_FRESH if age_days <= source.fresh_days else SOURCE_STALE


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

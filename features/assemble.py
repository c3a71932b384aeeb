"""A batch of applications, their profiles and their neighbourhoods become the Snapshot that models see.

The same function serves and makes training rows. Sums in float64, columns in float32.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from itertools import chain

import numpy as np
from numba import njit
from numpy.typing import NDArray

from features.application import Application, Snapshot
from features.neighborhood import FANOUT, N_ENTITY, NEIGHBOR_COLUMNS, Neighborhood
from features.profiles import Profiles
from features.schema import SOURCE_FRESH, SOURCE_MISSING, SOURCE_STALE, Schema
from features.statistics import ENTITY_STATS, GRAPH_STATS

DAY_MS = 86_400_000.0
SKEW_MS = 300_000  # by which the clock of whoever fetched may be ahead of the store's
_ENTITY_COLUMN = {name: i for i, name in enumerate(ENTITY_STATS)}
_GRAPH_COLUMN = {name: i for i, name in enumerate(GRAPH_STATS)}


class _Plan:
    """Where the columns of sources, velocity and graph features come from; made once for a schema.

    sources: int64 [S, 4], of each its age's and its completeness's column, and its features' place among all from, to;
    fresh_days: float64 [S]. velocity: int64 [n, 4], column, the entity's slots from, to, statistic; links: int64
    [m, 2], column, statistic.
    """

    def __init__(self, schema: Schema) -> None:
        velocity, links = [], []
        for column, feature in enumerate(schema.features):
            if feature.origin == "velocity":
                entity = schema.entities[feature.entity]
                slots = entity.first_slot, entity.first_slot + entity.slots
                velocity.append((column, *slots, _ENTITY_COLUMN[feature.stat]))
            elif feature.origin == "graph":
                links.append((column, _GRAPH_COLUMN[feature.stat]))
        self.velocity, self.links = _integers(velocity, 4), _integers(links, 2)
        sources = [
            (
                schema.column[f"{name}_age_days"],
                schema.column[f"{name}_completeness"],
                s.first,
                s.first + len(s.features),
            )
            for name, s in schema.sources.items()
        ]
        self.sources = _integers(sources, 4)
        self.fresh_days = np.array([s.fresh_days for s in schema.sources.values()], dtype=np.float64)


def _integers(rows: Sequence[tuple[int, ...]], width: int) -> NDArray[np.int64]:
    return np.array(rows, dtype=np.int64).reshape(-1, width)


_plan = cache(_Plan)


def assemble(
    schema: Schema, applications: Sequence[Application], profiles: Profiles, view: Neighborhood, rows: NDArray[np.int64]
) -> Snapshot:
    """The Snapshot of applications of one schema; `rows` int64 [B] are theirs in `view`."""
    made = empty_snapshot(schema, len(applications))
    return complete(schema, declared(schema, applications), profiles, view, rows, made)


def declared(schema: Schema, applications: Sequence[Application]) -> NDArray[np.float64]:
    """float64 [B, F], NaN but for what applications of one schema say themselves."""
    numbers = [a.numbers for a in applications]
    told = [len(some) for some in numbers]
    at = np.fromiter(map(schema.column.__getitem__, chain.from_iterable(numbers)), np.int64, sum(told))
    said = np.fromiter(chain.from_iterable([some.values() for some in numbers]), np.float64, len(at))
    features = np.empty((len(told), len(schema.features)))
    _declare(np.array(told, dtype=np.int64), at, said, features)
    return features


def empty_snapshot(schema: Schema, rows: int) -> Snapshot:
    """Room for so many rows."""
    state = (rows, schema.slots, FANOUT, len(NEIGHBOR_COLUMNS) + len(schema.record))
    return Snapshot(
        np.empty((rows, len(schema.features)), dtype=np.float32),
        np.empty((rows, schema.slots, N_ENTITY), dtype=np.float32),
        np.empty(state, dtype=np.float32), np.empty(state[:3], dtype=np.bool_),
        np.empty((rows, len(schema.sources)), dtype=np.uint8),
    )  # fmt: skip


def complete(
    schema: Schema, features: NDArray[np.float64], profiles: Profiles, view: Neighborhood, rows: NDArray[np.int64],
    made: Snapshot,
) -> Snapshot:  # fmt: skip
    """Fill the rows of `made` from what `declared` gave of the same applications, which is filled too."""
    plan = _plan(schema)
    _fill(
        plan.sources, schema.source_columns, plan.fresh_days, profiles.fetched_at_ms, profiles.numbers, view.time_ms,
        rows, made.source_state, features,
    )  # fmt: skip
    _count(plan.velocity, plan.links, view.entity_state, view.graph_state, rows, features)
    schema.fill_crosses(features)
    made.features[:] = features
    return _with_neighbors(made, view, rows)


def uncounted(
    schema: Schema, applications: Sequence[Application], profiles: Profiles, time_ms: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """float32 [B, F] of applications of one schema at their times, int64 [B], NaN where the graph counts, and the
    sources' states, uint8 [B, S]; `count` fills in the rest where no cross reads it.
    """
    features, plan, rows = declared(schema, applications), _plan(schema), np.arange(len(applications))
    state = np.empty((len(rows), len(schema.sources)), dtype=np.uint8)
    _fill(
        plan.sources, schema.source_columns, plan.fresh_days, profiles.fetched_at_ms, profiles.numbers, time_ms, rows,
        state, features,
    )  # fmt: skip
    schema.fill_crosses(features)
    return features.astype(np.float32), state


def freshness(
    schema: Schema, fetched_at_ms: NDArray[np.int64], now_ms: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
    """Age in days, NaN where missing, and state of what each source knows, both [B, S]; what was fetched after the
    application, int64 [B], is not known at it. fetched_at_ms: int64 [B, S], 0 for nothing.
    """
    age_days, state = np.empty(fetched_at_ms.shape), np.empty(fetched_at_ms.shape, dtype=np.uint8)
    _age(fetched_at_ms, now_ms, _plan(schema).fresh_days, age_days, state)
    return age_days, state


def count(schema: Schema, features: NDArray[np.floating], view: Neighborhood, rows: NDArray[np.int64]) -> None:
    """Fill the velocity and graph columns of `features` [B, F] from `rows` of the view."""
    plan = _plan(schema)
    _count(plan.velocity, plan.links, view.entity_state, view.graph_state, rows, features)


def snapshot(
    schema: Schema, features: NDArray[np.float32], source_state: NDArray[np.uint8], view: Neighborhood,
    rows: NDArray[np.int64],
) -> Snapshot:  # fmt: skip
    """The Snapshot of finished features [B, F] and source states [B, S], with the neighbours in `rows` of the view."""
    made = empty_snapshot(schema, len(rows))
    return _with_neighbors(replace(made, features=features, source_state=source_state), view, rows)


def _with_neighbors(made: Snapshot, view: Neighborhood, rows: NDArray[np.int64]) -> Snapshot:
    _copy(
        view.entity_state, view.neighbor_state, view.neighbor_mask, rows, made.entity_state, made.neighbor_state,
        made.neighbor_mask,
    )  # fmt: skip
    _, slots, _, columns = made.neighbor_state.shape
    return made if view.hops is None else replace(made, hops=view.hops.of(rows, slots, columns - len(NEIGHBOR_COLUMNS)))


@njit(cache=True, nogil=True)
def _copy(entity_state, neighbor_state, neighbor_mask, rows, to_state, to_neighbors, to_mask):  # type: ignore[no-untyped-def]
    """What a schema has of each row: the view's arrays are wider."""
    _, slots, fanout, columns = to_neighbors.shape
    for i in range(len(rows)):
        for slot in range(slots):
            for stat in range(to_state.shape[2]):
                to_state[i, slot, stat] = entity_state[rows[i], slot, stat]
            to_neighbors[i, slot] = 0  # as where there is none
            for k in range(fanout):
                to_mask[i, slot, k] = neighbor_mask[rows[i], slot, k]
                if to_mask[i, slot, k]:
                    for column in range(columns):
                        to_neighbors[i, slot, k, column] = neighbor_state[rows[i], slot, k, column]


@njit(cache=True, nogil=True)
def _declare(told, at, said, features):  # type: ignore[no-untyped-def]
    features[:] = np.nan
    k = 0
    for i in range(len(told)):
        for _ in range(told[i]):
            features[i, at[k]] = said[k]
            k += 1


@njit(cache=True, nogil=True)
def _fill(sources, columns, fresh_days, fetched_at_ms, numbers, time_ms, rows, state, features):  # type: ignore[no-untyped-def]
    age_days = np.empty(fetched_at_ms.shape)
    _age(fetched_at_ms, time_ms[rows], fresh_days, age_days, state)
    _fill_sources(sources, columns, age_days, state, numbers, features)


@njit(cache=True, nogil=True)
def _age(fetched_at_ms, now_ms, fresh_days, age_days, state):  # type: ignore[no-untyped-def]
    for i in range(fetched_at_ms.shape[0]):
        for s in range(fetched_at_ms.shape[1]):
            age_ms = now_ms[i] - fetched_at_ms[i, s]
            if fetched_at_ms[i, s] == 0 or age_ms < -SKEW_MS:
                age_days[i, s], state[i, s] = np.nan, SOURCE_MISSING
            else:
                age_days[i, s] = max(age_ms, 0) / DAY_MS
                state[i, s] = SOURCE_FRESH if age_days[i, s] <= fresh_days[s] else SOURCE_STALE


@njit(cache=True, nogil=True)
def _fill_sources(sources, columns, age_days, state, numbers, features):  # type: ignore[no-untyped-def]
    """What the sources know, how old it is and how much of it there is."""
    for i in range(len(features)):
        for s in range(len(sources)):
            age, completeness, begin, end = sources[s]
            known = 0
            for n in range(begin, end):
                number = numbers[i, n] if state[i, s] != SOURCE_MISSING else np.float32(np.nan)
                features[i, columns[n]] = number
                known += number == number
            features[i, age] = age_days[i, s]
            features[i, completeness] = known / (end - begin)


@njit(cache=True, nogil=True)
def _count(velocity, links, entity_state, graph_state, rows, features):  # type: ignore[no-untyped-def]
    """Of an entity with several slots the largest number known."""
    for i in range(len(rows)):
        for v in range(len(velocity)):
            column, begin, end, stat = velocity[v]
            most = np.float32(np.nan)
            for slot in range(begin, end):
                x = entity_state[rows[i], slot, stat]
                if x > most or most != most:
                    most = x
            features[i, column] = most
        for k in range(len(links)):
            features[i, links[k, 0]] = graph_state[rows[i], links[k, 1]]

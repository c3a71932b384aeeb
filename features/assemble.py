"""A batch of applications, their profiles and their neighbourhoods become the Snapshot that models see.

The same function serves and makes training rows. Sums in float64, columns in float32.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from features.application import Application, Profile, Snapshot
from features.graph import NEIGHBOR_COLUMNS, Neighborhood
from features.schema import (
    ENTITY_STATS,
    GRAPH_STATS,
    SOURCE_FRESH,
    SOURCE_MISSING,
    SOURCE_STALE,
    Schema,
)

DAY_MS = 86_400_000.0
_ENTITY_COLUMN = {name: i for i, name in enumerate(ENTITY_STATS)}
_GRAPH_COLUMN = {name: i for i, name in enumerate(GRAPH_STATS)}


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
            profile = profiles[b].get(source.name)
            if profile is None:
                continue
            features[b, source.columns] = profile.numbers
            age_days = (view.time_ms[rows[b]] - profile.fetched_at_ms) / DAY_MS
            features[b, schema.column[f"{source.name}_age_days"]] = age_days
            source_state[b, s] = SOURCE_FRESH if age_days <= source.fresh_days else SOURCE_STALE
    entity_state = view.entity_state[rows, : schema.slots]
    with np.errstate(all="ignore"):
        for i, feature in enumerate(schema.features):
            if feature.origin == "velocity":
                entity = schema.entities[feature.entity]
                slots = slice(entity.first_slot, entity.first_slot + entity.slots)
                features[:, i] = np.fmax.reduce(entity_state[:, slots, _ENTITY_COLUMN[feature.stat]], axis=1)
            elif feature.origin == "graph":
                features[:, i] = view.graph_state[rows, _GRAPH_COLUMN[feature.stat]]
    for i, expression in schema.crosses:
        features[:, i] = expression(lambda name: features[:, schema.column[name]])
    return Snapshot(
        features.astype(np.float32),
        np.ascontiguousarray(entity_state),
        np.ascontiguousarray(
            view.neighbor_state[rows, : schema.slots, :, : len(NEIGHBOR_COLUMNS) + len(schema.record)]
        ),
        np.ascontiguousarray(view.neighbor_mask[rows, : schema.slots]),
        source_state,
    )

"""Made-up rows that a bundle is scored on when it is written and again where it is loaded (R19, R23).

A runtime that scores them otherwise would decide otherwise than what was validated. The rows are nobody's: they come
from the raw bits of PCG64, whose stream NumPy keeps, so every machine makes the same ones.
"""

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.application import Snapshot
from features.hops import FAR, HOUR_MS, NEAR, Hops
from features.neighborhood import FANOUT, NEIGHBOR_COLUMNS
from features.schema import SOURCE_FRESH, Schema
from features.statistics import ENTITY_STATS

PROBE_ROWS = 16
PROBE_SEED = 1
TOLERANCE = 1e-5  # of a probability or the logarithm of a share; machines differ by 1e-7
_FLAGS = slice(2, 7)  # of NEIGHBOR_COLUMNS: outcomes, 0 or 1
_RECORD = slice(7, None)


def random_snapshot(schema: Schema, rows: int, seed: int, *, deep: bool = False) -> Snapshot:
    """Numbers over the magnitudes that occur, a tenth missing, absent entities and neighbours included; with hops if
    `deep`, which changes nothing of the rest.
    """
    random = _Random(seed)
    slots = schema.slots
    features = random.magnitudes(rows, len(schema.features))
    for i, feature in enumerate(schema.features):
        if feature.values:
            features[:, i] = np.floor(random.uniform(rows) * len(feature.values))
    features[random.uniform(*features.shape) < 0.1] = np.nan
    entity_state = random.magnitudes(rows, slots, len(ENTITY_STATS))
    entity_state[random.uniform(*entity_state.shape) < 0.1] = np.nan
    entity_state[random.uniform(rows, slots) < 0.2] = np.nan
    neighbor_state = random.magnitudes(rows, slots, FANOUT, len(NEIGHBOR_COLUMNS) + len(schema.record))
    neighbor_state[..., _FLAGS] = random.uniform(*neighbor_state[..., _FLAGS].shape) < 0.1
    neighbor_state[..., _RECORD][random.uniform(*neighbor_state[..., _RECORD].shape) < 0.1] = np.nan
    mask = np.arange(FANOUT) < np.floor(random.uniform(rows, slots, 1) * (FANOUT + 1))
    neighbor_state[~mask] = 0
    sources = np.full((rows, len(schema.sources)), SOURCE_FRESH, np.uint8)
    hops = _hops(random, schema, rows) if deep else None
    return Snapshot(features, entity_state, neighbor_state, mask, sources, hops)


def probe(schema: Schema, *, deep: bool = False) -> Snapshot:
    """The rows that every bundle of the schema is scored on; with hops if `deep`."""
    return random_snapshot(schema, PROBE_ROWS, PROBE_SEED, deep=deep)


def furthest(found: NDArray[np.float64], said: Sequence[Any]) -> float:
    """The largest difference between numbers float64 [PROBE_ROWS, ...], infinite where one is not finite."""
    return float(np.nan_to_num(np.abs(found - np.array(said)), nan=np.inf).max())


def _hops(random: "_Random", schema: Schema, rows: int) -> Hops:
    """A third of the slots see near applications, one to NEAR of them; of their slots a half see far ones."""
    shown = random.uniform(rows, schema.slots)
    near_count = np.where(shown < 1 / 3, 1 + np.floor(random.uniform(rows, schema.slots) * NEAR), 0).astype(np.uint8)
    near = int(near_count.sum(dtype=np.int64))
    far_count = np.floor(random.uniform(near, schema.slots) * 2 * (FAR + 1)).astype(np.uint8)
    far_count[far_count > FAR] = 0
    far = int(far_count.sum(dtype=np.int64))
    record = random.magnitudes(near + far, len(schema.record))
    record[random.uniform(*record.shape) < 0.1] = np.nan
    ago_ms = (random.magnitudes(near + far) * HOUR_MS).astype(np.int64)
    ago_ms[near:] += np.repeat(ago_ms[:near], far_count.sum(1, dtype=np.int64))
    codes = np.floor(random.uniform(near + far) * 32).astype(np.uint8)
    places = np.arange(near + far, dtype=np.int32)
    return Hops(
        near_count, places[:near], codes[:near], far_count, places[near:], codes[near:], np.zeros(rows, np.int64),
        places.astype(np.int64), -ago_ms, random.magnitudes(near + far), record,
    )  # fmt: skip


class _Random:
    def __init__(self, seed: int) -> None:
        self._bits = np.random.PCG64(seed)

    def uniform(self, *shape: int) -> NDArray[np.float64]:
        """float64 in [0, 1)."""
        raw = np.asarray(self._bits.random_raw(prod(shape)), dtype=np.uint64)
        return np.asarray((raw >> np.uint64(11)) * 2.0**-53, dtype=np.float64).reshape(shape)

    def magnitudes(self, *shape: int) -> NDArray[np.float32]:
        """float32, log-normal with mean 1 and deviation 2 of the logarithm (Box and Muller 1958)."""
        radius = np.sqrt(-2 * np.log1p(-self.uniform(*shape)))
        return np.asarray(np.exp(1 + 2 * radius * np.cos(2 * np.pi * self.uniform(*shape))), dtype=np.float32)

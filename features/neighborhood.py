"""What the graph tells of applications: a Neighborhood, strictly before each of them."""

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from features.schema import RECORD_MAX, SLOTS_MAX
from features.statistics import ENTITY_STATS, GRAPH_STATS

if TYPE_CHECKING:
    from features.hops import Hops

FANOUT = 8  # most recent applications of an entity that the graph network sees
NEIGHBOR_COLUMNS = ("gap_hours", "amount", "same_applicant", "fraud", "not_fraud", "default", "repaid")
N_ENTITY, N_GRAPH, N_NEIGHBOR = len(ENTITY_STATS), len(GRAPH_STATS), len(NEIGHBOR_COLUMNS) + RECORD_MAX


class Neighborhood(NamedTuple):  # made for every batch: see features.application.Reason
    """What was known strictly before each of B applications, NaN where nothing was.

    entity_state: float32 [B, 16, len(ENTITY_STATS)]; graph_state: float32 [B, len(GRAPH_STATS)];
    neighbor_state: float32 [B, 16, FANOUT, 15], newest first, NEIGHBOR_COLUMNS then the record;
    neighbor_mask: bool [B, 16, FANOUT]; as_of: int64 [B], sequence number of the last event seen;
    time_ms: int64 [B], the time that gaps are counted from; hops: where the graph was asked for them.
    """

    entity_state: NDArray[np.float32]
    graph_state: NDArray[np.float32]
    neighbor_state: NDArray[np.float32]
    neighbor_mask: NDArray[np.bool_]
    as_of: NDArray[np.int64]
    time_ms: NDArray[np.int64]
    hops: "Hops | None" = None


def join(first: Neighborhood, second: Neighborhood) -> Neighborhood:
    """The rows of two views, one after the other."""
    pairs: Any = zip(first[:-1], second[:-1], strict=True)
    arrays: Any = (np.concatenate(pair) for pair in pairs)
    hops = None if first.hops is None or second.hops is None else first.hops.join([first.hops, second.hops])
    return Neighborhood(*arrays)._replace(hops=hops)


def empty_view(rows: int, as_of: NDArray[np.int64]) -> Neighborhood:
    """What is known where nothing was seen: the view of so many applications, to be filled in."""
    return Neighborhood(
        np.full((rows, SLOTS_MAX, N_ENTITY), np.nan, dtype=np.float32),
        np.zeros((rows, N_GRAPH), dtype=np.float32),
        np.zeros((rows, SLOTS_MAX, FANOUT, N_NEIGHBOR), dtype=np.float32),
        np.zeros((rows, SLOTS_MAX, FANOUT), dtype=np.bool_),
        as_of,
        np.zeros(rows, dtype=np.int64),
    )

"""A tenant's graph and lists from its log: from the newest snapshot that fits and what came after it, else from the
beginning. Either way they are the same, bit for bit; a snapshot only saves time.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, cast

import numpy as np
from numpy.typing import NDArray

from features.events import EVENT, Events
from features.graph import EntityGraph
from features.graph_snapshot import Manifest, SnapshotError, load, newest_first
from features.lists import Lists
from features.schema import SLOTS_MAX
from features.store import EpochError, Store

_NONE = np.empty(0, dtype=np.int64)
_NO_LINKS = np.empty((0, SLOTS_MAX), dtype=np.bool_)
_NO_TOKENS = np.empty((0, SLOTS_MAX), dtype=np.uint64)


class Recording(Protocol):
    """A graph that goes on with the log."""

    @property
    def sequence(self) -> int:
        """Number of the last event recorded."""
        ...

    def observe(self, events: Events, own: NDArray[np.int64], links: NDArray[np.bool_]) -> object:
        """As EntityGraph.observe."""
        ...


async def rebuild(store: Store, snapshots: Path | None, warn: Callable[[str], None]) -> tuple[EntityGraph, Lists]:
    """Open the log and read all of it. snapshots: the tenant's folder of them; `warn` is told of those unfit, and why.

    Raises StoreError, SequenceGapError.
    """
    for folder in newest_first(snapshots) if snapshots is not None else ():
        last = await store.open()
        try:
            manifest = Manifest.read(folder)
            await store.resume(manifest.place)
            graph, lists = await asyncio.to_thread(load, folder, manifest)
        except (SnapshotError, EpochError) as error:
            warn(f"{folder}: {error}")
            continue
        await read_to(store, graph, lists, last)
        return graph, lists
    last, graph, lists = await store.open(), EntityGraph(), Lists()
    await read_to(store, graph, lists, last)
    return graph, lists


async def read_to(store: Store, graph: Recording, lists: Lists, last: int) -> None:
    """Record the log up to the event numbered `last`; the next page is fetched while one is recorded.

    Raises EpochError where the log holds less than is recorded.
    """
    if last < graph.sequence:
        raise EpochError("the log has lost events")
    fetched = await store.tail() if graph.sequence < last else Events(np.empty(0, dtype=EVENT), _NONE)
    while len(fetched) and graph.sequence + len(fetched) < last:
        recording = asyncio.to_thread(record, graph, lists, fetched)
        done = await asyncio.gather(recording, store.tail(), return_exceptions=True)  # neither outlives the other
        for error in done:
            if isinstance(error, BaseException):
                raise error
        fetched = cast(Events, done[1])
    record(graph, lists, fetched)
    if graph.sequence < last:
        raise EpochError(f"the log ends at {graph.sequence}, {last} expected")


def record(graph: Recording, lists: Lists, events: Events) -> None:
    """Record events that are nobody's own."""
    graph.observe(events, _NONE, _NO_LINKS)
    lists.observe(events, _NONE, _NO_TOKENS)

"""Keeps a graph and lists of its own by a tenant's log and writes them down now and then, in a process of its own: a
server would stand still for as long.
"""

import asyncio
import signal
from collections.abc import Callable
from pathlib import Path

from features.durability import EpochError, StoreError
from features.graph import EntityGraph, SequenceGapError
from features.graph_snapshot import write
from features.lists import Lists
from features.log import Place
from features.rebuild import read_to, rebuild, record
from features.store import Store


class SnapshotWriter:
    """Writes into the folder of one tenant, whose store it opens; `warn` is told of snapshots
    that do not fit, and of a log that is read again."""

    def __init__(self, store: Store, folder: Path, warn: Callable[[str], None]) -> None:
        self._store, self._folder, self._warn = store, folder, warn
        self._held: tuple[EntityGraph, Lists] | None = None
        self._rewritten = 0  # up to where the log was changed when what is held was read
        self._written: Place | None = None

    async def write(self) -> Path | None:
        """Read on and write; None where nothing has come since the last time. Raises StoreError, SequenceGapError."""
        graph, lists = await self._read()
        place = self._store.place
        if place == self._written or not place.sequence:
            return None
        folder = write(self._folder, place, graph, lists)
        self._written = place
        return folder

    async def _read(self) -> tuple[EntityGraph, Lists]:
        """What the log says by now. Where forgotten people have left it, what they left is read anew (R20)."""
        if self._held is not None:
            try:
                await read_to(self._store, *self._held, await self._store.position())
                record(*self._held, await self._store.tail())  # also says whether the log was changed
                if self._store.place.rewritten == self._rewritten:
                    return self._held
            except (EpochError, SequenceGapError) as error:
                self._warn(f"the log is read again: {error}")
        self._held = None
        self._held = await rebuild(self._store, self._folder, self._warn)
        self._rewritten = self._store.place.rewritten
        return self._held


async def keep_writing(writer: SnapshotWriter, every_seconds: float, say: Callable[[str], None]) -> None:
    """Write now and then until SIGTERM or SIGINT; what store or disk fail in is said and tried again."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    while not stop.is_set():
        try:
            if folder := await writer.write():
                say(f"written: {folder}")
        except (StoreError, SequenceGapError, OSError) as error:  # OSError: a full disk
            say(str(error))
        try:
            await asyncio.wait_for(stop.wait(), every_seconds)
        except TimeoutError:
            continue

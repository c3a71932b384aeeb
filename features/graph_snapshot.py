"""A tenant's graph and lists in a folder, so that a start reads only the end of the log; not what models see, which is
application.Snapshot.

<snapshots>/tenant-<name>/<ms it was written>/ holds one file for each array and a manifest: up to where the log was
read, what code counted (another code may count otherwise), and SHA-256 of every part of the files. It appears whole
or not at all. What does not fit is refused with its reason, and the log is read instead. It holds tokens only (R21).
"""

import hashlib
import json
import shutil
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from features.graph import EntityGraph
from features.lists import Lists
from features.log import Place

FORMAT = 1
MANIFEST = "snapshot.json"
KEPT = 2  # the newest ones: a start may still read the one before
COUNTING = ("events.py", "graph.py", "graph_kernels.py", "graph_memory.py", "lists.py", "schema.py", "statistics.py")
PART_BYTES = 1 << 25  # of a file, hashed apart: one core's work while another has the next
_CHUNK_BYTES = 1 << 20
_THREADS = 2
_ABANDONED_SECONDS = 3600.0  # after which a writer that left its temporary folder is thought dead


class SnapshotError(ValueError):
    """A snapshot that cannot be used; the message names the place and the reason."""


@dataclass(frozen=True)
class Manifest:
    """What a snapshot says of itself. arrays: by name its dtype, shape and SHA-256 of each part."""

    format: int
    code: str
    place: Place
    nodes: int
    applications: int
    last_ms: int
    arrays: dict[str, list[Any]]

    @classmethod
    def read(cls, folder: Path) -> "Manifest":
        """Raises SnapshotError where it is not one of this format, made by this code."""
        try:
            said = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
            read = cls(**said | {"place": Place(**said["place"])})
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise SnapshotError(f"{folder / MANIFEST}: cannot be read: {error}") from None
        if (read.format, read.code) != (FORMAT, code()):
            raise SnapshotError(f"{folder}: was written by another version")
        return read


def code() -> str:
    """Hash of the code that counts: what another code counted is not used."""
    made = hashlib.blake2b(digest_size=8)
    for name in COUNTING:
        made.update((Path(__file__).parent / name).read_bytes())
    return made.hexdigest()


def folder_of(snapshots: Path, tenant: str) -> Path:
    """Where a tenant's snapshots are."""
    return snapshots / f"tenant-{quote(tenant, safe='')}"


def newest_first(folder: Path) -> list[Path]:
    """The snapshots in a tenant's folder."""
    return sorted(folder.glob("[0-9]*"), reverse=True)


def write(folder: Path, place: Place, graph: EntityGraph, lists: Lists) -> Path:
    """Write a snapshot into a tenant's folder and delete all but the last KEPT of the same log; where it is."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".new-", dir=folder) as beside:
        new = Path(beside) / "new"
        new.mkdir()
        held = {"tokens": graph.tokens(), **graph.arrays(), **lists.arrays()}
        arrays = {name: [a.dtype.str, a.shape, _save(new / name, a)] for name, a in held.items()}
        made = Manifest(FORMAT, code(), place, graph.nodes, graph.applications, graph.last_ms, arrays)
        (new / MANIFEST).write_text(json.dumps(asdict(made), indent=1) + "\n", encoding="utf-8")
        before = [int(path.name) for path in newest_first(folder)[:1]]  # of a clock that was set back
        written = new.rename(folder / f"{max(time.time_ns() // 1_000_000, *(ms + 1 for ms in before), 0):013d}")
    _prune(folder, place)
    return written


def load(folder: Path, manifest: Manifest) -> tuple[EntityGraph, Lists]:
    """What a snapshot holds. Raises SnapshotError where a file is not the manifest's."""
    graph = EntityGraph.sized(manifest.nodes, manifest.applications, manifest.place.sequence, manifest.last_ms)
    counted, listed = graph.arrays(), Lists().arrays()
    wanted = {"tokens": np.empty(manifest.nodes, dtype=np.uint64), **counted, **listed}
    if wanted.keys() != manifest.arrays.keys():
        raise SnapshotError(f"{folder}: holds other arrays")
    for name, empty in listed.items():
        wanted[name] = np.empty((manifest.arrays[name][1][0], *empty.shape[1:]), dtype=empty.dtype)
    parts = [part for name, array in wanted.items() for part in _parts(folder / name, array, *manifest.arrays[name])]
    with ThreadPoolExecutor(_THREADS) as threads:
        list(threads.map(_fill, *zip(*parts, strict=True)))
    graph.index(wanted["tokens"])
    return graph, Lists.of(wanted)


def _prune(folder: Path, place: Place) -> None:
    """What is left of other logs, of before the forgotten left this one (R20), and of dead writers goes at once."""
    kept, now = 0, time.time()
    for path in newest_first(folder):
        try:
            of = Manifest.read(path).place
            fits = (of.owner, of.epoch, of.rewritten) == (place.owner, place.epoch, place.rewritten)
        except SnapshotError:
            fits = False
        kept += fits
        if not fits or kept > KEPT:
            shutil.rmtree(path, ignore_errors=True)
    for path in folder.glob(".new-*"):
        if path.exists() and now - path.stat().st_mtime > _ABANDONED_SECONDS:
            shutil.rmtree(path, ignore_errors=True)


def _bytes(array: NDArray[Any]) -> memoryview:
    return array.reshape(-1).view(np.uint8).data


def _cut(held: memoryview, size: int) -> Iterator[tuple[int, memoryview]]:
    """Where each piece of at most so many bytes begins, and it; one at least."""
    return ((at, held[at : at + size]) for at in range(0, max(len(held), 1), size))


def _save(file: Path, array: NDArray[Any]) -> list[str]:
    """Write an array's bytes; SHA-256 of each part of them, hex."""
    hashes = []
    with file.open("wb") as opened:
        for _, part in _cut(_bytes(array), PART_BYTES):
            opened.write(part)
            hashes.append(hashlib.sha256(part).hexdigest())
    return hashes


def _parts(
    file: Path, array: NDArray[Any], dtype: str, shape: list[int], hashes: list[str]
) -> list[tuple[Path, int, memoryview, str]]:
    """Of each part of a file where it begins, where it goes, its SHA-256. Raises SnapshotError: another array."""
    parts = list(_cut(_bytes(array), PART_BYTES))
    try:
        fits = (array.dtype.str, list(array.shape), array.nbytes) == (dtype, shape, file.stat().st_size)
    except OSError as error:
        raise SnapshotError(f"{file}: cannot be read: {error}") from None
    if not fits or len(parts) != len(hashes):
        raise SnapshotError(f"{file}: is not what the manifest says")
    return [(file, at, part, sha256) for (at, part), sha256 in zip(parts, hashes, strict=True)]


def _fill(file: Path, at: int, part: memoryview, sha256: str) -> None:
    """Read a part of a file. Raises SnapshotError where its bytes are others than those said."""
    digest = hashlib.sha256()
    try:
        with file.open("rb", buffering=0) as opened:
            opened.seek(at)
            for _, chunk in _cut(part, _CHUNK_BYTES):
                opened.readinto(chunk)
                digest.update(chunk)
    except OSError as error:
        raise SnapshotError(f"{file}: cannot be read: {error}") from None
    if digest.hexdigest() != sha256:
        raise SnapshotError(f"{file}: is not what the manifest says")

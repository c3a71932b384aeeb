"""How long a server takes to be ready when its tenant has a long log: from a snapshot, and from the log alone."""

import asyncio
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from redis.asyncio import Redis
from rich.progress import Progress

from bench import machine
from bench.graph import events
from bench.serving import SECRET, server_process
from features.embedded import embedded_store
from features.log import prefix
from features.round_trip import Command, round_trip

TENANT = "demo"
PAGE = 5_000
SEED = 12
DAY_MS = 86_400_000


async def fill(url: str, applications: int) -> None:
    """A log of so many random applications, one a second, the last of them a day ago."""
    rng, start_ms = np.random.default_rng(SEED), round(time.time() * 1000) - DAY_MS - 1000 * applications
    async with Redis.from_url(url) as redis:
        key, meta = prefix(TENANT) + "log", prefix(TENANT) + "meta"
        with Progress() as progress:
            task = progress.add_task("log", total=applications)
            for first in range(1, applications + 1, PAGE):
                # as in the world of `bench.world`: five new identifiers an application
                some = events(rng, first, min(PAGE, applications + 1 - first), applications, start_ms)
                added: list[Command] = [
                    ("XADD", key, f"{ms}-1", "e", event.tobytes())
                    for event, ms in zip(some.fields, some.time_ms.tolist(), strict=True)
                ]
                await round_trip(redis, added)
                progress.advance(task, len(added))
        await redis.hset(meta, mapping={"epoch": "0" * 16, "sequence": applications})


def run(applications: int) -> dict[str, object]:
    """Figures of the last line."""
    with tempfile.TemporaryDirectory(prefix="miaopi-") as folder, embedded_store() as url:
        asyncio.run(fill(url, applications))
        secrets = {"REDIS_URL": url, "MIAOPI_TOKEN_SECRETS": json.dumps({TENANT: SECRET})}
        began = time.perf_counter()
        write = [sys.executable, "-m", "features", "snapshot", "--tenant", TENANT, "--out", folder, "--once"]
        subprocess.run(write, env=secrets, check=True)
        figures: dict[str, object] = {"applications": applications, "written_s": round(time.perf_counter() - began, 2)}
        size = sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file())
        figures["snapshot_mb"] = round(size / 1e6, 1)
        empty = Path(folder) / "none"
        for name, snapshots in (("ready_from_snapshot_s", Path(folder)), ("ready_from_log_s", empty)):
            began = time.perf_counter()
            with server_process(url, tenant=TENANT, snapshots=snapshots):
                figures[name] = round(time.perf_counter() - began, 2)
        return {**figures, **machine.facts()}

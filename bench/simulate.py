"""A policy simulated over what another one decided, against really deciding by it (R17): every decision must be equal.

A world is decided twice through the engine, each time on a store of its own, under a policy and under one that is
stricter on default, milder on fraud and dearer. The second is then simulated over the archive of the first. Lenders
report outcomes by night, and so does this world.
"""

import asyncio
import json
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from redis.asyncio import Redis
from rich.progress import Progress

from bench import history, world
from bench.serving import SECRET
from features import export
from features.application import Application, Report
from features.embedded import embedded_store
from features.load import load_profiles
from features.replay import History
from features.store import Store
from features.tokens import Tokenizer
from policy import portfolio
from policy.archived import from_archive
from policy.records import Records
from policy.simulate import Run, View, simulate
from policy.study import SIMULATED
from policy.workers import Workers
from proto.miaopi.v1 import decision_pb2 as pb
from server import products
from server.batcher import Reply
from server.challengers import Challengers
from server.engine import Engine
from server.settings import Settings

SEED = 31
NIGHT_MS = 86_400_000
FIRST = {"default": 1.0, "fraud": 1.0, "price": 0.0}
OTHER = {"default": 0.7, "fraud": 1.5, "price": 0.01}  # of the cut-offs by label, and added to the annual rate


def run(applications: int) -> dict[str, Any]:
    """Figures of the last line."""
    with tempfile.TemporaryDirectory(prefix="miaopi-") as name:
        folder = Path(name)
        policies = Settings().policies
        first = variant(policies, folder / "first", FIRST)
        other = variant(policies, folder / "other", OTHER)
        past = nightly(SEED, applications)
        for which, of in (("decided", first), ("actual", other)):
            with embedded_store() as url:
                asyncio.run(decide(url, past, of, folder / which))
        started, cpu = time.monotonic(), _cpu_seconds()
        out = subprocess.run(
            [sys.executable, "-m", "policy", "simulate", "--archive", folder / "decided", "--policy", other,
             "--out", folder / "out"], check=True, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        seconds, cpu = time.monotonic() - started, _cpu_seconds() - cpu
        found = json.loads((folder / "out/simulation.json").read_text(encoding="utf-8"))
        size = (folder / "out/report.html").stat().st_size
        return {
            "decisions": found["decisions"], "seconds": round(seconds, 1), "cpu_seconds": round(cpu, 1),
            **compare(folder, other),
            "figures_equal": same_figures(found, folder / "actual"), "report_bytes": size,
            "swap_in": found["swap_in"]["rows"], "swap_out": found["swap_out"]["rows"],
            "approval_rate": {name: of["approval_rate"] for name, of in json.loads(out.stdout)["columns"].items()},
        }  # fmt: skip


def _cpu_seconds() -> float:
    """Of processes that this one started and that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def variant(policies: Path, out: Path, change: Mapping[str, float]) -> Path:
    """The shipped policies, written to `out`: cut-offs of both models times a factor, so much added to the rate.

    Without their cases, which are of the shipped ones.
    """
    shutil.copytree(policies, out, ignore=shutil.ignore_patterns("cases.csv"))
    for file in out.glob("*/policy.json"):
        document = json.loads(file.read_text(encoding="utf-8"))
        for node in document["nodes"]:
            for table, label in (("fraud", "fraud"), ("grade", "default")):
                if node["name"] == table:
                    _scale(node["content"], f"{label}_probability", change[label])
            if node["name"] == "price":
                key = _key(node["content"]["outputs"], "annual_rate")
                for row in node["content"]["rules"]:
                    row[key] = f"{float(row[key]) + change['price']:.6g}"
        file.write_text(json.dumps(document, ensure_ascii=False, indent=1), encoding="utf-8")
    return out


def _scale(table: dict[str, Any], field: str, factor: float) -> None:
    key = _key(table["inputs"], field)
    for row in table["rules"]:
        row[key] = re.sub(r"\d+\.?\d*", lambda number: f"{float(number[0]) * factor:.6g}", row[key])


def _key(columns: Sequence[dict[str, Any]], field: str) -> str:
    return str(next(column["id"] for column in columns if column["field"] == field))


def nightly(seed: int, applications: int) -> History:
    """A world as a History, every report at the end of its day."""
    made = world.build(seed, applications)
    for event in made.events:
        if isinstance(event, pb.ReportOutcomeRequest):
            event.event_time_ms += NIGHT_MS - 1 - (event.event_time_ms - world.START_MS) % NIGHT_MS
    made.events.sort(key=lambda event: event.event_time_ms)
    of_product, tokenizer = history.schemas_by_product(), Tokenizer(SECRET.encode())
    return history.history(made.events, history.profiles(made.profiles, of_product, tokenizer), of_product, tokenizer)


async def decide(url: str, past: History, policies: Path, out: Path, tenant: str = "demo") -> None:
    """Decide a history by the engine for a tenant without a log, under some policies, and archive it to `out`."""
    served = products.load(Settings(policies=policies))
    schemas = {p.schema.name: p.schema for p in served.values()}
    async with Redis.from_url(url) as redis:
        store = Store(redis, tenant, Tokenizer(SECRET.encode()), list(schemas.values()))
        await store.prepare()
        knows = {source: schema for schema in schemas.values() for source in schema.sources}
        known = [(token, knows[p.source], p) for token, some in past.profiles.items() for p in some.values()]
        engine = Engine(tenant, store, served, Challengers())
        with Progress() as bars:
            task = bars.add_task("profiles", total=len(known))
            await load_profiles(store, known, lambda n: bars.advance(task, n))
            follower = asyncio.create_task(engine.follow())
            while not engine.ready:
                await asyncio.sleep(0.01)
            task = bars.add_task("decide", total=len(past.events))
            for batch in batches(past.events, Settings().batch_max):
                await _step(engine, batch)
                bars.advance(task, len(batch))
        follower.cancel()
        with suppress(asyncio.CancelledError):
            await follower
        await export.write(redis, tenant, out)


async def _step(engine: Engine, batch: Sequence[Application | Report]) -> None:
    if isinstance(batch[0], Report):
        await engine.report(batch[0])
        return
    for reply in await engine.decide(lambda: [a for a in batch if isinstance(a, Application)]):
        if not isinstance(reply, Reply):
            raise RuntimeError(f"an application of the world was refused: {reply}")


def batches(events: Sequence[Application | Report], most: int) -> Iterator[list[Application | Report]]:
    """Events in order, applications together until a borrower repeats; a report stands alone."""
    batch: list[Application | Report] = []
    borrowers: set[int] = set()
    for event in events:
        borrower = int(event.tokens[0]) if isinstance(event, Application) else -1
        if batch and (borrower < 0 or borrower in borrowers or len(batch) == most):
            yield batch
            batch, borrowers = [], set()
        if borrower < 0:
            yield [event]
        else:
            batch.append(event)
            borrowers.add(borrower)
    if batch:
        yield batch


def records(folder: Path) -> Records:
    """What an archive of a world says."""
    return from_archive(folder, list(dict.fromkeys(history.schemas_by_product().values())), {}, False, print)


def compare(folder: Path, policies: Path) -> dict[str, int]:
    """How many decisions on the archive `decided`, simulated, are not those of `actual`, and in what."""
    before, actual = records(folder / "decided"), records(folder / "actual").recorded
    made = simulate(before, [Run(SIMULATED, policies, View(before.parts, before.known), True)], Workers())[SIMULATED]
    if actual is None or before.recorded is None:
        raise RuntimeError("an archive records what was decided")
    apart = {
        name: getattr(made, name) != getattr(actual, name)
        for name in ("outcome", "approved_amount_minor", "annual_rate", "grade")
    }
    apart["reasons"] = np.array([a != b for a, b in zip(made.reasons, actual.reasons, strict=True)])
    changed = int(np.sum(before.recorded.outcome != actual.outcome))
    different = int(np.sum(np.any(list(apart.values()), axis=0)))
    return {"different": different, "changed_by_the_policy": changed}


def same_figures(found: dict[str, Any], actual: Path) -> bool:
    """Whether a simulation's figures, in total and by every group, are those of what an archive recorded."""
    decided = records(actual)
    if decided.recorded is None:
        return False
    column = portfolio.Column(SIMULATED, decided.recorded, decided.known)
    terms = portfolio.Terms(**found["terms"])
    expected = {"total": portfolio.total(decided, column, terms), "by": portfolio.grouped(decided, column, terms)}
    return bool(expected == found["columns"][SIMULATED])

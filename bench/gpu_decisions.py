"""Times of a decision's first half, graph, trees and network, as the engine runs it: on a device and on the CPU."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from bench.gpu_streams import random_log
from bench.gpu_times import IDENTIFIERS, WARM_ROUNDS, Report, batch_of, fresh_rows
from features.application import Application
from features.assemble import assemble
from features.events import Events
from features.profiles import Profiles
from features.store import Begun, Started
from models.bundle import Bundle
from models.device import CPU, Device
from models.scorer import Scorer, Scores
from server import products
from server.placement import Placement, links_of
from server.products import Product
from server.settings import Settings

PRODUCT = "consumer"


def decision_times(
    device: Device, sizes: tuple[int, ...], rounds: int, history: int, bundle: Bundle | None = None
) -> Report:
    """The demo's consumer product, or the same with another bundle, on batches whose applications are all own, after so
    many events of others.

    `furthest`: the largest difference of a probability between device and CPU; `decided`: batches that it decided.
    """
    on_cpu = products.load(Settings(device="cpu"))[PRODUCT]
    bundle = bundle or Bundle.load(Settings().bundles / on_cpu.schema.name / on_cpu.bundle_version, on_cpu.schema)
    on_cpu, there = (replace(on_cpu, scorer=Scorer(bundle, on)) for on in (CPU, device))
    rng = np.random.default_rng(10)
    log = random_log(rng, history + sum(sizes) * (rounds + WARM_ROUNDS), IDENTIFIERS, 0.0, 0.0)
    placed, alone, start = Placement(device), Placement(), history
    for placement in (placed, alone):
        placement.host.deep = on_cpu.deep
        placement.observe(*batch_of(log, 0, history, own=False))
    placed.copy()
    found, furthest, before = [], 0.0, device.batches
    for size in sizes:
        spans, cpu_spans = [], []
        for _ in range(rounds + WARM_ROUNDS):
            events, own, _ = batch_of(log, start, start + size, own=True)
            batch, started = _begun(rng, on_cpu, events, own)
            start += size
            began = time.perf_counter()
            said = placed.decide({PRODUCT: there}, batch, started, own, range(size))
            spans.append((time.perf_counter() - began) * 1e3)
            began = time.perf_counter()
            expected = _on_cpu(alone, on_cpu, batch, started, own)
            cpu_spans.append((time.perf_counter() - began) * 1e3)
            if said is None:
                raise RuntimeError(f"the device failed: {device.problem}")
            furthest = max(furthest, _apart(said.scored[PRODUCT][1], expected, on_cpu.schema.labels))
        p50, p99 = np.percentile(spans[WARM_ROUNDS:], [50, 99])
        found.append({
            "batch": size, "p50_ms": float(p50), "p99_ms": float(p99), "decisions_per_s": size / float(p50) * 1e3,
            "cpu_p50_ms": float(np.median(cpu_spans[WARM_ROUNDS:])),
        })  # fmt: skip
    decided = device.batches - before
    return {"device": device.name, "working": device.working, "decided": decided, "furthest": furthest, "sizes": found}


def _begun(
    rng: np.random.Generator, product: Product, events: Events, own: NDArray[np.int64]
) -> tuple[list[Application], Started]:
    """The events' applications and all that the store tells of them; every source knows something."""
    schema, rows = product.schema, len(own)
    asked = [f.name for f in schema.features if f.origin in ("application", "request") and not f.category]
    numbers = fresh_rows(rng, rows, len(asked)).astype(np.float64).tolist()
    made = [
        Application("", "", schema, product.name, schema.amount_minor[0], schema.term_months[0], tokens, numbers_of)
        for tokens, numbers_of in zip(
            events.fields["tokens"], [dict(zip(asked, row, strict=True)) for row in numbers], strict=True
        )
    ]
    fetched_at_ms = np.repeat(events.time_ms[:, None], len(schema.sources), axis=1)
    profiles = Profiles(fetched_at_ms, fresh_rows(rng, rows, len(schema.source_columns)))
    begun = [
        Begun("NEW", ms, sequence, b"") for ms, sequence in zip(events.time_ms.tolist(), own.tolist(), strict=True)
    ]
    return made, Started(begun, {schema.name: profiles}, np.arange(rows), events, [], [0] * rows, {})


def _on_cpu(
    placement: Placement, product: Product, batch: Sequence[Application], started: Started, own: NDArray[np.int64]
) -> Scores:
    """As the engine decides where there is no device."""
    view = placement.observe(started.events, own, links_of(batch))
    rows = np.arange(len(own))
    return product.scorer.score(assemble(product.schema, batch, started.profiles[product.schema.name], view, rows))


def _apart(one: Scores, other: Scores, labels: Iterable[str]) -> float:
    pairs = [(getattr(one, f"{label}_probability"), getattr(other, f"{label}_probability")) for label in labels]
    return float(max(np.abs(a - b).max() for a, b in pairs))

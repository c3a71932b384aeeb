"""`python -m bench gpu`: on a machine with a CUDA device, every kernel against its oracle and then its times.

Kernels are checked by the code of the tests. Times are of CUDA events, after a warm-up, each round on rows that no
round before had. Bytes are the least that a stage must move: what is copied to the device and what the view takes;
their rate stands beside that of a copy on the same device in the same run. Without a device it says so.
"""

import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from rich.console import Console
from rich.table import Table

from bench.gpu_streams import ARRAYS, graph_differences, random_log
from bench.gpu_trees import demo_models, random_rows, tree_differences
from features.events import APPLICATION, Events
from features.graph import EntityGraph
from features.schema import SLOTS_MAX
from gpu_kernels.device import Cuda, Device, Launch, NoDeviceError
from gpu_kernels.graph import DeviceGraph
from gpu_kernels.trees import DeviceTrees
from models.device import Device as Placement
from models.device import DeviceError, open_session
from models.probe import random_snapshot
from models.scorer import LabelScorer
from models.shap import Explainer

SIZES = (1, 8, 64, 512, 4096)
ROUNDS, WARM_ROUNDS = 40, 5
HISTORY, IDENTIFIERS = 200_000, 20_000
COPY_BYTES = 1 << 30
SMALL_LOGS, LONG_LOGS = 150, 4

Report = dict[str, Any]


class Clock(Protocol):
    """Times what runs on a device."""

    def mark(self) -> Any:
        """A point in the order of the device's work."""
        ...

    def ms(self, start: Any, end: Any) -> float:
        """Milliseconds between two points, once both are reached."""
        ...


class CudaClock:
    """CUDA events on the current stream."""

    def __init__(self, device: Cuda) -> None:
        self._cuda = device.xp.cuda

    def mark(self) -> Any:
        event = self._cuda.Event()
        event.record()
        return event

    def ms(self, start: Any, end: Any) -> float:
        end.synchronize()
        return float(self._cuda.get_elapsed_time(start, end))


class Timed:
    """A device that notes how long each kernel ran."""

    def __init__(self, device: Device, clock: Clock) -> None:
        self._device, self._clock = device, clock
        self.xp, self.address, self.fill, self.host = device.xp, device.address, device.fill, device.host
        self.spans: list[tuple[str, Any, Any]] = []

    def kernels(self, source: Any) -> Launch:
        launch = self._device.kernels(source)

        def timed(kernel: str, threads: int, first: int, second: int) -> None:
            start = self._clock.mark()
            launch(kernel, threads, first, second)
            self.spans.append((kernel, start, self._clock.mark()))

        return timed

    def taken(self) -> dict[str, float]:
        """Milliseconds by kernel since the last call."""
        spans, self.spans = self.spans, []
        total: dict[str, float] = defaultdict(float)
        for kernel, start, end in spans:
            total[kernel] += self._clock.ms(start, end)
        return dict(total)


def run() -> Report:
    """Print what was found; the report, with `gpu` False where there is no device."""
    console = Console(stderr=True)
    try:
        device = Cuda()
    except NoDeviceError as error:
        console.print(f"No GPU, nothing was checked or timed: {error}")
        return {"bench": "gpu", "gpu": False, "reason": str(error)}
    runtime = device.xp.cuda.runtime
    report = {"bench": "gpu", "gpu": True, "card": device.name, "driver": runtime.driverGetVersion()}
    report |= measured(device, CudaClock(device))
    show(console, report)
    return report


def measured(
    device: Device, clock: Clock, sizes: tuple[int, ...] = SIZES, rounds: int = ROUNDS, history: int = HISTORY,
    copy_bytes: int = COPY_BYTES, small_logs: int = SMALL_LOGS, long_logs: int = LONG_LOGS,
) -> Report:  # fmt: skip
    """Checks, the memory's ceiling, and the stages by batch size."""
    report: Report = {"differing": checked(device, small_logs, long_logs)}
    report["copy_gb_per_s"] = ceiling(device, clock, copy_bytes)
    report["graph"] = graph_times(device, clock, sizes, rounds, history, report["copy_gb_per_s"])
    report["trees"] = tree_times(device, clock, sizes, rounds)
    report["network"] = network_times(sizes, rounds)
    faster = [row["batch"] for row in report["graph"] if row["p50_ms"] < row["cpu_p50_ms"]]
    report["graph_crossover_batch"] = min(faster, default=None)
    return report


def checked(device: Device, small_logs: int, long_logs: int) -> list[str]:
    """What differs from an oracle in any bit; nothing should."""
    found: list[str] = []
    for seed in range(small_logs):
        found += [f"log {seed}: {name}" for name in graph_differences(device, seed, 40, 30, oracle=True)[0]]
    for seed in range(long_logs):
        found += [f"long log {seed}: {name}" for name in graph_differences(device, seed, 800, 400, room=(2, 1, 1))[0]]
    for schema, label, model in demo_models():
        names = tree_differences(device, model, random_rows(schema, label, model, 100, 1))
        found += [f"{schema.name} {label}: {name}" for name in names]
    return found


def ceiling(device: Device, clock: Clock, size: int) -> float:
    """GB/s, read and written, of the fastest of ten copies on the device."""
    source, target = (device.xp.zeros(size, dtype=np.uint8) for _ in range(2))
    best = 0.0
    for _ in range(10):
        start = clock.mark()
        target[:] = source
        best = max(best, 2 * size / max(clock.ms(start, clock.mark()), 1e-6) / 1e6)
    return best


def graph_times(
    device: Device, clock: Clock, sizes: tuple[int, ...], rounds: int, history: int, copy_gb_per_s: float
) -> list[Report]:
    """EntityGraph on the device and on the CPU, the same events, all applications own; batches among events of both."""
    timed = Timed(device, clock)
    events = history + sum(sizes) * (rounds + WARM_ROUNDS)
    log = random_log(np.random.default_rng(9), events, IDENTIFIERS, forgets=0.0, reports=0.1)
    host, there, start, rows = EntityGraph(), DeviceGraph(timed), 0, []
    while start < history:
        end = min(start + max(sizes), history)
        for graph in (host, there):
            graph.observe(*_batch(log, start, end, own=False))
        start = end
    for size in sizes:
        spans, on_cpu, moved = [], [], 0
        kernels: dict[str, list[float]] = defaultdict(list)
        for i in range(rounds + WARM_ROUNDS):
            batch = _batch(log, start, start + size, own=True)
            start += size
            timed.taken()
            began = clock.mark()
            view = there.observe(*batch)
            span = clock.ms(began, clock.mark())
            cpu_began = time.perf_counter()
            host.observe(*batch)
            if i >= WARM_ROUNDS:
                spans.append(span)
                on_cpu.append((time.perf_counter() - cpu_began) * 1e3)
                moved = batch[0].fields.nbytes + sum(getattr(view, name).nbytes for name in ARRAYS)
                for kernel, ms in timed.taken().items():
                    kernels[kernel].append(ms)
        p50, p99 = np.percentile(spans, [50, 99])
        rate = moved / p50 / 1e6
        rows.append({
            "batch": size, "p50_ms": float(p50), "p99_ms": float(p99), "cpu_p50_ms": float(np.median(on_cpu)),
            "events_per_s": size / float(p50) * 1e3, "bytes": moved, "gb_per_s": float(rate),
            "of_ceiling": float(rate / copy_gb_per_s),
            "kernels_ms": {kernel: float(np.median(ms)) for kernel, ms in kernels.items()},
        })  # fmt: skip
    return rows


def tree_times(device: Device, clock: Clock, sizes: tuple[int, ...], rounds: int) -> list[Report]:
    """Margins and exact contributions of the demo's first forest, on the device and on the CPU."""
    schema, label, model = demo_models()[0]
    columns = len(model.encoding.owner)
    explainer, session = Explainer(model.forest, columns), open_session(model.trees_onnx, None)
    there, found = DeviceTrees(device, model.forest, explainer.tables, columns), []
    for size in sizes:
        times: dict[str, list[float]] = defaultdict(list)
        for i in range(rounds + WARM_ROUNDS):
            rows = random_rows(schema, label, model, size, 1000 * size + i)
            given = device.xp.asarray(rows)
            for name, ask in (("margins", there.margins), ("contributions", there.contributions)):
                began = clock.mark()
                ask(given)
                times[name].append(clock.ms(began, clock.mark()))
            times["cpu_margins"].append(_host_ms(lambda: session.run(None, {"row": rows})))  # noqa: B023
            times["cpu_contributions"].append(_host_ms(lambda: explainer.contributions(rows)))  # noqa: B023
        found.append({"batch": size, **{f"{n}_p50_ms": float(np.median(t[WARM_ROUNDS:])) for n, t in times.items()}})
    return found


def network_times(sizes: tuple[int, ...], rounds: int) -> Report:
    """The demo's first graph network by ONNX Runtime on cuda:0, rows copied there and back, and on the CPU."""
    schema, label, model = next(found for found in demo_models() if found[2].gnn_onnx is not None)
    placement, columns = Placement("cuda:0"), schema.columns(label)
    try:
        there, here = LabelScorer(model, columns, placement), LabelScorer(model, columns)
        there.score(random_snapshot(schema, 16, 0))
    except DeviceError as error:
        return {"skipped": str(error)}
    found, furthest = [], 0.0
    for size in sizes:
        on_device, on_cpu = [], []
        for i in range(rounds + WARM_ROUNDS):
            rows = random_snapshot(schema, size, 1000 * size + i)
            on_device.append(_host_ms(lambda: there.score(rows)))  # noqa: B023
            on_cpu.append(_host_ms(lambda: here.score(rows)))  # noqa: B023
            furthest = max(furthest, float(np.abs(there.score(rows) - here.score(rows)).max()))
        p50, p99 = np.percentile(on_device[WARM_ROUNDS:], [50, 99])
        found.append({
            "batch": size, "p50_ms": float(p50), "p99_ms": float(p99),
            "cpu_p50_ms": float(np.median(on_cpu[WARM_ROUNDS:])),
        })  # fmt: skip
    return {"device": placement.name, "working": placement.working, "furthest": furthest, "sizes": found}


def show(console: Console, report: Report) -> None:
    """The report as a table for a reader."""
    table = Table(title=f"{report.get('card', '')}, copy {report['copy_gb_per_s']:.0f} GB/s")
    for column in (
        "batch",
        "graph p50 ms",
        "p99 ms",
        "CPU p50 ms",
        "events/s",
        "of ceiling",
        "margins",
        "contributions",
    ):
        table.add_column(column, justify="right")
    for graph, trees in zip(report["graph"], report["trees"], strict=True):
        table.add_row(
            str(graph["batch"]), *(f"{graph[name]:.3f}" for name in ("p50_ms", "p99_ms", "cpu_p50_ms")),
            f"{graph['events_per_s']:,.0f}", f"{graph['of_ceiling']:.1%}",
            *(f"{trees[f'{name}_p50_ms']:.3f}" for name in ("margins", "contributions")),
        )  # fmt: skip
    console.print(table)
    console.print(f"network: {report['network']}")
    console.print(f"differing from an oracle: {report['differing'] or 'nothing'}")


def _batch(log: Events, start: int, end: int, *, own: bool) -> tuple[Events, Any, Any]:
    part = Events(log.fields[start:end], log.time_ms[start:end])
    mine = part.fields["sequence"][part.fields["kind"] == APPLICATION] if own else np.empty(0, dtype=np.int64)
    return part, np.ascontiguousarray(mine), np.ones((len(mine), SLOTS_MAX), dtype=np.bool_)


def _host_ms(ask: Callable[[], Any]) -> float:
    start = time.perf_counter()
    ask()
    return (time.perf_counter() - start) * 1e3

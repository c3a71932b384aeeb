"""Times of the stages of a decision on a device and on the CPU, on the same events and rows, none seen before."""

import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from bench.gpu_streams import ARRAYS, random_log
from bench.gpu_trees import demo_models
from features.events import APPLICATION, Events
from features.graph import EntityGraph
from features.schema import SLOTS_MAX
from gpu_kernels.device import Cuda, Device, Launch
from gpu_kernels.graph import DeviceGraph
from gpu_kernels.trees import DeviceTrees
from models.device import open_session
from models.shap import Explainer

WARM_ROUNDS = 5
IDENTIFIERS = 20_000
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
        self.memory, self.index, self.stream = device.memory, device.index, device.stream
        self.deciding, self.beside, self.staging, self.fetch = (
            device.deciding, device.beside, device.staging, device.fetch,
        )  # fmt: skip
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
            graph.observe(*batch_of(log, start, end, own=False))
        start = end
    for size in sizes:
        spans, on_cpu, moved = [], [], 0
        kernels: dict[str, list[float]] = defaultdict(list)
        for i in range(rounds + WARM_ROUNDS):
            batch = batch_of(log, start, start + size, own=True)
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
    _, _, model = demo_models()[0]
    columns, rng = len(model.encoding.owner), np.random.default_rng(11)
    explainer, session = Explainer(model.forest, columns), open_session(model.trees_onnx)
    there, found = DeviceTrees(device, model.forest, explainer.tables, columns), []
    for size in sizes:
        times: dict[str, list[float]] = defaultdict(list)
        for _ in range(rounds + WARM_ROUNDS):
            rows = fresh_rows(rng, size, columns)
            given = device.xp.asarray(rows)
            for name, ask in (("margins", there.margins), ("contributions", there.contributions)):
                began = clock.mark()
                ask(given)
                times[name].append(clock.ms(began, clock.mark()))
            times["cpu_margins"].append(_host_ms(lambda: session.run(None, {"row": rows})))  # noqa: B023
            times["cpu_contributions"].append(_host_ms(lambda: explainer.contributions(rows)))  # noqa: B023
        found.append({"batch": size, **{f"{n}_p50_ms": float(np.median(t[WARM_ROUNDS:])) for n, t in times.items()}})
    return found


def fresh_rows(rng: np.random.Generator, rows: int, columns: int) -> NDArray[np.float32]:
    """float32 [rows, columns] over the magnitudes that occur, a tenth missing."""
    made = rng.lognormal(3.0, 3.0, (rows, columns)).astype(np.float32)
    made[rng.random(made.shape) < 0.1] = np.nan
    return made


def batch_of(log: Events, start: int, end: int, *, own: bool) -> tuple[Events, Any, Any]:
    """Some events of a log, the sequence numbers of its applications if they are own, and all slots as links."""
    part = Events(log.fields[start:end], log.time_ms[start:end])
    mine = part.fields["sequence"][part.fields["kind"] == APPLICATION] if own else np.empty(0, dtype=np.int64)
    return part, np.ascontiguousarray(mine), np.ones((len(mine), SLOTS_MAX), dtype=np.bool_)


def _host_ms(ask: Callable[[], Any]) -> float:
    start = time.perf_counter()
    ask()
    return (time.perf_counter() - start) * 1e3

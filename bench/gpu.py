"""`python -m bench gpu`: on a machine with a CUDA device, every kernel against its oracle and then its times.

Kernels are checked by the code of the tests. Times are of CUDA events, of decisions by the clock, after a warm-up, each
round on rows that no round before had. Bytes are the least that a stage must move: what is copied to the device and
what the view takes; their rate stands beside that of a copy on the same device in the same run. Without a device it
says so.
"""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.gpu_decisions import PRODUCT, decision_times
from bench.gpu_policy import policy_table, policy_times, shipped_differences
from bench.gpu_replay import replay_times
from bench.gpu_streams import graph_differences
from bench.gpu_times import Clock, CudaClock, Report, ceiling, graph_times, tree_times
from bench.gpu_trees import demo_models, random_rows, tree_differences
from gpu_kernels.device import Cuda, Device, NoDeviceError
from models.bundle import Bundle
from models.device import Device as RunsOn

SIZES = (1, 8, 64, 512, 4096)
POLICY_SIZES = (*SIZES, 32_768)
DEEP_SIZES = (1, 8, 64, 512)  # of more, the CPU beside it would take minutes
ROUNDS, HISTORY = 30, 200_000
COPY_BYTES = 1 << 30
SMALL_LOGS, LONG_LOGS = 150, 4
REPLAYED = 20_000  # applications of a world
DECISION_TOLERANCE = 1e-5


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
    report |= measured(device, RunsOn("cuda:0", lambda _: device), CudaClock(device))
    show(console, report)
    return report


def measured(
    device: Device, runs_on: RunsOn, clock: Clock, sizes: tuple[int, ...] = SIZES, rounds: int = ROUNDS,
    history: int = HISTORY, copy_bytes: int = COPY_BYTES, small_logs: int = SMALL_LOGS, long_logs: int = LONG_LOGS,
    replayed: int = REPLAYED, policy_sizes: tuple[int, ...] = POLICY_SIZES, torch_on: str = "cuda",
    deep_sizes: tuple[int, ...] = DEEP_SIZES,
) -> Report:  # fmt: skip
    """Checks, the memory's ceiling, and the stages by batch size."""
    report: Report = {"differing": checked(device, small_logs, long_logs)}
    report["copy_gb_per_s"] = ceiling(device, clock, copy_bytes)
    report["graph"] = graph_times(device, clock, sizes, rounds, history, report["copy_gb_per_s"])
    report["trees"] = tree_times(device, clock, sizes, rounds)
    report["decisions"] = decision_times(runs_on, sizes, rounds, history)
    report["deep"] = _deep(runs_on, deep_sizes, rounds, history)
    report["policy"] = policy_times(device, clock, policy_sizes, rounds)
    by_name = {"graph": report["graph"], "decisions": report["decisions"]["sizes"], "policy": report["policy"]}
    for name, found in by_name.items():
        faster = [row["batch"] for row in found if row["p50_ms"] < row["cpu_p50_ms"]]
        report[f"{name}_crossover_batch"] = min(faster, default=None)
    for name in ("decisions", "deep"):
        if (apart := report[name].get("furthest", 0.0)) > DECISION_TOLERANCE:
            report["differing"].append(f"probabilities of {name}, by {apart:.2g}")
    if wrong := sum(row["differing"] for row in report["policy"]):
        report["differing"].append(f"policies, in {wrong} rounds")
    report["torch_geometric"] = peer = _beside(device, clock, sizes, rounds, history, torch_on)
    if not all(row["same_neighbors"] for row in peer.get("sizes", ())):
        report["differing"].append("neighbours that torch-geometric sees")
    report["replay"] = replay_times(device, runs_on.name, replayed)
    report["differing"] += report["replay"].pop("differing")
    return report


def _deep(runs_on: RunsOn, sizes: tuple[int, ...], rounds: int, history: int) -> Report:
    """bench.gpu_decisions.decision_times of the deep network, with random weights: its time needs no training."""
    try:
        from bench.gpu_deep import deep_bundle
    except ImportError as error:
        return {"absent": f"torch is not installed (extra train): {error}"}
    with TemporaryDirectory() as folder:
        bundle = Bundle.open(deep_bundle(PRODUCT, Path(folder) / "deep"))
        return decision_times(runs_on, sizes, rounds, history, bundle)


def _beside(*asked: Any) -> Report:
    """bench.gpu_peer.peer_times, which needs torch."""
    try:
        from bench.gpu_peer import peer_times
    except ImportError as error:
        return {"absent": f"torch is not installed (extra train): {error}"}
    return peer_times(*asked)


def checked(device: Device, small_logs: int, long_logs: int) -> list[str]:
    """What differs from an oracle in any bit; nothing should."""
    found: list[str] = []
    for seed in range(small_logs):
        found += [f"log {seed}: {name}" for name in graph_differences(device, seed, 40, 30, oracle=True, deep=True)[0]]
    for seed in range(long_logs):
        names, *_ = graph_differences(device, seed, 800, 400, deep=True, room=(2, 1, 1))
        found += [f"long log {seed}: {name}" for name in names]
    for schema, label, model in demo_models():
        names = tree_differences(device, model, random_rows(schema, label, model, 100, 1))
        found += [f"{schema.name} {label}: {name}" for name in names]
    return found + shipped_differences(device, 2000)


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
    for name, network in (("decisions", "network"), ("deep", "deep network")):
        if "absent" in report[name]:
            console.print(f"NOT timed, the {network}: {report[name]['absent']}", style="yellow")
            continue
        apart = report[name]["furthest"]
        table = Table(title=f"graph, trees and {network} as the engine runs them, apart {apart:.1g}")
        for column in ("batch", "p50 ms", "p99 ms", "CPU p50 ms", "decisions/s"):
            table.add_column(column, justify="right")
        for row in report[name]["sizes"]:
            times = (f"{row[name]:.3f}" for name in ("p50_ms", "p99_ms", "cpu_p50_ms"))
            table.add_row(str(row["batch"]), *times, f"{row['decisions_per_s']:,.0f}")
        console.print(table)
    console.print(policy_table(report["policy"]))
    peer = report["torch_geometric"]
    if "absent" in peer:
        console.print(f"NOT compared with torch-geometric: {peer['absent']}", style="yellow")
    table = Table(title=f"beside torch-geometric {peer.get('version', '')} on {peer.get('on', '')}")
    for column in ("batch", "p50 ms", "p99 ms", "ours p50 ms", "ours over it", "named again, not seen"):
        table.add_column(column, justify="right")
    for row in peer.get("sizes", ()):
        times = (f"{row[name]:.3f}" for name in ("p50_ms", "p99_ms", "ours_p50_ms"))
        table.add_row(str(row["batch"]), *times, f"{row['over_torch_geometric']:.2f}", f"{row['not_seen']:.1%}")
    if table.rows:
        console.print(table)
    replay = report["replay"]
    table = Table(title=f"a history of {replay['applications']:,} applications, applications/s")
    for column in ("", "device", "CPU"):
        table.add_column(column, justify="right")
    for stage in ("replay", "score"):
        table.add_row(stage, *(f"{replay[f'{stage}_{on}_per_s']:,.0f}" for on in ("device", "cpu")))
    console.print(table)
    console.print(f"differing from an oracle: {report['differing'] or 'nothing'}")

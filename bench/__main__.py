"""`python -m bench`: the demo, the training of its bundles, and what measures the service."""

import json
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(add_completion=False, no_args_is_help=True, help=__doc__)

Transport = Annotated[str, typer.Option(help="of a server that is started: native or default (grpc.aio)")]
Product = Annotated[str, typer.Option(help="whose applications are asked; empty: all, as in the world")]
Applications = Annotated[int, typer.Option(min=1000, help="of the world whose applicants ask")]


@app.command()
def demo() -> None:
    """2,000 applications of a synthetic world through the running server; the last line is JSON."""
    from bench import demo as module  # each command loads only what it needs: the demo has no torch

    module.run()


@app.command()
def train(out: Annotated[Path, typer.Option(help="registry of the bundles")] = Path("models/demo")) -> None:
    """Train the demo bundles anew."""
    from bench import train as module

    for folder in module.run(out):
        print(folder)


@app.command()
def replay(
    schema: Annotated[Path, typer.Option(help="schema YAML with a table section")],
    data: Annotated[Path, typer.Option(help="Parquet file of that table")],
) -> None:
    """Train on the first 60 % of a table, decide the rest through the running server; the last line is JSON."""
    from bench import replay as module

    print(json.dumps(module.run(schema, data)))


@app.command()
def fraud(
    seed: Annotated[int, typer.Option(help="of the world")] = 21,
    applications: Annotated[int, typer.Option(min=20_000, help="in the world")] = 60_000,
    deep: Annotated[bool, typer.Option("--deep", help="the deep network too, which takes a CPU many minutes")] = False,
) -> None:
    """Frauds of each kind found by trees, aggregates and graph network on a world; the last line is JSON."""
    from bench import fraud as module

    print(json.dumps(module.run(seed, applications, deep)))


@app.command()
def communities(
    seed: Annotated[int, typer.Option(help="of the world")] = 21,
    applications: Annotated[int, typer.Option(min=1000, help="in the world")] = 60_000,
) -> None:
    """Rings of a world that the communities of its graph find; the last line is JSON."""
    from bench import communities as module

    print(json.dumps(module.run(seed, applications)))


@app.command()
def reasons() -> None:
    """Exact contributions against XGBoost's pred_contribs on the same trees and rows; the last line is JSON."""
    from bench import reasons as module

    print(json.dumps(module.run()))


@app.command()
def residual() -> None:
    """The residual-value model on sales and cars of applications it never saw; the last line is JSON."""
    from bench import residual as module

    print(json.dumps(module.run()))


@app.command()
def quality(
    data: Annotated[Path, typer.Option(help="folder of the public tables")] = Path("../shared/data"),
    only: Annotated[str, typer.Option("--set", help="one set alone, with its protocol by time")] = "",
    search_seconds: Annotated[
        float, typer.Option(help="of each training, after which no candidate more is tried")
    ] = 30,
) -> None:
    """Every public table through train and score against its bar and an untuned LightGBM; the last line is JSON."""
    from bench import quality as module

    print(json.dumps(module.run(data, only, search_seconds)))


@app.command()
def policy(inputs: Annotated[int, typer.Option(min=10_000, help="compared with zen-engine")] = 100_000) -> None:
    """The compiled policies against zen-engine on the same files; the last line is JSON."""
    from bench import policy as module

    print(json.dumps(module.run(inputs)))


@app.command()
def promote(promotions: Annotated[int, typer.Option(min=1, help="and rollbacks, in turn")] = 7) -> None:
    """Champions promoted and rolled back under load, a challenger beside them; the last line is JSON."""
    from bench import promote as module

    print(json.dumps(module.run(promotions)))


@app.command()
def publish(publications: Annotated[int, typer.Option(min=1, help="and rollbacks, in turn")] = 7) -> None:
    """Policies published and rolled back under load; the last line is JSON."""
    from bench import publish as module

    print(json.dumps(module.run(publications)))


@app.command()
def simulate(
    applications: Annotated[int, typer.Option(min=1000, help="in the world")] = 100_000,
) -> None:
    """A policy simulated over what another decided, against really deciding by it; the last line is JSON."""
    from bench import simulate as module

    print(json.dumps(module.run(applications)))


@app.command()
def gpu() -> None:
    """Every CUDA kernel against its oracle, and its times, where there is a GPU; the last line is JSON."""
    from bench import gpu as module

    report = module.run()
    print(json.dumps(report))
    if report.get("differing"):
        raise typer.Exit(1)


@app.command()
def load(
    address: Annotated[str, typer.Option(help="host:port or unix:PATH of a running server, else one is started")] = "",
    tenant: Annotated[str, typer.Option(help="that it serves")] = "demo",
    transport: Transport = "native",
    product: Product = "",
    batch: Annotated[bool, typer.Option(help="BatchDecide of 64 in place of Decide")] = False,
    in_flight: Annotated[int, typer.Option(min=1, help="calls always open: closed loop")] = 64,
    per_second: Annotated[float, typer.Option(min=0, help="applications at random times: open loop")] = 0,
    seconds: Annotated[float, typer.Option(min=0.1)] = 10,
    warm_up: Annotated[float, typer.Option(min=0, help="seconds that do not count")] = 1,
    applications: Applications = 20_000,
) -> None:
    """Load on one server: decisions a second, exact percentiles, statuses, outcomes; the last line is JSON."""
    from bench import load as module

    asked = module.Asked(in_flight, per_second, seconds, warm_up, module.BATCH if batch else 1)
    print(json.dumps(module.run(address, tenant, transport, product, applications, asked)))


@app.command()
def latency(
    transport: Transport = "native",
    product: Product = "",
    seconds: Annotated[float, typer.Option(min=0.1, help="of each load")] = 15,
    applications: Applications = 20_000,
) -> None:
    """p50 and p99 at 45 % of saturation and at 100 requests a second; the last line is JSON."""
    from bench import latency as module

    print(json.dumps(module.run(transport, product, applications, seconds)))


@app.command()
def soak(
    minutes: Annotated[float, typer.Option(min=0.01)] = 60,
    transport: Transport = "native",
    product: Product = "",
    applications: Applications = 20_000,
) -> None:
    """Half of saturation for an hour: memory, tail and errors every minute; the last line is JSON."""
    from bench import soak as module

    print(json.dumps(module.run(minutes, transport, product, applications)))


@app.command()
def stages(
    decisions: Annotated[int, typer.Option(min=64, help="of each batch size, in each of five rounds")] = 4096,
    product: Product = "",
    applications: Applications = 20_000,
) -> None:
    """µs of CPU a decision by stage of the real engine, at several batch sizes; the last line is JSON."""
    from bench import stages as module

    print(json.dumps(module.run(decisions, product, applications)))


@app.command()
def compare(
    rounds: Annotated[int, typer.Option(min=1, help="in which all take their turn")] = 5,
    seconds: Annotated[float, typer.Option(min=0.1, help="of each turn")] = 2,
    product: Product = "",
    applications: Applications = 20_000,
    peers: Annotated[bool, typer.Option(help="mosec, FastAPI, LitServe, BentoML: see make peers")] = True,
) -> None:
    """The service on each transport against a bare echo and peers with the same engine; the last line is JSON."""
    from bench import compare as module

    print(json.dumps(module.run(rounds, seconds, product, applications, peers)))


@app.command()
def graph(nodes: Annotated[int, typer.Option(min=10_000, help="entities in it")] = 1_000_000) -> None:
    """Appending, gathering, memory and growth of the entity graph; the last line is JSON."""
    from bench import graph as module

    print(json.dumps(module.run(nodes)))


@app.command()
def restart(applications: Annotated[int, typer.Option(min=1000, help="in the log")] = 1_000_000) -> None:
    """A server's start with a long log, from a snapshot and without; the last line is JSON."""
    from bench import restart as module

    print(json.dumps(module.run(applications)))


@app.command()
def growth(
    applications: Annotated[int, typer.Option(min=1000, help="in the last log; each has ten times the one before")] = 10
    ** 6,
    transport: Transport = "native",
    product: Product = "",
) -> None:
    """Decisions a second and their latency as the log grows; the last line is JSON."""
    from bench import growth as module

    print(json.dumps(module.run(applications, transport, product)))


if __name__ == "__main__":
    app()

"""`python -m bench`: the demo, the training of its bundles, and what measures the service."""

import json
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(add_completion=False, no_args_is_help=True, help=__doc__)


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
) -> None:
    """Frauds of each kind found by trees, aggregates and graph network on a world; the last line is JSON."""
    from bench import fraud as module

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


if __name__ == "__main__":
    app()

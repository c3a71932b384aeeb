"""`python -m policy`: what a policy would have decided."""

import typer

from policy.simulate_command import simulate

app = typer.Typer(add_completion=False, no_args_is_help=True, help=__doc__)
app.command()(simulate)


@app.callback()
def _root() -> None:
    """Policy: tables that decide, and what they would do."""


if __name__ == "__main__":
    app()

"""The model card of a bundle (Mitchell et al. 2019; R18): what it learned from, how good it is, what it is not."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from features.schema import Schema
from models.bundle import ResidualModel
from models.conformal import QUANTILES


def card(
    schema: Schema, training: Mapping[str, Any], labels: Mapping[str, Any], residual: ResidualModel | None,
    notes: Mapping[str, Sequence[str]],
) -> str:  # fmt: skip
    """Markdown. training and labels: as in the manifest; notes: by label, lines about the test part."""
    lines = [
        f"# Model card: {schema.name}", "",
        f"Probabilities of {' and '.join(labels)} for {', '.join(schema.products)}, schema `{schema.hash}`.",
        *_window(training),
        "Figures of validation rows, which also chose and calibrated, flatter a little.",
    ]  # fmt: skip
    if notes:
        lines += ["Those of the test part are of the same recipe on the other rows; the bundle has learned from all."]
    if training["command"]:
        lines += ["", f"Reproduced by `{training['command']}`."]
    for label, spec in labels.items():
        lines += _label(label, spec, notes.get(label, ()))
    if residual is not None:
        lines += _cars(residual.figures)
    lines += [
        "", "## Limits", "",
        "Only applications whose outcome became known are learned from; declined ones have none. Reasons share the",
        "trees' part of the log-odds among features; the graph network's part is one reason, GRAPH_PATTERN.",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def _window(training: Mapping[str, Any]) -> list[str]:
    if training["split"] != "time":
        return ["Rows split at random into folds."]
    days = [datetime.fromtimestamp(training[k] / 1000, UTC).date() for k in ("from_ms", "fit_until_ms", "until_ms")]
    return [
        f"Rows of {days[0]} to {days[2]} (UTC), split at {days[1]} by the time of the applications: what each",
        "label's trees learned from and what calibrated them is said below. Labels are those known at the",
        "end, so some came in after later rows.",
    ]


def _label(label: str, spec: Mapping[str, Any], notes: Sequence[str]) -> list[str]:
    rows = spec["rows"]
    return [
        "", f"## {label}", "",
        f"{spec['trees']} trees on {len(spec['columns'])} columns; graph network: {spec['gnn']}.",
        f"Rows with a known label: {rows['fit']} to fit ({rows['fit_bad']} bad), {rows['stop']} to stop "
        f"({rows['stop_bad']} bad), {rows['stack']} to calibrate ({rows['stack_bad']} bad).",
        f"Validation rows: {spec['validation']}.", "",
        *_figures("validation", spec["metrics"]),
        *(["", *notes] if notes else []),
    ]  # fmt: skip


def _cars(figures: Mapping[str, Any]) -> list[str]:
    return [
        "", "## Residual value", "",
        f"Quantiles {', '.join(map(str, QUANTILES))} of what a car fetches, from sales of {figures['from']} to",
        f"{figures['to']}: by time {', '.join(map(str, figures['sales']))} to fit, stop, calibrate and test. Figures",
        f"are of the last, from {figures['tested_from']} on, before these calibrated anew. Pinball losses are of the",
        "share of the list price; the baseline is the same quantile of kind and age band in the sales just before.",
        "", "| figure | value |", "|---|---|",
        *(f"| {name} | {words} |" for name, words in figure_words(figures)),
    ]  # fmt: skip


def _figures(part: str, by_variant: Mapping[str, Mapping[str, float]]) -> list[str]:
    """A table of the figures of one part."""
    names = next(iter(by_variant.values()))
    return [
        f"| {part} | {' | '.join(by_variant)} |",
        "|---" * (1 + len(by_variant)) + "|",
        *(f"| {name} | {' | '.join(f'{some[name]:.4g}' for some in by_variant.values())} |" for name in names),
    ]


def figure_words(figures: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The numbers of a residual-value model's figures, by name, as a card or a terminal shows them."""
    words = []
    for name, figure in figures.items():
        if isinstance(figure, Mapping):
            words.append((name, ", ".join(f"{part} {number:.3f}" for part, number in figure.items())))
        elif isinstance(figure, float):
            words.append((name, f"{figure:.4g}"))
    return words

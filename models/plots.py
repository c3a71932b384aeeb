"""The figures of the validation report, drawn by matplotlib as SVG that stands inside the page.

The same numbers give the same bytes: fixed ids, no date. Text stays text, so the page's font applies.
"""

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter
from numpy.typing import NDArray

from models.behaviour import Influence
from models.evaluate import Labels, Probability, Ranking, level, wilson
from models.stability import Period

POINTS = 200  # of a curve
BARS = 15  # features shown
INK, FAINT, GOOD, BAD, MIXED = "#1f2937", "#d8dee6", "#2a6f97", "#c8553d", "#8a94a3"
LINES = ("#0b3c5d", "#d98324", "#5f8f4e", "#7a5195")
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none", "svg.hashsalt": "miaopi", "path.simplify": True, "font.family": "sans-serif",
    "font.size": 10, "axes.edgecolor": FAINT, "axes.labelcolor": INK, "axes.titlesize": 11, "axes.titleweight": "bold",
    "axes.titlelocation": "left", "axes.titlecolor": INK, "axes.spines.top": False, "axes.spines.right": False,
    "axes.grid": True, "axes.axisbelow": True, "grid.color": "#edf0f4", "xtick.color": "#566270",
    "ytick.color": "#566270", "xtick.labelsize": 9, "ytick.labelsize": 9, "legend.frameon": False,
    "legend.fontsize": 9, "lines.linewidth": 1.8,
}  # fmt: skip

Scored = tuple[Labels, Probability]


def ranking(curves: Mapping[str, Scored]) -> str:
    """ROC and precision-recall of labels and probabilities by name."""
    with matplotlib.rc_context(STYLE):
        figure, (roc, precision) = panels(2)
        roc.plot([0, 1], [0, 1], color=FAINT, linewidth=1)
        for (name, (labels, probability)), colour in zip(curves.items(), LINES, strict=False):
            recall, alarms = Ranking(labels, probability).caught()
            rate = float(labels.mean()) if len(labels) else 0.0
            bad, good = recall * rate, alarms * (1 - rate)
            kept = _thinned(recall + alarms)
            roc.plot([0, *alarms[kept]], [0, *recall[kept]], color=colour, label=name)
            precision.plot(recall[kept], (bad / np.maximum(bad + good, 1e-12))[kept], color=colour, label=name)
        name_axes(roc, "ROC", "good rows stopped", "bad rows caught")
        name_axes(precision, "Precision and recall", "bad rows caught", "bad among those stopped")
        precision.set_ylim(0, None)
        for axes in (roc, precision):
            as_percent(axes, x=True)
        roc.legend(loc="lower right")
        return svg_text(figure)


def probabilities(samples: Mapping[str, Scored], shown: Scored) -> str:
    """Reliability of each sample, and the distribution of the scores of `shown` by class."""
    with matplotlib.rc_context(STYLE):
        figure, (reliability, distribution) = panels(2)
        least, most = 1.0, 0.0
        for (name, (labels, probability)), colour in zip(samples.items(), LINES, strict=False):
            order = np.argsort(probability, kind="stable")
            bad = level(probability[order], labels[order], np.ones(len(order), dtype=np.int64))
            parts = [p for p in np.array_split(np.arange(len(order)), 10) if len(p)]
            predicted = np.array([probability[order[p]].mean() for p in parts])
            observed = np.array([bad[p].mean() for p in parts])
            spread = np.abs(np.array([wilson(bad[p]) for p in parts]).T - observed)
            reliability.errorbar(predicted, observed, spread, color=colour, fmt="o", markersize=4, capsize=2,
                                 elinewidth=1.2, label=name)  # fmt: skip
            least = min(least, float(predicted.min()))
            most = max(most, float(predicted.max()), float(observed.max()))
        if least * 30 < most:  # rare: the lower tenths would lie on one another
            reliability.set(xscale="log", yscale="log", ylim=(least / 3, 2 * most))
            reliability.minorticks_off()
        reliability.plot([least, most], [least, most], color=MIXED, linewidth=1, linestyle=":", label="perfect")
        name_axes(reliability, "Reliability, tenths of the rows", "predicted", "observed bad rate")
        as_percent(reliability, x=True)
        reliability.legend(loc="upper left")
        _distribution(distribution, *shown)
        return svg_text(figure)


def _distribution(axes: Axes, labels: Labels, probability: Probability) -> None:
    log_odds = np.log(np.clip(probability, 1e-6, 1 - 1e-6)) - np.log1p(-np.clip(probability, 1e-6, 1 - 1e-6))
    edges = np.linspace(log_odds.min(initial=0), log_odds.max(initial=0), 41)
    for name, chosen, colour in (("good", labels == 0, GOOD), ("bad", labels == 1, BAD)):
        shares = np.histogram(log_odds[chosen], edges)[0] / max(int(chosen.sum()), 1)
        axes.stairs(shares, edges, fill=True, alpha=0.45, color=colour, label=name)
    marks = np.array([m for m in (0.0001, 0.001, 0.01, 0.05, 0.2, 0.5, 0.8, 0.95, 0.99, 0.999)])
    at = np.log(marks / (1 - marks))
    inside = (at >= edges[0]) & (at <= edges[-1])
    axes.set_xticks(at[inside], [f"{100 * mark:g}%" for mark in marks[inside]])
    name_axes(axes, "Scores by class", "predicted, on the scale of log-odds", "share of the class")
    as_percent(axes)
    axes.legend(loc="upper right")


def stability(periods: Sequence[Period]) -> str:
    """AUC with its interval, and bad rate beside what was predicted, by period."""
    with matplotlib.rc_context(STYLE):
        figure, (ranking, rates) = panels(2, 3.0)
        at = np.arange(len(periods))
        area = np.array([p.auc for p in periods])
        low, high = np.array([p.interval for p in periods]).T
        ranking.fill_between(at, low, high, color=LINES[0], alpha=0.15, linewidth=0)
        ranking.plot(at, area, "o-", color=LINES[0], markersize=4)
        name_axes(ranking, "AUC by period, with 95 % interval", "", "")
        rates.plot(at, [p.bad_rate for p in periods], "o-", color=BAD, markersize=4, label="observed bad rate")
        rates.plot(at, [p.predicted for p in periods], "o--", color=GOOD, markersize=4, label="mean predicted")
        name_axes(rates, "Bad rate by period", "", "")
        rates.set_ylim(0, 1.3 * max(max(p.bad_rate, p.predicted) for p in periods))
        as_percent(rates)
        rates.legend(loc="upper left", ncols=2)
        step = -(-len(periods) // 9)
        for axes in (ranking, rates):
            axes.set_xticks(at[::step], [p.name.split(" to ")[0] for p in periods][::step], rotation=25, ha="right")
        return svg_text(figure)


def influences(found: Sequence[Influence]) -> str:
    """The strongest features, coloured by direction."""
    shown = list(found[:BARS])[::-1]
    with matplotlib.rc_context(STYLE):
        figure, (axes,) = panels(1, 0.9 + 0.27 * len(shown))
        for trend, colour, name in ((1, BAD, "riskier as it grows"), (-1, GOOD, "safer as it grows"),
                                    (0, MIXED, "mixed, or a category")):  # fmt: skip
            at = [i for i, influence in enumerate(shown) if influence.trend == trend]
            if at:
                axes.barh(at, [shown[i].mean_log_odds for i in at], color=colour, height=0.66, label=name)
        axes.set_yticks(range(len(shown)), [influence.name for influence in shown])
        axes.grid(visible=False, axis="y")
        name_axes(axes, "", "mean absolute contribution to the log-odds", "")
        axes.legend(loc="lower right")
        return svg_text(figure)


def panels(count: int, height: float = 3.5) -> tuple[Figure, list[Axes]]:
    """A figure as wide as the page, and so many axes beside each other."""
    figure = Figure(figsize=(9.6, height), layout="constrained")
    return figure, list(np.atleast_1d(figure.subplots(1, count)))


def name_axes(axes: Axes, title: str, x: str, y: str) -> None:
    """Title and labels, without ticks."""
    axes.set_title(title)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.tick_params(length=0)


def as_percent(axes: Axes, x: bool = False) -> None:
    """Shares as percent on the y axis, and on the x axis if asked."""
    axes.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g}%"))
    if x:
        axes.xaxis.set_major_formatter(axes.yaxis.get_major_formatter())


def _thinned(way: NDArray[np.float64]) -> NDArray[np.int64]:
    """Places of at most POINTS of a curve, evenly along the way float64 [k], which grows to 2; none of NaN."""
    if not len(way) or np.isnan(way[0]):
        return np.zeros(0, dtype=np.int64)
    return np.unique(np.searchsorted(way, np.linspace(way[0], way[-1], POINTS)))


def svg_text(figure: Figure) -> str:
    """The <svg> element alone: what names another document or repeats between figures of a page is dropped."""
    written = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(written, format="svg", transparent=True, metadata=nothing)
    svg = written.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' xmlns(:\w+)?="[^"]*"| id="\w+_\d+"', "", svg)  # axes_1, line2d_7: nothing refers to them
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*" height="[^"]*"', r"\1", svg)  # as wide as the page
    return re.sub(r"\s*\n\s*", "\n", re.sub(r"(\.\d\d)\d+", r"\1", svg))

"""The figures of the simulation report, drawn as those of the validation report are (models.plots). Not for serving."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import matplotlib
import numpy as np
from matplotlib.ticker import FuncFormatter, MaxNLocator

from models.plots import BAD, FAINT, GOOD, LINES, MIXED, STYLE, as_percent, name_axes, panels, svg_text
from policy.specs import GRADES

Figures = Mapping[str, Any]
VINTAGE_SHARE = 0.005  # of the decisions that a month needs to be drawn
BASE, NEW = MIXED, LINES[0]


def scenarios(columns: Mapping[str, Figures]) -> str:
    """Approval, bad rate and expected loss of every column, from the first down."""
    names = list(columns)[::-1]
    shown = (
        ("approval_rate", "Approved"), ("bad_rate", "Bad among approved, known"),
        ("expected_loss_rate", "Expected loss of the amount"),
    )  # fmt: skip
    with matplotlib.rc_context(STYLE):
        figure, every = panels(len(shown), 1.3 + 0.34 * len(names))
        colours = [NEW if name == "simulated" else BASE if i == len(names) - 1 else LINES[1]
                   for i, name in enumerate(names)]  # fmt: skip
        for axes, (key, title) in zip(every, shown, strict=True):
            numbers = [columns[name][key] or 0.0 for name in names]
            bars = axes.barh(range(len(names)), numbers, color=colours, height=0.62)
            axes.bar_label(bars, [f"{100 * n:.2f}%" for n in numbers], padding=4, fontsize=9, color="#566270")
            axes.set_yticks(range(len(names)), names if axes is every[0] else [""] * len(names))
            axes.set_xlim(0, 1.35 * max(*numbers, 1e-6))
            axes.grid(visible=False, axis="y")
            name_axes(axes, title, "", "")
            axes.xaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g}%"))
            axes.xaxis.set_major_locator(MaxNLocator(4))
        return svg_text(figure)


def vintages(base: Figures, new: Figures) -> str:
    """Approval rate, and bad rate among the approved, by month of the application; before and after."""
    least = sum(figures["decisions"] for figures in new.values()) * VINTAGE_SHARE
    months = sorted(month for month, figures in new.items() if figures["decisions"] >= least)
    with matplotlib.rc_context(STYLE):
        figure, pair = panels(2, 3.0)
        titles = {"approval_rate": "Approved by vintage", "bad_rate": "Bad by vintage, known"}
        for axes, (key, title) in zip(pair, titles.items(), strict=True):
            for figures, colour, name in ((base, BASE, "before"), (new, NEW, "after")):
                points = [(figures[m][key] if m in figures else None) for m in months]
                axes.plot(range(len(months)), [np.nan if p is None else p for p in points], "o-", color=colour,
                          markersize=4, label=name)  # fmt: skip
            step = -(-len(months) // 9)
            axes.set_xticks(range(0, len(months), step), months[::step], rotation=25, ha="right")
            axes.set_ylim(0, 1.12 * axes.get_ylim()[1])
            name_axes(axes, title, "", "")
            as_percent(axes)
            axes.legend(loc="lower left", ncols=2)
        return svg_text(figure)


def grades(base: Figures, new: Figures, minor_per_unit: float) -> str:
    """Approved amount and price by grade, before and after."""
    names = [grade for grade in GRADES if grade in base or grade in new]
    with matplotlib.rc_context(STYLE):
        figure, (amounts, prices) = panels(2, 3.0)
        at = np.arange(len(names))
        for shift, figures, colour, label in ((-0.19, base, BASE, "before"), (0.19, new, NEW, "after")):
            exposure = [figures[n]["exposure_minor"] / minor_per_unit if n in figures else 0 for n in names]
            amounts.bar(at + shift, exposure, 0.36, color=colour, label=label)
            rates = [(figures[n]["annual_rate"] if n in figures else None) for n in names]
            prices.plot(at, [np.nan if rate is None else rate for rate in rates], "o-", color=colour, label=label)
        for axes, title in ((amounts, "Approved amount by grade, million"), (prices, "Annual rate by grade")):
            axes.set_xticks(at, names)
            name_axes(axes, title, "", "")
            axes.legend(loc="upper right" if axes is amounts else "upper left")
        as_percent(prices)
        return svg_text(figure)


def swaps(bands: Mapping[str, Sequence[float]], swap_in: Figures, swap_out: Figures) -> str:
    """Who comes and goes by the probability of going bad, and between which bounds the newcomers' bad rate lies."""
    edges = [100 * edge for edge in bands["edges"]]
    labels = [f"{low:g}–{high:g}%" for low, high in pairwise(edges)]
    at = np.arange(len(labels))
    with matplotlib.rc_context(STYLE):
        figure, (change, interval) = panels(2, 3.6)
        change.bar(at, bands["swap_in"], color=GOOD, label="newly approved")
        change.bar(at, [-n for n in bands["swap_out"]], color=BAD, label="no longer approved")
        change.axhline(0, color=FAINT, linewidth=1)
        change.set_xticks(at[::2], labels[::2], rotation=35, ha="right")
        name_axes(change, "Who swaps, by probability of going bad", "", "decisions")
        change.legend(loc="best")
        rows = (("no longer approved", swap_out, BAD), ("newly approved", swap_in, GOOD))
        for y, (_, figures, colour) in enumerate(rows):
            of = figures["bad_rate_bounds"]
            if of["rows"]:
                interval.plot([of["low"], of["high"]], [y, y], color=colour, linewidth=7, alpha=0.25,
                              solid_capstyle="butt")  # fmt: skip
                interval.plot([of["expected"], of["high_expected"]], [y, y], color=colour, linewidth=3)
                interval.plot([of["expected"]], [y], "o", color=colour, markersize=7)
                if of["known_bad_rate"] is not None:
                    interval.plot([of["known_bad_rate"]], [y], "x", color="#1f2937", markersize=8)
        interval.set_yticks(range(len(rows)), [name for name, _, _ in rows])
        interval.set_ylim(-0.6, len(rows) - 0.4)
        interval.set_xlim(0, None)
        interval.grid(visible=False, axis="y")
        name_axes(interval, "Their bad rate, within its bounds", "× known   ● expected, to harsher", "")
        interval.xaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g}%"))
        return svg_text(figure)

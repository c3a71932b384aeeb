"""The report of a simulation: one HTML page that needs nothing else, made of what simulation.json says.

Laid out by simulation.html.j2 in the style of the validation report (models/report.css). Not for serving.
"""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from policy import plots
from policy.reasons import REASONS_PATH, reason_texts
from policy.specs import GRADES

FIGURES = {
    "approval_rate": "approved", "automation_rate": "automated", "bad_rate": "bad, known",
    "expected_loss_minor": "expected loss", "expected_loss_rate": "of the amount", "exposure_minor": "approved amount",
    "annual_rate": "annual rate",
}  # fmt: skip
CARDS = {
    "approval_rate": "Approval rate", "automation_rate": "Automation rate", "bad_rate": "Bad rate of approved, known",
    "expected_loss_minor": "Expected loss", "exposure_minor": "Approved amount", "annual_rate": "Average annual rate",
}  # fmt: skip
HUBS_SHOWN = 15
TEMPLATES = [Path(__file__).parent, Path(__file__).parent.parent / "models"]


def render(found: Mapping[str, Any]) -> str:
    """The page; the same findings give the same bytes."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    money = partial(_money, minor_per_major=found["minor_per_major"])
    environment.filters |= {
        "percent": _percent,
        "money": money,
        "figure": partial(_figure, money=money),
        "delta": _delta,
    }
    texts = reason_texts(REASONS_PATH, REASONS_PATH.read_bytes())
    return environment.get_template("simulation.html.j2").render(
        found=found, base=found.get("base"), names=FIGURES, cards=CARDS, dimensions=_dimensions(found),
        plots={name: Markup(svg) for name, svg in _plots(found).items()},
        words={code: english for code, (_, english) in texts.items()},
    )  # fmt: skip


def _plots(found: Mapping[str, Any]) -> dict[str, str]:
    columns = found["columns"]
    drawn = {"scenarios": plots.scenarios({name: column["total"] for name, column in columns.items()})}
    if "base" in found:
        base, new = columns[found["base"]]["by"], columns["simulated"]["by"]
        if "vintage" in new:
            drawn["vintages"] = plots.vintages(base["vintage"], new["vintage"])
        if "grade" in base and "grade" in new:
            drawn["grades"] = plots.grades(base["grade"], new["grade"], 1e6 * found["minor_per_major"])
        drawn["swaps"] = plots.swaps(found["bands"], found["swap_in"], found["swap_out"])
    return drawn


def _dimensions(found: Mapping[str, Any]) -> dict[str, list[tuple[str, Mapping[str, Any], Mapping[str, Any]]]]:
    """By dimension, (group, figures before, figures after); of dealers and officers those where approval moves most."""
    new = found["columns"]["simulated"]["by"]
    base = found["columns"][found["base"]]["by"] if "base" in found else new
    every = {}
    for dimension in new:
        names = sorted({*new[dimension], *base.get(dimension, ())})
        if dimension == "grade":
            names = [grade for grade in GRADES if grade in names]
        rows = [(name, base.get(dimension, {}).get(name), new[dimension].get(name)) for name in names]
        if dimension in ("dealer", "officer"):
            rows = sorted(rows, key=lambda row: -_moved(row[1], row[2]))[:HUBS_SHOWN]
        every[dimension] = rows
    return every


def _moved(before: Mapping[str, Any] | None, after: Mapping[str, Any] | None) -> int:
    """By how much approved money changes, minor units."""
    was, now = (int(figures["exposure_minor"]) if figures else 0 for figures in (before, after))
    return abs(now - was)


def _figure(figures: Mapping[str, Any] | None, key: str, money: Callable[[float], str]) -> str:
    """A figure in words; – where there is none."""
    if figures is None or figures[key] is None:
        return "–"
    return money(figures[key]) if key.endswith("_minor") else _percent(figures[key], 1 if key[0] == "a" else 2)


def _delta(before: Mapping[str, Any], after: Mapping[str, Any], key: str) -> str:
    """The change, in points of a share or in percent of money."""
    was, now = before[key], after[key]
    if was is None or now is None or (key.endswith("_minor") and not was):
        return ""
    return f"{100 * (now / was - 1):+.1f} %" if key.endswith("_minor") else f"{100 * (now - was):+.2f} points"


def _percent(share: float | None, digits: int = 1) -> str:
    return "–" if share is None else f"{100 * share:.{digits}f} %"


def _money(minor: float, minor_per_major: int) -> str:
    """Major units, with thousands apart."""
    return f"{minor / minor_per_major:,.0f}"

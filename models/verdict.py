"""What a reader of the validation report should look at first: one line a question, from the findings of a label."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from models.evaluate import wilson
from models.fairness import BAD_MIN, RATIO_MARK, ROWS_MIN
from models.stability import PSI_SHIFT

if TYPE_CHECKING:
    from models.report import Findings

PASS, LOOK, FAIL = "pass", "look", "fail"


@dataclass(frozen=True)
class Check:
    """The answer to one question; state: PASS, LOOK (a person should judge) or FAIL (a promise is broken)."""

    state: str
    question: str
    answer: str


def checks(found: "Findings") -> list[Check]:
    """Every question of the verdict, in the order of the page."""
    questions: list[tuple[str, Callable[[Findings], tuple[str, str]]]] = [
        ("Does it rank rows that chose nothing?", _ranking), ("Are its probabilities right on average?", _calibration),
        ("Does it keep the declared directions?", _directions), ("Is it steady over time?", _time),
        ("Are the rows like those learned from?", _drift), ("Are declared groups treated alike?", _fairness),
    ]  # fmt: skip
    return [Check(state, question, answer) for question, ask in questions for state, answer in [ask(found)]]


def _ranking(found: "Findings") -> tuple[str, str]:
    validation, area = found.of("validation"), found.of("test").values["auc"]
    low, high = validation.spans["auc"]
    told = f"Test AUC {area:.3f}; validation {validation.values['auc']:.3f} ({low:.3f} to {high:.3f})."
    return (PASS if area >= low else LOOK), told


def _calibration(found: "Findings") -> tuple[str, str]:
    test = found.trial.test
    low, high = wilson(test.labels)
    predicted = float(test.probability[found.trial.chosen].mean())
    told = f"Predicted {predicted:.2%}, observed {test.labels.mean():.2%} ({low:.2%} to {high:.2%})."
    return (PASS if low <= predicted <= high else LOOK), told


def _directions(found: "Findings") -> tuple[str, str]:
    broken = [sweep.name for sweep in found.sweeps if sweep.violations]
    if broken:
        return FAIL, f"{len(broken)} of {len(found.sweeps)} features step back: {', '.join(broken[:4])}."
    pairs = sum(sweep.pairs for sweep in found.sweeps)
    return PASS, f"{len(found.sweeps)} features, {pairs} steps, none back." if pairs else "None is declared."


def _time(found: "Findings") -> tuple[str, str]:
    if not found.periods:
        return LOOK, "Not known: the rows have no time."
    overall = found.of("test").values["auc"]
    weak = [period.name for period in found.periods if period.interval[1] < overall]
    known = [period.auc for period in found.periods if not math.isnan(period.auc)]
    if not known:
        return LOOK, "Not known: no period has bad and good rows."
    told = f"AUC of {len(known)} periods from {min(known):.3f} up"
    return (
        (LOOK, f"{told}; clearly lower in {', '.join(weak[:3])}.") if weak else (PASS, f"{told}, none clearly lower.")
    )


def _drift(found: "Findings") -> tuple[str, str]:
    mark = PSI_SHIFT + found.chance
    moved = [name for name, index in found.drift.items() if index > mark]
    if moved:
        return LOOK, f"{len(moved)} of {len(found.drift)} features have PSI above {mark:.2f}: {', '.join(moved[:3])}."
    return PASS, f"No feature of {len(found.drift)} has PSI above {mark:.2f}."


def _fairness(found: "Findings") -> tuple[str, str]:
    if not found.groups:
        return LOOK, "Not measured: the schema declares no groups."
    every = [(feature, group) for feature, groups in found.groups.items() for group in groups]
    marked = [f"{feature} {group.name}" for feature, group in every if group.marked]
    small = sum(group.too_small for _, group in every)
    rest = f" {small} groups are below {ROWS_MIN} rows or {BAD_MIN} bad, and not judged." if small else ""
    if marked:
        return LOOK, f"Approved less than {RATIO_MARK:.0%} as often as the largest: {', '.join(marked[:4])}.{rest}"
    if small == len(every):
        return LOOK, f"Not known.{rest}"
    return PASS, f"{len(every) - small} groups approved at least {RATIO_MARK:.0%} as often as the largest.{rest}"

"""Figures of a portfolio (R15): what was approved, at which price, how much of it goes bad, in total and by group.

Bad is a confirmed fraud or default. Labels of those never approved are unknown, so the bad rate of new approvals is
bounded: by what is known, by the calibrated probability, and by the worst and best that the unknown ones can be.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from policy.decide import Outcome
from policy.inputs import Known
from policy.records import Decided, Numbers, Records
from policy.specs import GRADES

EXAMPLES = 20  # of a swap set
CODES = 10  # reasons of a swap set that are counted out
EDGES = (0.0, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.14, 0.2, 0.3, 0.5, 1.0)  # of probabilities
Doubles = NDArray[np.float64]
Masks = NDArray[np.bool_]


@dataclass(frozen=True)
class Terms:
    """What figures are reckoned with. loss_given_default: share of what no car covers; reject_factor: by how much
    likelier than the model says someone never approved may be to go bad."""

    loss_given_default: float = 0.45
    reject_factor: float = 2.0


@dataclass(frozen=True)
class Column:
    """A column of the report: what was decided, and on what."""

    name: str
    decided: Decided
    known: Known


def bad_probability(known: Known) -> Doubles:
    """float64 [N]: of fraud or default, as if one did not depend on the other; a model that is not there says 0."""
    fraud, default = np.nan_to_num(known.fraud_probability), np.nan_to_num(known.default_probability)
    return np.asarray(1 - (1 - fraud) * (1 - default))


def expected_loss_minor(records: Records, column: Column, terms: Terms) -> Doubles:
    """float64 [N]: probability of default (of fraud where there is no such model) × loss given default × what of the
    approved amount the car's low residual value does not cover."""
    known, amount = column.known, column.decided.approved_amount_minor
    default = np.where(np.isnan(known.default_probability), known.fraud_probability, known.default_probability)
    car = np.nan_to_num(known.residual_low) * records.minor_per_major
    return np.asarray(np.nan_to_num(default) * terms.loss_given_default * np.maximum(amount - car, 0))


def by_group(records: Records, column: Column, terms: Terms, group: Numbers, groups: int) -> list[dict[str, Any]]:
    """The figures of each group; group: int64 [N], 0 to `groups`, -1 for none. A rate of nothing is None."""
    decided, approved, bad = column.decided, column.decided.approved, records.bad
    inside = group >= 0

    def total(weights: NDArray[Any]) -> Doubles:
        return np.asarray(np.bincount(group[inside], weights[inside].astype(np.float64), groups), dtype=np.float64)

    count = total(np.ones(len(group)))
    outcomes = {o.name.lower(): total(decided.outcome == o) for o in Outcome if o}
    known, gone_bad = total(approved & (bad >= 0)), total(approved & (bad == 1))
    exposure = total(decided.approved_amount_minor)
    by_person, by_person_minor = total(decided.by_person_minor > 0), total(decided.by_person_minor)
    loss = total(expected_loss_minor(records, column, terms))
    interest = total(decided.approved_amount_minor * decided.annual_rate)
    found = outcomes["approve"] + outcomes["limit"]
    return [
        {
            "decisions": int(count[g]), **{name: int(numbers[g]) for name, numbers in outcomes.items()},
            "approval_rate": _rate(found[g], count[g]),
            "automation_rate": _rate(count[g] - outcomes["review"][g], count[g]),
            "known": int(known[g]), "bad": int(gone_bad[g]), "bad_rate": _rate(gone_bad[g], known[g]),
            "exposure_minor": int(exposure[g]), "expected_loss_minor": round(float(loss[g])),
            "expected_loss_rate": _rate(loss[g], exposure[g]), "annual_rate": _rate(interest[g], exposure[g]),
            "by_person": int(by_person[g]), "by_person_minor": int(by_person_minor[g]),
        }
        for g in range(groups)
    ]  # fmt: skip


def total(records: Records, column: Column, terms: Terms) -> dict[str, Any]:
    """The figures of all decisions, and the bounds of the bad rate of what was approved."""
    (figures,) = by_group(records, column, terms, np.zeros(len(records), dtype=np.int64), 1)
    return figures | {"bad_rate_bounds": bounds(records, column.known, column.decided.approved, terms)}


def groupings(records: Records, column: Column) -> Iterator[tuple[str, list[str], Numbers]]:
    """(dimension, names of its groups, int64 [N] group of each record, -1 for none)."""
    yield "product", list(records.products), records.product
    yield "grade", list(GRADES), column.decided.grade.astype(np.int64)
    if records.channel is not None:
        yield "channel", *_coded([name or "unknown" for name in records.channel])
    for name, tokens in records.hubs.items():
        seen, code = np.unique(tokens, return_inverse=True)
        names = [f"{token:016x}" for token in seen.tolist()]
        yield name, names, np.where(tokens == 0, -1, code)
    if records.time_ms is not None:
        yield "vintage", *_coded([month(ms) for ms in records.time_ms.tolist()])


def grouped(records: Records, column: Column, terms: Terms) -> dict[str, dict[str, dict[str, Any]]]:
    """By dimension and group the figures; groups without a decision are left out."""
    every = {}
    for dimension, names, group in groupings(records, column):
        figures = zip(names, by_group(records, column, terms, group, len(names)), strict=True)
        every[dimension] = {name: numbers for name, numbers in figures if numbers["decisions"]}
    return {dimension: found for dimension, found in every.items() if found}


def bounds(records: Records, known: Known, chosen: Masks, terms: Terms) -> dict[str, Any]:
    """The bad rate of the chosen rows, some of whose labels are unknown.

    known_bad_rate: of those known; expected: the unknown by their calibrated probability; high_expected: by that times
    the reject factor; low and high: all unknown good, all bad.
    """
    probability, bad = bad_probability(known)[chosen], records.bad[chosen]
    open_ones, rows = bad < 0, len(bad)
    gone = int(np.sum(bad == 1))
    more = np.minimum(probability[open_ones] * terms.reject_factor, 1.0)
    return {
        "rows": rows, "known": rows - int(open_ones.sum()), "bad": gone,
        "known_bad_rate": _rate(gone, rows - int(open_ones.sum())), "low": _rate(gone, rows),
        "expected": _rate(gone + float(probability[open_ones].sum()), rows),
        "high_expected": _rate(gone + float(more.sum()), rows),
        "high": _rate(gone + int(open_ones.sum()), rows),
    }  # fmt: skip


def swap(records: Records, base: Column, new: Column, terms: Terms, into: bool) -> dict[str, Any]:
    """Who is approved in `new` and was not in `base`; the other way round unless `into`."""
    chosen = new.decided.approved & ~base.decided.approved
    side = new
    if not into:
        chosen, side = base.decided.approved & ~new.decided.approved, base
    rows, amounts = np.flatnonzero(chosen), side.decided.approved_amount_minor
    shown = rows[np.argsort(-amounts[rows], kind="stable")[:EXAMPLES]]
    return {
        "rows": len(rows), "exposure_minor": int(amounts[rows].sum()),
        "annual_rate": _rate(float((amounts[rows] * side.decided.annual_rate[rows]).sum()), float(amounts[rows].sum())),
        "expected_loss_minor": round(float(expected_loss_minor(records, side, terms)[rows].sum())),
        "bad_rate_bounds": bounds(records, side.known, chosen, terms),
        "reasons_before": _counted(base.decided, rows), "reasons_after": _counted(new.decided, rows),
        "examples": [_example(records, base, new, row) for row in shown.tolist()],
    }  # fmt: skip


def moves(base: Decided, new: Decided) -> dict[str, dict[str, int]]:
    """How many decisions went from each outcome to each."""
    names = {o: o.name.lower() for o in Outcome if o}
    return {
        was: {now: int(np.sum((base.outcome == before) & (new.outcome == after))) for after, now in names.items()}
        for before, was in names.items()
    }


def bands(base: Column, new: Column) -> dict[str, Any]:
    """How many approvals stayed, came and went, between edges of the calibrated probability of going bad."""
    both = base.decided.approved & new.decided.approved
    sets = {"kept": both, "swap_in": new.decided.approved & ~both, "swap_out": base.decided.approved & ~both}
    probability = bad_probability(new.known)
    counts = {name: np.histogram(probability[chosen], EDGES)[0].tolist() for name, chosen in sets.items()}
    return {"edges": list(EDGES), **counts}


def month(time_ms: int) -> str:
    """Year and month, UTC."""
    return f"{datetime.fromtimestamp(time_ms / 1000, UTC):%Y-%m}"


def _example(records: Records, base: Column, new: Column, row: int) -> dict[str, Any]:
    """One decision before and after; no feature of the applicant."""

    def side(decided: Decided) -> dict[str, Any]:
        grade = int(decided.grade[row])
        return {
            "outcome": Outcome(decided.outcome[row]).name, "grade": GRADES[grade] if grade >= 0 else "",
            "approved_amount_minor": int(decided.approved_amount_minor[row]),
            "annual_rate": float(decided.annual_rate[row]), "reasons": list(decided.reasons[row]),
        }  # fmt: skip

    return {
        "id": records.ids[row], "product": records.products[records.product[row]],
        "asked_amount_minor": int(records.asked.amount_minor[row]),
        "bad_probability": round(float(bad_probability(new.known)[row]), 6), "bad": int(records.bad[row]),
        "before": side(base.decided), "after": side(new.decided),
    }  # fmt: skip


def _counted(decided: Decided, rows: Numbers) -> Mapping[str, int]:
    return dict(Counter(code for row in rows.tolist() for code in sorted({*decided.reasons[row]})).most_common(CODES))


def _coded(texts: list[str]) -> tuple[list[str], Numbers]:
    names, code = np.unique(np.array(texts), return_inverse=True)
    return names.tolist(), code.astype(np.int64)


def _rate(part: float, whole: float) -> float | None:
    return round(float(part / whole), 6) if whole else None

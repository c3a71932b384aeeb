"""Example applications of a product and what its policy must decide on them: cases.csv, edited in a spreadsheet (R16).

One row a case; the first, `base`, states everything, and a blank cell of another means "as in base". `missing` is an
input that is not known. A policy is published or served only where every case comes out as expected. Each case is
decided alone: what one borrows is not lent for the next.
"""

import csv
import io
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from features.schema import Schema
from policy.cells import Column
from policy.decide import Decision, Decisions, Outcome, Policy
from policy.errors import PolicyError
from policy.inputs import Asked
from policy.specs import GRADES, policy_columns

CASES = "cases.csv"
BASE, MISSING, LENT = "base", "missing", "lent_"
_MONEY = Column("number", range=(0.0, 1e12))
ASKED = (
    "amount_minor", "term_months", "repayment", "upfront_fee_minor", "monthly_fee_minor", "human_review_requested",
)  # fmt: skip
_OUTCOMES = {outcome.name.lower(): outcome for outcome in Outcome if outcome}
_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?")


class CasesError(PolicyError):
    """A table of cases that cannot be read, or cases that fail: `line` of the file, 0 for all of it, and `column`."""

    def __init__(self, file: Path, reason: str, line: int = 0, column: str = "") -> None:
        where = [f"line {line}"] * bool(line) + [f"column {column!r}"] * bool(column)
        super().__init__(file, ": ".join([*([", ".join(where)] if where else []), reason]))
        self.line, self.column = line, column


@dataclass(frozen=True)
class Expected:
    """What a case must come to; None, or no reasons, is not looked at. reasons: codes of the first, worst ones.

    funding: minor units by funder.
    """

    outcome: Outcome
    amount_minor: int | None
    annual_rate: float | None
    grade: str | None
    reasons: tuple[str, ...]
    funding: Mapping[str, int] | None


@dataclass(frozen=True)
class Case:
    """values: every input that the file states, as policy.inputs.input_values encodes it, NaN where missing.

    asked: of one application. lent: minor units by funder.
    """

    name: str
    line: int
    asked: Asked
    values: Mapping[str, float]
    lent: Mapping[str, int]
    expected: Expected


def read(path: Path, schema: Schema, policy: Policy) -> tuple[Case, ...]:
    """The cases of a file for a policy, which `base` states every input of. Raises CasesError."""
    columns = {
        **policy_columns(schema), "upfront_fee_minor": _MONEY, "monthly_fee_minor": _MONEY,
        **{f"{LENT}{funder}": _MONEY for funder in policy.funders},
    }  # fmt: skip
    header, rows = _rows(path)
    for name in header:
        if name not in columns and name not in _EXPECTATIONS and name != "case":
            raise CasesError(path, "is no input of this schema and nothing to expect", 1, name)
    _, base = rows[0]
    for name in dict.fromkeys((*ASKED, *policy.columns, *(n for n in header if n in columns))):
        if not base.get(name) and not name.startswith(LENT):
            raise CasesError(path, f"{BASE!r} must state it, {MISSING!r} where it is not known", rows[0][0], name)
    return tuple(_case(path, line, row, base, columns) for line, row in rows)


def decide(policy: Policy, case: Case) -> Decisions:
    """What the policy says of a case alone; an input that its file does not state is missing."""
    values = np.array([[case.values.get(name, math.nan) for name in policy.columns]])
    lent = {funder: case.lent.get(funder, 0) for funder in policy.funders}
    return policy.decide(case.asked, values, lent)


def check(path: Path, cases: Iterable[Case], policy: Policy) -> tuple[Decision, ...]:
    """The decisions on all cases. Raises CasesError that lists those which did not come out as expected."""
    decided = tuple((case, decide(policy, case)[0]) for case in cases)
    failing = [
        f"case {case.name!r} (line {case.line}): {'; '.join(found)}"
        for case, decision in decided
        if (found := unmet(case.expected, decision))
    ]
    if failing:
        raise CasesError(path, "\n  ".join([f"{len(failing)} of {len(decided)} cases fail", *failing]))
    return tuple(decision for _, decision in decided)


def unmet(expected: Expected, decision: Decision) -> list[str]:
    """In words, what was expected of a decision and did not come."""
    codes = tuple(reason.code for reason in decision.reasons)
    funding = {share.offer.funder: share.amount_minor for share in decision.shares}
    rate = expected.annual_rate
    found = [
        ("outcome", expected.outcome.name.lower(), decision.outcome.name.lower()),
        ("amount_minor", expected.amount_minor, decision.approved_amount_minor),
        # the same decimal read twice, or computed: a millionth of a percent is binary noise
        ("annual_rate", rate, rate if rate is not None and abs(rate - decision.annual_rate) < 1e-8
         else decision.annual_rate),
        ("grade", expected.grade, decision.grade),
        ("reasons", " ".join(expected.reasons) or None,
         " ".join(codes[: len(expected.reasons)] if codes[: len(expected.reasons)] == expected.reasons else codes)),
        ("funding", _funding_words(expected.funding), _funding_words(funding)),
    ]  # fmt: skip
    return [
        f"expected {name} {want}, came {'none' if came == '' else came}"
        for name, want, came in found
        if want not in (None, came)
    ]


def _funding_words(funding: Mapping[str, int] | None) -> str | None:
    return None if funding is None else " ".join(f"{name}:{funding[name]}" for name in sorted(funding))


def _rows(path: Path) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """The header, and (line, cells by column) of every row; names are there, differ, and the first is `base`."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        lines = [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader]
    except OSError as error:
        raise CasesError(path, f"cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise CasesError(path, "is not UTF-8; save it as CSV UTF-8") from None
    except csv.Error as error:
        raise CasesError(path, f"is no CSV: {error}") from None
    lines = [(line, cells) for line, cells in lines if any(cells)]
    header = lines[0][1] if lines else []
    for name in ("case", "expect_outcome"):
        if name not in header:
            raise CasesError(path, "there is no such column", 1, name)
    for name in header:
        if header.count(name) > 1 or not name:
            raise CasesError(path, "the column stands twice" if name else "a column has no name", 1, name)
    rows, seen = [], dict[str, int]()
    for line, cells in lines[1:]:
        if len(cells) != len(header):
            raise CasesError(path, f"has {len(cells)} cells, the header has {len(header)}", line)
        row = dict(zip(header, cells, strict=True))
        if not row["case"] or row["case"] in seen:
            twice = f"line {seen[row['case']]} has this name too" if row["case"] else "the case has no name"
            raise CasesError(path, twice, line, "case")
        seen[row["case"]] = line
        rows.append((line, row))
    if not rows or rows[0][1]["case"] != BASE:
        raise CasesError(path, f"the first case must be {BASE!r}", rows[0][0] if rows else 1, "case")
    return header, rows


def _case(
    path: Path, line: int, row: Mapping[str, str], base: Mapping[str, str], columns: Mapping[str, Column]
) -> Case:
    values = {}
    for name, column in columns.items():
        if text := row.get(name) or base.get(name):
            with _at(path, line, name):
                values[name] = _number(text, name, column)
    expected = []
    for name, read_one in _EXPECTATIONS.items():
        with _at(path, line, name):
            expected.append(read_one(row.get(name, "")))
    asked = Asked(*(np.array([int(values[name])], dtype=np.int64) for name in ASKED))
    lent = {name.removeprefix(LENT): int(number) for name, number in values.items() if name.startswith(LENT)}
    return Case(row["case"], line, asked, values, lent, Expected(*expected))


@contextmanager
def _at(path: Path, line: int, column: str) -> Iterator[None]:
    """Says where in the file a ValueError belongs."""
    try:
        yield
    except ValueError as error:
        raise CasesError(path, str(error), line, column) from None


def _number(text: str, name: str, column: Column) -> float:
    """A cell as policy.inputs.input_values encodes it."""
    if text == MISSING and MISSING not in column.values:
        if name in ASKED or name.startswith(LENT):
            raise ValueError("is always known, it cannot be missing")
        return math.nan
    if column.kind == "string":
        if text not in column.values:
            raise ValueError(f"{text!r} is none of {', '.join(column.values)}")
        return float(column.values.index(text))
    if column.kind == "boolean":
        if text.lower() not in ("true", "false"):  # spreadsheets write capitals
            raise ValueError(f"{text!r} is neither true nor false")
        return float(text.lower() == "true")
    number = float(_integer(text)) if name.endswith("_minor") or name in ASKED else _decimal(text)
    low, high = column.range
    if not low <= number <= high:
        raise ValueError(f"{text} is not from {low:g} to {high:g}")
    return number


def _decimal(text: str) -> float:
    if not _NUMBER.fullmatch(text) or not math.isfinite(float(text)):
        raise ValueError(f"{text!r} is not a number")
    return float(text)


def _integer(text: str) -> int:
    number = _decimal(text)
    if number != int(number):
        raise ValueError(f"{text!r} is not a whole number")
    return int(number)


def _outcome(text: str) -> Outcome:
    if text.lower() not in _OUTCOMES:
        raise ValueError(f"{text!r} is none of {', '.join(_OUTCOMES)}; every case expects an outcome")
    return _OUTCOMES[text.lower()]


def _grade(text: str) -> str | None:
    if text and text not in GRADES:
        raise ValueError(f"{text!r} is none of {', '.join(GRADES)}")
    return text or None


def _funding(text: str) -> dict[str, int] | None:
    shares = {}
    for part in text.split():
        funder, colon, amount = part.rpartition(":")
        if not funder or not colon or funder in shares:
            raise ValueError(f"{part!r} is not written as funder:amount_minor, each funder once")
        shares[funder] = _integer(amount)
    return shares or None


_EXPECTATIONS: dict[str, Callable[[str], Any]] = {
    "expect_outcome": _outcome,
    "expect_amount_minor": lambda text: _integer(text) if text else None,
    "expect_annual_rate": lambda text: _decimal(text) if text else None,
    "expect_grade": _grade,
    "expect_reasons": lambda text: tuple(text.split()),
    "expect_funding": _funding,
}

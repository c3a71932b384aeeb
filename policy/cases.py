"""Example applications of a product and what its policy must decide on them: cases.csv, edited in a spreadsheet (R16).

One row a case; the first, `base`, states everything, and a blank cell of another means "as in base". `missing` is an
input that is not known. A policy is published or served only where every case comes out as expected. Each case is
decided alone: what one borrows is not lent for the next.
"""

import csv
import io
import math
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from features.schema import Schema
from policy.cells import CellError, Column
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

    def __init__(self, file: Path, reason: str, zh: str, line: int = 0, column: str = "") -> None:
        super().__init__(file, reason, column=column, zh=zh, line=line)


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
            zh = "既不是该 schema 的输入项，也不是预期结果的列"
            raise CasesError(path, "is no input of this schema and nothing to expect", zh, 1, name)
    _, base = rows[0]
    for name in dict.fromkeys((*ASKED, *policy.columns, *(n for n in header if n in columns))):
        if not base.get(name) and not name.startswith(LENT):
            zh = f"{BASE!r} 必须写明此项，未知则写 {MISSING!r}"
            raise CasesError(path, f"{BASE!r} must state it, {MISSING!r} where it is not known", zh, rows[0][0], name)
    return tuple(_case(path, line, row, base, columns) for line, row in rows)


def decide(policy: Policy, case: Case) -> Decisions:
    """What the policy says of a case alone; an input that its file does not state is missing."""
    values = np.array([[case.values.get(name, math.nan) for name in policy.columns]])
    lent = {funder: case.lent.get(funder, 0) for funder in policy.funders}
    return policy.decide(case.asked, values, lent)


def check(path: Path, cases: Iterable[Case], policy: Policy) -> tuple[Decision, ...]:
    """The decisions on all cases. Raises CasesError that lists those which did not come out as expected."""
    decided = tuple((case, decide(policy, case)[0]) for case in cases)
    failing = [(case, found) for case, decision in decided if (found := unmet(case.expected, decision))]
    if failing:
        english, chinese = (
            [f"{len(failing)} of {len(decided)} cases fail"],
            [f"{len(decided)} 个案例中有 {len(failing)} 个不符"],
        )
        for case, found in failing:
            said = "; ".join(f"expected {name} {want}, came {came}" for name, want, came in found)
            english.append(f"case {case.name!r} (line {case.line}): {said}")
            said = "；".join(f"{name} 应为 {want}，实为 {came}" for name, want, came in found)
            chinese.append(f"案例 {case.name!r}（第 {case.line} 行）：{said}")
        raise CasesError(path, "\n  ".join(english), "\n  ".join(chinese))
    return tuple(decision for _, decision in decided)


def unmet(expected: Expected, decision: Decision) -> list[tuple[str, Any, Any]]:
    """What was expected of a decision and did not come: its name, what was wanted and what came."""
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
    return [(name, want, "none" if came == "" else came) for name, want, came in found if want not in (None, came)]


def _funding_words(funding: Mapping[str, int] | None) -> str | None:
    return None if funding is None else " ".join(f"{name}:{funding[name]}" for name in sorted(funding))


def _rows(path: Path) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """The header, and (line, cells by column) of every row; names are there, differ, and the first is `base`."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        lines = [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader]
    except OSError as error:
        raise CasesError(path, f"cannot be read: {error.strerror}", f"无法读取：{error.strerror}") from None
    except UnicodeDecodeError:
        raise CasesError(path, "is not UTF-8; save it as CSV UTF-8", "不是 UTF-8；请另存为 CSV UTF-8") from None
    except csv.Error as error:
        raise CasesError(path, f"is no CSV: {error}", f"不是 CSV：{error}") from None
    lines = [(line, cells) for line, cells in lines if any(cells)]
    header = lines[0][1] if lines else []
    for name in ("case", "expect_outcome"):
        if name not in header:
            raise CasesError(path, "there is no such column", "没有这一列", 1, name)
    for name in header:
        if not name:
            raise CasesError(path, "a column has no name", "有一列没有名称", 1)
        if header.count(name) > 1:
            raise CasesError(path, "the column stands twice", "该列出现两次", 1, name)
    rows, seen = [], dict[str, int]()
    for line, cells in lines[1:]:
        if len(cells) != len(header):
            zh = f"有 {len(cells)} 个单元格，表头有 {len(header)} 个"
            raise CasesError(path, f"has {len(cells)} cells, the header has {len(header)}", zh, line)
        row = dict(zip(header, cells, strict=True))
        name = row["case"]
        if not name:
            raise CasesError(path, "the case has no name", "案例没有名称", line, "case")
        if name in seen:
            raise CasesError(path, f"line {seen[name]} has this name too", f"第 {seen[name]} 行已用此名", line, "case")
        seen[name] = line
        rows.append((line, row))
    if not rows or rows[0][1]["case"] != BASE:
        zh = f"第一个案例必须是 {BASE!r}"
        raise CasesError(path, f"the first case must be {BASE!r}", zh, rows[0][0] if rows else 1, "case")
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
    """Says where in the file a CellError belongs."""
    try:
        yield
    except CellError as error:
        raise CasesError(path, error.en, error.zh, line, column) from None


def _number(text: str, name: str, column: Column) -> float:
    """A cell as policy.inputs.input_values encodes it."""
    if text == MISSING and MISSING not in column.values:
        if name in ASKED or name.startswith(LENT):
            raise CellError("is always known, it cannot be missing", "总是已知，不能缺失")
        return math.nan
    if column.kind == "string":
        return float(column.values.index(_one_of(text, column.values)))
    if column.kind == "boolean":  # spreadsheets write capitals
        return float(_one_of(text.lower(), ("true", "false")) == "true")
    number = float(_integer(text)) if name.endswith("_minor") or name in ASKED else _decimal(text)
    column.check(number)
    return number


def _one_of(text: str, values: Collection[str]) -> str:
    if text not in values:
        raise CellError(f"{text!r} is none of {', '.join(values)}", f"{text!r} 不在可选值之中：{'、'.join(values)}")
    return text


def _decimal(text: str) -> float:
    if not _NUMBER.fullmatch(text) or not math.isfinite(float(text)):
        raise CellError(f"{text!r} is not a number", f"{text!r} 不是数值")
    return float(text)


def _integer(text: str) -> int:
    number = _decimal(text)
    if number != int(number):
        raise CellError(f"{text!r} is not a whole number", f"{text!r} 不是整数")
    return int(number)


def _outcome(text: str) -> Outcome:
    if not text:
        raise CellError("every case expects an outcome", "每个案例都必须写明预期的结果")
    return _OUTCOMES[_one_of(text.lower(), _OUTCOMES)]


def _grade(text: str) -> str | None:
    return _one_of(text, GRADES) if text else None


def _funding(text: str) -> dict[str, int] | None:
    shares = {}
    for part in text.split():
        funder, colon, amount = part.rpartition(":")
        if not funder or not colon or funder in shares:
            raise CellError(
                f"{part!r} is not written as funder:amount_minor, each funder once",
                f"{part!r} 应写作 资金方:金额（分），每个资金方一次",
            )
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

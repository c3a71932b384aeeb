"""The cell language of decision tables: text → checked → the numbers for which it holds.

A subset of GoRules' unary expressions (docs.gorules.io, zen-engine 2.1.3) on which zen and we agree for every
typed value that is there. Where zen fails open we do not: what cannot be parsed or has the wrong type
raises CellError instead of never matching, `-` (which zen never matches) must be written as an empty cell, and a
missing value is neither true nor false unless the cell asks for `null`.
A string counts as the index of its value, a boolean as 0 or 1, so every test is a set of numbers.
"""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

from policy.spans import EVERY, NONE, Spans, both, but, either, from_to, point

Value = float | str | bool

NUMBER = r"[0-9]+(?:\.[0-9]+)?"
_TOKEN = re.compile(
    rf"\s*(?:(?P<number>-?{NUMBER})|(?P<string>'[^'\"\\]*'|\"[^'\"\\]*\")|(?P<word>[a-z]+)"
    r"|(?P<sign>>=|<=|==|!=|\.\.|[<>\[\](),]))"
)
_DIGITS_MAX = 15  # zen keeps 16 significant digits, a double 15
KINDS_ZH = {"number": "数值", "string": "文本", "boolean": "布尔值"}


class CellError(ValueError):
    """What is wrong with one cell, in English and Chinese; policy.tables adds where it stands."""

    def __init__(self, en: str, zh: str) -> None:
        super().__init__(en)
        self.en, self.zh = en, zh


@dataclass(frozen=True)
class Column:
    """What a column holds: `kind` is number, string or boolean; `values` all possible strings, `range` all numbers.

    A string column without values is open: it may hold any text.
    """

    kind: str
    values: tuple[str, ...] = ()
    range: tuple[float, float] = (-math.inf, math.inf)
    is_open: bool = False

    def naming(self, cells: Iterable[str]) -> "Column":
        """The column with the values that its cells name, where it has none of its own."""
        if self.kind != "string" or self.values:
            return self
        named = {token["string"][1:-1] for cell in cells for token in _TOKEN.finditer(cell) if token["string"]}
        return Column(self.kind, tuple(sorted(named)), self.range, True)

    def check_number(self) -> None:
        """Raises CellError where no number can stand in this column."""
        if self.kind != "number":
            raise CellError(
                f"arithmetic gives a number, the column holds a {self.kind}",
                f"算式的结果是数值，而该列为{KINDS_ZH[self.kind]}",
            )

    def check(self, value: Value) -> None:
        """Raises CellError where `value` cannot stand in this column."""
        kind = "boolean" if isinstance(value, bool) else "string" if isinstance(value, str) else "number"
        if kind != self.kind:
            raise CellError(
                f"{value!r} is a {kind}, the column holds a {self.kind}",
                f"{value!r} 是{KINDS_ZH[kind]}，而该列为{KINDS_ZH[self.kind]}",
            )
        if self.values and value not in self.values:
            raise CellError(
                f"{value!r} is none of {', '.join(self.values)}", f"{value!r} 不在可选值之中：{'、'.join(self.values)}"
            )
        low, high = self.range
        if not isinstance(value, str) and not low <= value <= high:
            raise CellError(
                f"{value!r} is not from {low:g} to {high:g}", f"{value!r} 不在 {low:g} 至 {high:g} 的范围内"
            )

    def has_any(self, spans: Spans) -> bool:
        """Whether a value that can stand in this column lies in any of them."""
        if self.kind == "number" or self.is_open:
            return any(low <= self.range[1] and self.range[0] <= high for low, high in spans)
        return any(low <= n <= high for low, high in spans for n in range(len(self.values) or 2))

    def number(self, value: Value) -> float:
        """The number that stands for a value of this column; -1 for any string that it does not name."""
        if isinstance(value, str):
            return float(self.values.index(value)) if value in self.values else -1.0
        return float(value)

    def value(self, number: float) -> Value | None:
        """The value that a number stands for, None for NaN."""
        if math.isnan(number):
            return None
        if self.kind == "string":
            return self.values[int(number)] if number >= 0 else "another"
        return bool(number) if self.kind == "boolean" else number


@dataclass(frozen=True)
class Test:
    """A checked cell: a condition on one input, true for a number in `spans` and false for any other.

    `if_missing` is the cell's truth where the value is missing, None for unknown (Kleene's logic); `numbers` are the
    points where it may change.
    """

    spans: Spans
    if_missing: bool | None = None
    numbers: tuple[float, ...] = ()


def parse_test(text: str, column: Column) -> Test | None:
    """The condition in an input cell; None for an empty cell, which holds for anything, even missing."""
    if text.strip() == "-":
        raise CellError(
            "'-' matches nothing in zen; leave the cell empty to match anything",
            "“-”在 zen 中不匹配任何值；要匹配任意值请把单元格留空",
        )
    return _Parser(text, column).cell() if text.strip() else None


def parse_literal(text: str) -> Value | None:
    """The number, quoted string or boolean that is all of `text`; None where it is something else."""
    match = _TOKEN.fullmatch(text.strip())
    if match is None or match.lastgroup == "sign":
        return None
    return _literal(match)


def _literal(token: re.Match[str]) -> Value | None:
    text = token[token.lastgroup or 0]
    if token.lastgroup == "string":
        return text[1:-1]
    if token.lastgroup == "number":
        if len(text.lstrip("-").replace(".", "")) > _DIGITS_MAX:
            raise CellError(f"{text} has more than {_DIGITS_MAX} digits", f"{text} 超过 {_DIGITS_MAX} 位数字")
        return float(text) if "." in text else int(text)
    return {"true": True, "false": False}.get(text)


class _Parser:
    """A cell is one test, or several joined by one and the same word: `and`, `or`, or `,` which means `or`.

    zen reads a mixture from left to right, people do not, so it is refused.
    """

    def __init__(self, text: str, column: Column) -> None:
        self._text, self._column, self._at = text, column, 0
        self._tokens: list[re.Match[str]] = []
        end = len(text.rstrip())
        position = 0
        while position < end:
            match = _TOKEN.match(text, position)
            if match is None:
                raise unreadable(text[position:end], text)
            self._tokens.append(match)
            position = match.end()

    def cell(self) -> Test:
        parts = [self._test()]
        word = self._peek()
        while self._at < len(self._tokens):
            if word not in ("and", "or", ",") or not self._take(word):
                raise CellError(
                    f"unexpected {self._peek()!r} in {self._text!r}; 'and', 'or' and ',' do not mix",
                    f"{self._text!r} 中多出 {self._peek()!r}；and、or 与逗号不能混用",
                )
            parts.append(self._test())
        return _join("and" if word == "and" else "or", parts)

    def _test(self) -> Test:
        sign = self._peek()
        if sign in ("<", "<=", ">", ">="):
            self._at += 1
            number = self._number()
            low, high = (-math.inf, number) if sign[0] == "<" else (number, math.inf)
            return Test(from_to(low, high, sign != ">", sign != "<"), None, (number,))
        if sign in ("==", "!="):
            self._at += 1
            return self._equal(sign)
        if sign == "not":
            self._at += 1
            self._expect("in")
            inner = self._list()
            return Test(but(inner.spans), None, inner.numbers)
        if self._take("in"):
            return self._list()
        return self._item()

    def _equal(self, sign: str) -> Test:
        if self._take("null"):
            return Test(EVERY, False) if sign == "!=" else Test(NONE, True)
        value = self._value()
        spans = point(self._column.number(value))
        return Test(spans if sign == "==" else but(spans), None, _numbers(value))

    def _item(self) -> Test:
        return self._list() if self._peek() in ("[", "(") else self._equal("==")

    def _list(self) -> Test:
        """`[1..5)` or, in square brackets only, `[1, 5]`."""
        start = self._peek()
        if not (self._take("[") or self._take("(")):
            raise CellError(f"expected a list or a range in {self._text!r}", f"{self._text!r} 中此处应为列表或区间")
        first = self._value()
        if self._take(".."):
            return self._range(start, first)
        if start != "[":
            raise CellError(f"a list stands in [ ] in {self._text!r}", f"{self._text!r} 中列表须用方括号 [ ]")
        values = [first]
        while self._take(","):
            values.append(self._value())
        self._expect("]")
        spans = either(*(point(self._column.number(value)) for value in values))
        return Test(spans, None, tuple(n for v in values for n in _numbers(v)))

    def _range(self, start: str, low: Value) -> Test:
        high = self._number()
        end = self._peek()
        if not (self._take("]") or self._take(")")):
            raise CellError(f"expected ] or ) in {self._text!r}", f"{self._text!r} 中缺少 ] 或 )")
        assert not isinstance(low, str)  # of the same column as `high`
        if low > high or (low == high and (start, end) != ("[", "]")):
            raise CellError(f"the range in {self._text!r} is empty", f"{self._text!r} 中的区间为空")
        return Test(from_to(low, high, start == "[", end == "]"), None, (low, high))

    def _number(self) -> float:
        if self._column.kind != "number":
            raise CellError(
                f"only a number can be compared for size, the column holds a {self._column.kind}",
                f"只有数值可以比较大小，而该列为{KINDS_ZH[self._column.kind]}",
            )
        value = self._value()
        assert not isinstance(value, str)
        return value

    def _value(self) -> Value:
        value = _literal(self._tokens[self._at]) if self._at < len(self._tokens) else None
        if value is None:
            raise CellError(
                f"expected a number, 'text', true or false in {self._text!r}, not {self._peek()!r}",
                f"{self._text!r} 中此处应为数值、'文本'、true 或 false，而不是 {self._peek()!r}",
            )
        self._at += 1
        self._column.check(value)
        return value

    def _peek(self) -> str:
        return self._tokens[self._at][0].strip() if self._at < len(self._tokens) else ""

    def _take(self, sign: str) -> bool:
        taken = self._peek() == sign
        self._at += taken
        return taken

    def _expect(self, sign: str) -> None:
        if not self._take(sign):
            raise CellError(f"expected {sign} in {self._text!r}", f"{self._text!r} 中缺少 {sign}")


def unreadable(part: str, text: str) -> CellError:
    """The error of a part that is no word of the language."""
    return CellError(f"cannot read {part!r} in {text!r}", f"无法识别 {text!r} 中的 {part!r}")


def _numbers(value: Value) -> tuple[float, ...]:
    return () if isinstance(value, str | bool) else (value,)


def _join(word: str, parts: list[Test]) -> Test:
    """`and` / `or` of tests. Missing: one false makes `and` false, one true makes `or` true, else unknown stays."""
    if len(parts) == 1:
        return parts[0]
    truths = {part.if_missing for part in parts}
    deciding = word == "or"
    if deciding in truths:
        missing: bool | None = deciding
    else:
        missing = None if None in truths else not deciding
    spans = (either if word == "or" else both)(*(part.spans for part in parts))
    return Test(spans, missing, tuple(n for part in parts for n in part.numbers))

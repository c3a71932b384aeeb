"""The cell language of decision tables: text → checked → Python source, never evaluated as raw text.

A subset of GoRules' unary expressions (docs.gorules.io, zen-engine 2.1.3) on which zen and we agree for every
typed value that is there. Where zen fails open we do not: what cannot be parsed or has the wrong type
raises CellError instead of never matching, `-` (which zen never matches) must be written as an empty cell, and a
missing value is neither true nor false unless the cell asks for `null`.
"""

import ast
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

Value = float | str | bool

_NUMBER = r"[0-9]+(?:\.[0-9]+)?"
_NAME = r"[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)?"
_TOKEN = re.compile(
    rf"\s*(?:(?P<number>-?{_NUMBER})|(?P<string>'[^'\"\\]*'|\"[^'\"\\]*\")|(?P<word>[a-z]+)"
    r"|(?P<sign>>=|<=|==|!=|\.\.|[<>\[\](),]))"
)
_DIGITS_MAX = 15  # zen keeps 16 significant digits, a double 15


class CellError(ValueError):
    """What is wrong with one cell; policy.tables adds where it stands."""


@dataclass(frozen=True)
class Column:
    """What a column holds: `kind` is number, string or boolean; `values` all possible strings, `range` all numbers."""

    kind: str
    values: tuple[str, ...] = ()
    range: tuple[float, float] = (-math.inf, math.inf)

    def check_number(self) -> None:
        """Raises CellError where no number can stand in this column."""
        if self.kind != "number":
            raise CellError(f"arithmetic gives a number, the column holds a {self.kind}")

    def check(self, value: Value) -> None:
        """Raises CellError where `value` cannot stand in this column."""
        kind = "boolean" if isinstance(value, bool) else "string" if isinstance(value, str) else "number"
        if kind != self.kind:
            raise CellError(f"{value!r} is a {kind}, the column holds a {self.kind}")
        if self.values and value not in self.values:
            raise CellError(f"{value!r} is none of {', '.join(self.values)}")
        if not isinstance(value, str) and not self.range[0] <= value <= self.range[1]:
            raise CellError(f"{value!r} is not from {self.range[0]:g} to {self.range[1]:g}")


@dataclass(frozen=True)
class Test:
    """A checked cell: Python source of a condition on one variable, true or false for every value that is there.

    `if_missing` is the cell's truth where the value is missing, None for unknown (Kleene's logic); `numbers` are the
    points where it may change.
    """

    source: str
    if_missing: bool | None = None
    numbers: tuple[float, ...] = ()


def parse_test(text: str, column: Column, variable: str) -> Test | None:
    """The condition in an input cell on `variable`; None for an empty cell, which holds for anything, even missing."""
    if text.strip() == "-":
        raise CellError("'-' matches nothing in zen; leave the cell empty to match anything")
    return _Parser(text, column, variable).cell() if text.strip() else None


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
            raise CellError(f"{text} has more than {_DIGITS_MAX} digits")
        return float(text) if "." in text else int(text)
    return {"true": True, "false": False}.get(text)


class _Parser:
    """A cell is one test, or several joined by one and the same word: `and`, `or`, or `,` which means `or`.

    zen reads a mixture from left to right, people do not, so it is refused.
    """

    def __init__(self, text: str, column: Column, variable: str) -> None:
        self._text, self._column, self._x, self._at = text, column, variable, 0
        self._tokens: list[re.Match[str]] = []
        end = len(text.rstrip())
        position = 0
        while position < end:
            match = _TOKEN.match(text, position)
            if match is None:
                raise CellError(f"cannot read {text[position:end]!r} in {text!r}")
            self._tokens.append(match)
            position = match.end()

    def cell(self) -> Test:
        parts = [self._test()]
        word = self._peek()
        while self._at < len(self._tokens):
            if word not in ("and", "or", ",") or not self._take(word):
                raise CellError(f"unexpected {self._peek()!r} in {self._text!r}; 'and', 'or' and ',' do not mix")
            parts.append(self._test())
        return _join("and" if word == "and" else "or", parts)

    def _test(self) -> Test:
        sign = self._peek()
        if sign in ("<", "<=", ">", ">="):
            self._at += 1
            number = self._number()
            return Test(f"{self._x} {sign} {number!r}", None, (number,))
        if sign in ("==", "!="):
            self._at += 1
            return self._equal(sign)
        if sign == "not":
            self._at += 1
            self._expect("in")
            inner = self._list()
            return Test(f"not ({inner.source})", None, inner.numbers)
        if self._take("in"):
            return self._list()
        return self._item()

    def _equal(self, sign: str) -> Test:
        if self._take("null"):
            return Test(str(sign == "!="), sign == "==")
        value = self._value()
        return Test(f"{self._x} {sign} {value!r}", None, _numbers(value))

    def _item(self) -> Test:
        return self._list() if self._peek() in ("[", "(") else self._equal("==")

    def _list(self) -> Test:
        """`[1..5)` or, in square brackets only, `[1, 5]`."""
        start = self._peek()
        if not (self._take("[") or self._take("(")):
            raise CellError(f"expected a list or a range in {self._text!r}")
        first = self._value()
        if self._take(".."):
            return self._range(start, first)
        if start != "[":
            raise CellError(f"a list stands in [ ] in {self._text!r}")
        values = [first]
        while self._take(","):
            values.append(self._value())
        self._expect("]")
        return Test(f"{self._x} in {tuple(values)!r}", None, tuple(n for v in values for n in _numbers(v)))

    def _range(self, start: str, low: Value) -> Test:
        high = self._number()
        end = self._peek()
        if not (self._take("]") or self._take(")")):
            raise CellError(f"expected ] or ) in {self._text!r}")
        assert not isinstance(low, str)  # of the same column as `high`
        if low > high or (low == high and (start, end) != ("[", "]")):
            raise CellError(f"the range in {self._text!r} is empty")
        below, above = "<=" if start == "[" else "<", "<=" if end == "]" else "<"
        return Test(f"{low!r} {below} {self._x} {above} {high!r}", None, (low, high))

    def _number(self) -> float:
        if self._column.kind != "number":
            raise CellError(f"only a number can be compared for size, the column holds a {self._column.kind}")
        value = self._value()
        assert not isinstance(value, str)
        return value

    def _value(self) -> Value:
        value = _literal(self._tokens[self._at]) if self._at < len(self._tokens) else None
        if value is None:
            raise CellError(f"expected a number, 'text', true or false in {self._text!r}, not {self._peek()!r}")
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
            raise CellError(f"expected {sign} in {self._text!r}")


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
    source = f" {word} ".join(f"({part.source})" for part in parts)
    return Test(source, missing, tuple(n for part in parts for n in part.numbers))


_OPERATORS: dict[type[ast.operator], str] = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/"}


@dataclass(frozen=True)
class Arithmetic:
    """A checked output expression: the names it reads and `source(local)`, its Python with `local(name)` for a name."""

    names: tuple[str, ...]
    source: Callable[[Callable[[str], str]], str]


def parse_arithmetic(text: str, inputs: Mapping[str, Column]) -> Arithmetic:
    """+ - * / and brackets over numbers and number inputs; one may only divide by a number that is not 0."""
    for word in re.findall(r"[^\s()+*/-]+", text):
        if not re.fullmatch(rf"{_NUMBER}|{_NAME}", word):
            raise CellError(f"cannot read {word!r} in {text!r}")
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except SyntaxError:
        raise CellError(f"cannot read {text!r}") from None
    names: list[str] = []
    _check(tree, text, inputs, names)
    return Arithmetic(tuple(dict.fromkeys(names)), lambda local: _emit(tree, local))


def _check(node: ast.expr, text: str, inputs: Mapping[str, Column], names: list[str]) -> None:
    match node:
        case ast.BinOp(left, operator, right) if type(operator) in _OPERATORS:
            if isinstance(operator, ast.Div) and not (isinstance(right, ast.Constant) and right.value):
                raise CellError(f"{text!r} may only divide by a number that is not 0")
            _check(left, text, inputs, names)
            _check(right, text, inputs, names)
        case ast.UnaryOp(ast.USub(), operand):
            _check(operand, text, inputs, names)
        case ast.Constant(int() | float()):
            pass
        case ast.Name() | ast.Attribute(ast.Name()):
            name = ast.unparse(node)
            if name not in inputs:
                raise CellError(f"unknown input {name!r} in {text!r}")
            if inputs[name].kind != "number":
                raise CellError(f"{name} in {text!r} is a {inputs[name].kind}, not a number")
            names.append(name)
        case _:
            raise CellError(f"{ast.unparse(node)!r} in {text!r} is neither a value nor arithmetic")


def _emit(node: ast.expr, local: Callable[[str], str]) -> str:
    match node:
        case ast.BinOp(left, operator, right):
            return f"({_emit(left, local)} {_OPERATORS[type(operator)]} {_emit(right, local)})"
        case ast.UnaryOp(_, operand):
            return f"(-{_emit(operand, local)})"
        case ast.Constant(value):
            return repr(value)
    return local(ast.unparse(node))

"""Arithmetic in output cells: text → checked → postfix, which policy.kernel runs; never evaluated as Python."""

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass

from policy.cells import KINDS_ZH, NUMBER, CellError, Column, unreadable

_NAME = r"[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)?"
_OPERATORS: dict[type[ast.operator], str] = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/"}
OPERATIONS = (*_OPERATORS.values(), "~")  # the last is the sign
PARTS_MAX = 64  # numbers, names, operators and brackets of one output


@dataclass(frozen=True)
class Arithmetic:
    """A checked output expression in postfix: numbers, names of inputs, `+ - * /` and `~`."""

    steps: tuple[float | str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The inputs that it reads."""
        words = (step for step in self.steps if isinstance(step, str) and step not in OPERATIONS)
        return tuple(dict.fromkeys(words))


def parse_arithmetic(text: str, inputs: Mapping[str, Column]) -> Arithmetic:
    """+ - * / and brackets over numbers and number inputs; one may only divide by a number that is not 0."""
    if len(re.findall(r"[()+*/-]|[^\s()+*/-]+", text)) > PARTS_MAX:
        raise CellError(f"{text!r} has more than {PARTS_MAX} parts", f"{text!r} 超过 {PARTS_MAX} 个部分")
    for word in re.findall(r"[^\s()+*/-]+", text):
        if not re.fullmatch(rf"{NUMBER}|{_NAME}", word):
            raise unreadable(word, text)
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except SyntaxError:
        raise CellError(f"cannot read {text!r}", f"无法识别 {text!r}") from None
    steps: list[float | str] = []
    _postfix(tree, text, inputs, steps)
    return Arithmetic(tuple(steps))


def _postfix(node: ast.expr, text: str, inputs: Mapping[str, Column], steps: list[float | str]) -> None:
    match node:
        case ast.BinOp(left, operator, right) if type(operator) in _OPERATORS:
            if isinstance(operator, ast.Div) and not (isinstance(right, ast.Constant) and right.value):
                raise CellError(f"{text!r} may only divide by a number that is not 0", f"{text!r} 只能除以非零的数")
            _postfix(left, text, inputs, steps)
            _postfix(right, text, inputs, steps)
            steps.append(_OPERATORS[type(operator)])
        case ast.UnaryOp(ast.USub(), operand):
            _postfix(operand, text, inputs, steps)
            steps.append("~")
        case ast.Constant(int() | float() as value) if not isinstance(value, bool):
            steps.append(float(value))
        case ast.Name() | ast.Attribute(ast.Name()):
            name = ast.unparse(node)
            if name not in inputs:
                raise CellError(f"unknown input {name!r} in {text!r}", f"{text!r} 中的 {name!r} 不是已知的输入项")
            if (kind := inputs[name].kind) != "number":
                raise CellError(
                    f"{name} in {text!r} is a {kind}, not a number",
                    f"{text!r} 中的 {name} 是{KINDS_ZH[kind]}，不是数值",
                )
            steps.append(name)
        case _:
            part = ast.unparse(node)
            raise CellError(
                f"{part!r} in {text!r} is neither a value nor arithmetic", f"{text!r} 中的 {part!r} 既不是值也不是算式"
            )

"""Arithmetic over feature names for cross features: a small checked language, compiled to postfix programs that one
kernel runs over whole rows.
"""

import ast
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

import numpy as np
from numba import njit
from numpy.typing import NDArray

COLUMN, NUMBER, ADD, SUBTRACT, MULTIPLY, DIVIDE, MIN, MAX, MEDIAN = range(9)
STACK_MAX = 32

Floats = NDArray[np.float64]
Step = tuple[int, float]  # what to do; of which column, the number, or over how many operands


class ExpressionError(ValueError):
    """An expression that is not of this language; the message quotes it."""


class Expression:
    """Arithmetic over feature names: + - * /, numbers, min, max, and median of what is present.

    Evaluated on float64 columns. Division by zero and a missing operand give NaN; only median skips what is missing,
    and of an even number it is the lower one: losing a value must not flatter.
    """

    _OPERATORS: ClassVar[dict[type, int]] = {
        ast.Add: ADD, ast.Sub: SUBTRACT, ast.Mult: MULTIPLY, ast.Div: DIVIDE,
    }  # fmt: skip
    _FUNCTIONS: ClassVar[dict[str, int]] = {"min": MIN, "max": MAX, "median": MEDIAN}

    def __init__(self, text: str) -> None:
        try:
            tree = ast.parse(text, mode="eval").body
        except SyntaxError as error:
            raise ExpressionError(f"cannot read expression {text!r}: {error.msg}") from None
        names: list[str] = []
        self._steps: list[Step] = []
        self._compile(tree, text, names, 1)
        self.names = tuple(names)
        if not names:
            raise ExpressionError(f"expression {text!r} names no feature")

    def __call__(self, column: Callable[[str], Floats]) -> Floats:
        """float64 [B] value of the expression; `column(name)` gives float64 [B]."""
        rows = np.column_stack([*(column(name) for name in self.names), column(self.names[0])])
        crosses = Crosses({name: i for i, name in enumerate(self.names)}, [(rows.shape[1] - 1, self)])
        crosses.fill(rows)
        return rows[:, -1].copy()

    def steps(self, column: Mapping[str, int]) -> list[Step]:
        """The postfix program over columns."""
        names = iter(self.names)
        return [(kind, column[next(names)] if kind == COLUMN else x) for kind, x in self._steps]

    def _compile(self, node: ast.expr, text: str, names: list[str], depth: int) -> None:
        """depth: how many operands wait when this one is there."""
        if depth > STACK_MAX:
            raise ExpressionError(f"expression {text!r} nests too deep")
        match node:
            case ast.BinOp(left, operator, right) if type(operator) in self._OPERATORS:
                self._compile(left, text, names, depth)
                self._compile(right, text, names, depth + 1)
                self._steps.append((self._OPERATORS[type(operator)], 2))
            case ast.Call(ast.Name("min" | "max" | "median" as function), [_, _, *_] as arguments, []):
                for i, argument in enumerate(arguments):
                    self._compile(argument, text, names, depth + i)
                self._steps.append((self._FUNCTIONS[function], len(arguments)))
            case ast.Name(name):
                names.append(name)
                self._steps.append((COLUMN, 0))
            case ast.Constant(int() | float() as number):
                self._steps.append((NUMBER, float(number)))
            case _:
                raise ExpressionError(f"expression {text!r}: {ast.unparse(node)!r} is not allowed")


class Crosses:
    """The expressions of a schema, each with the column that it fills; one may use those before it."""

    def __init__(self, column: Mapping[str, int], crosses: Sequence[tuple[int, Expression]]) -> None:
        programs = [expression.steps(column) for _, expression in crosses]
        steps = np.array([step for program in programs for step in program], dtype=np.float64).reshape(-1, 2)
        self._kind, self._operand = steps[:, 0].astype(np.int64), np.ascontiguousarray(steps[:, 1])
        self._end = np.cumsum([len(program) for program in programs], dtype=np.int64)
        self._target = np.array([target for target, _ in crosses], dtype=np.int64)

    def fill(self, rows: Floats) -> None:
        """Compute their columns of float64 [B, F] rows."""
        _fill(self._kind, self._operand, self._end, self._target, rows)


@njit(cache=True, nogil=True, error_model="numpy")
def _fill(kind, operand, end, target, rows):  # type: ignore[no-untyped-def]
    stack, some = np.empty(STACK_MAX), np.empty(STACK_MAX)
    for i in range(len(rows)):
        step = 0
        for cross in range(len(end)):
            top = np.int64(0)
            while step < end[cross]:
                if kind[step] == COLUMN:
                    stack[top] = rows[i, np.int64(operand[step])]
                    top += 1
                elif kind[step] == NUMBER:
                    stack[top] = operand[step]
                    top += 1
                else:
                    count = np.int64(operand[step])
                    top -= count
                    stack[top] = _apply(kind[step], stack[top : top + count], some)
                    top += 1
                step += 1
            rows[i, target[cross]] = stack[0] if np.isfinite(stack[0]) else np.nan


@njit(cache=True, nogil=True, error_model="numpy")
def _apply(kind, given, some):  # type: ignore[no-untyped-def]
    """float: an operation on its operands; `some` is room for as many."""
    if kind == ADD:
        return given[0] + given[1]
    if kind == SUBTRACT:
        return given[0] - given[1]
    if kind == MULTIPLY:
        return given[0] * given[1]
    if kind == DIVIDE:
        return given[0] / given[1]
    present = 0
    for x in given:
        if not np.isnan(x):
            at = present
            while at > 0 and some[at - 1] > x:
                some[at] = some[at - 1]
                at -= 1
            some[at] = x
            present += 1
    if present == 0 or (kind != MEDIAN and present < len(given)):
        return np.nan
    return some[0] if kind == MIN else some[present - 1] if kind == MAX else some[(present - 1) // 2]

"""Arithmetic over feature names for cross features: a small checked language, evaluated on whole columns."""

import ast
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray


class ExpressionError(ValueError):
    """An expression that is not of this language; the message quotes it."""


class Expression:
    """Arithmetic over feature names: + - * /, numbers, min, max, and median of what is present.

    Evaluated on float64 columns. Division by zero and a missing operand give NaN; only median skips what is missing,
    and of an even number it is the lower one: losing a value must not flatter.
    """

    _OPERATORS: ClassVar[dict[type, Callable[..., Any]]] = {
        ast.Add: np.add, ast.Sub: np.subtract, ast.Mult: np.multiply, ast.Div: np.divide,
    }  # fmt: skip

    def __init__(self, text: str) -> None:
        try:
            self._tree = ast.parse(text, mode="eval").body
        except SyntaxError as error:
            raise ExpressionError(f"cannot read expression {text!r}: {error.msg}") from None
        names: list[str] = []
        self._check(self._tree, text, names)
        self.names = tuple(names)

    def __call__(self, column: Callable[[str], NDArray[np.float64]]) -> NDArray[np.float64]:
        """float64 [B] value of the expression; `column(name)` gives float64 [B]."""
        with np.errstate(all="ignore"):
            result = np.asarray(self._evaluate(self._tree, column), dtype=np.float64)
        return np.where(np.isfinite(result), result, np.nan)

    def _check(self, node: ast.expr, text: str, names: list[str]) -> None:
        match node:
            case ast.BinOp(left, operator, right) if type(operator) in self._OPERATORS:
                self._check(left, text, names)
                self._check(right, text, names)
            case ast.Call(ast.Name("min" | "max" | "median"), [_, _, *_] as arguments, []):
                for argument in arguments:
                    self._check(argument, text, names)
            case ast.Name(name):
                names.append(name)
            case ast.Constant(int() | float()):
                pass
            case _:
                raise ExpressionError(f"expression {text!r}: {ast.unparse(node)!r} is not allowed")

    def _evaluate(self, node: ast.expr, column: Callable[[str], NDArray[np.float64]]) -> Any:
        match node:
            case ast.BinOp(left, operator, right):
                return self._OPERATORS[type(operator)](self._evaluate(left, column), self._evaluate(right, column))
            case ast.Call(ast.Name(function), arguments):
                values = np.stack(np.broadcast_arrays(*(self._evaluate(a, column) for a in arguments)))
                return _FUNCTIONS[function](values)
            case ast.Name(name):
                return column(name)
            case ast.Constant(value):
                return np.float64(value)  # type: ignore[arg-type]
        raise AssertionError("checked at load")


def _median(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """float64 [B]: lower median over axis 0 of what is present, NaN where nothing is."""
    ordered = np.sort(values, axis=0)  # NaN sorts last
    present = np.count_nonzero(~np.isnan(values), axis=0)
    middle: NDArray[np.float64] = np.take_along_axis(ordered, (np.maximum(present, 1)[None] - 1) // 2, axis=0)[0]
    return middle


_FUNCTIONS: dict[str, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
    "min": lambda v: np.minimum.reduce(v, axis=0),
    "max": lambda v: np.maximum.reduce(v, axis=0),
    "median": _median,
}

"""The functions that expressions may call: a closed list, each over whole columns."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import reduce
from itertools import repeat
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from modelstream.operators.vector_arithmetic import finite, negative, whole
from modelstream.operators.vector_logic import coalesce, is_null, where
from modelstream.operators.vectors import Vector, join_masks, same_dtype

__all__ = ["FUNCTIONS", "MAX_DIGITS", "Function", "Takes"]

#: What an argument must be: ``same`` as the others of that kind, ``digits`` a constant.
Takes = Literal["number", "text", "any", "same", "digits"]

#: A float64 has no more.
MAX_DIGITS = 15


@dataclass(frozen=True, slots=True)
class Function:
    """One function.

    Parameters
    ----------
    usage : str
        How to call it, for messages.
    run : callable
        From vectors to a vector.
    takes : tuple of Takes
        What its arguments must be; the last one may be repeated where `variadic`.
    gives : str
        ``number``, ``text``, or ``same`` as those arguments.
    n_required : int
        Arguments that it needs at least.
    variadic : bool
        Whether it takes more of the last kind.
    """

    usage: str
    run: Callable[..., Vector]
    takes: tuple[Takes, ...]
    gives: Literal["number", "text", "same"]
    n_required: int
    variadic: bool = False


def _floats(ufunc: Callable[[NDArray[np.float64]], NDArray[np.float64]]) -> Callable[[Vector], Vector]:
    def run(x: Vector) -> Vector:
        return finite(ufunc(_number(x).astype(np.float64, copy=False)), x)

    return run


def _wholes(ufunc: Callable[[NDArray[np.float64]], NDArray[np.float64]]) -> Callable[[Vector], Vector]:
    def run(x: Vector) -> Vector:
        values = _number(x)
        if values.dtype.kind != "f":
            return Vector(values.astype(np.int64, copy=False), x.null, x.bad)
        return whole(ufunc(values.astype(np.float64, copy=False)), x)

    return run


def _number(x: Vector) -> NDArray[Any]:
    if x.is_text:
        raise TypeError("the function takes numbers, not text")
    return x.values


def _round(x: Vector, digits: Vector | None = None) -> Vector:
    if digits is None or _number(x).dtype.kind != "f":
        return _rint(x)
    return finite(np.asarray(np.round(x.values.astype(np.float64, copy=False), int(digits.values))), x)


_rint = _wholes(np.rint)


def _abs(x: Vector) -> Vector:
    values = _number(x)
    if values.dtype.kind == "f":
        return Vector(np.abs(values), x.null, x.bad)
    return where(Vector(values < 0), negative(x), Vector(values.astype(np.int64, copy=False), x.null, x.bad))


def _extreme(ufunc: Callable[[Any, Any], Any]) -> Callable[..., Vector]:
    def run(*vectors: Vector) -> Vector:
        values = np.asarray(reduce(ufunc, same_dtype(vectors)))
        return Vector(values, *_masks(vectors))

    return run


def _masks(vectors: Iterable[Vector]) -> tuple[NDArray[np.bool_] | None, NDArray[np.bool_] | None]:
    both = list(vectors)
    return join_masks(*(vector.null for vector in both)), join_masks(*(vector.bad for vector in both))


def _text(function: Callable[..., Any], dtype: Any) -> Callable[..., Vector]:
    """Return a function over columns from one over texts. It is mapped, which is a loop in C; numpy has none faster."""

    def run(*vectors: Vector) -> Vector:
        shape = np.broadcast_shapes(*(vector.values.shape for vector in vectors))
        results = list(map(function, *(_texts(vector, bool(shape)) for vector in vectors)))
        values = np.empty(len(results), dtype)
        values[:] = results
        return Vector(values.reshape(shape), *_masks(vectors))

    return run


def _texts(vector: Vector, repeated: bool) -> Iterable[str]:
    if not vector.is_text and not vector.is_nothing:
        raise TypeError("the function takes text, not numbers")
    if vector.values.ndim:
        values: list[str] = vector.values.tolist()
        return values
    value = vector.values.item() if vector.is_text else ""
    return repeat(value) if repeated else [value]


#: The functions by name.
FUNCTIONS: Mapping[str, Function] = {
    "where": Function("where(condition, a, b)", where, ("number", "same", "same"), "same", 3),
    "coalesce": Function(
        "coalesce(a, b, ...)", lambda *vectors: reduce(coalesce, vectors), ("same", "same"), "same", 2, variadic=True
    ),
    "is_null": Function("is_null(x)", is_null, ("any",), "number", 1),
    "min": Function("min(a, b, ...)", _extreme(np.minimum), ("same", "same"), "same", 2, variadic=True),
    "max": Function("max(a, b, ...)", _extreme(np.maximum), ("same", "same"), "same", 2, variadic=True),
    "abs": Function("abs(x)", _abs, ("number",), "number", 1),
    "round": Function("round(x) or round(x, digits)", _round, ("number", "digits"), "number", 1),
    "floor": Function("floor(x)", _wholes(np.floor), ("number",), "number", 1),
    "ceil": Function("ceil(x)", _wholes(np.ceil), ("number",), "number", 1),
    "sqrt": Function("sqrt(x)", _floats(np.sqrt), ("number",), "number", 1),
    "exp": Function("exp(x)", _floats(np.exp), ("number",), "number", 1),
    "log": Function("log(x)", _floats(np.log), ("number",), "number", 1),
    "log1p": Function("log1p(x)", _floats(np.log1p), ("number",), "number", 1),
    "sin": Function("sin(x)", _floats(np.sin), ("number",), "number", 1),
    "cos": Function("cos(x)", _floats(np.cos), ("number",), "number", 1),
    "len": Function("len(text)", _text(len, np.int64), ("text",), "number", 1),
    "lower": Function("lower(text)", _text(str.lower, object), ("text",), "text", 1),
    "upper": Function("upper(text)", _text(str.upper, object), ("text",), "text", 1),
    "startswith": Function("startswith(text, start)", _text(str.startswith, np.bool_), ("text", "text"), "number", 2),
    "endswith": Function("endswith(text, end)", _text(str.endswith, np.bool_), ("text", "text"), "number", 2),
    "contains": Function("contains(text, part)", _text(operator.contains, np.bool_), ("text", "text"), "number", 2),
}

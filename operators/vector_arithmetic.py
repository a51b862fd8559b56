"""Arithmetic over columns: integers stay integers, all else is float64, and what is not finite is marked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelstream.operators.vectors import Vector, join_masks, same_dtype, some

__all__ = ["MAX_TEXT", "arithmetic", "finite", "negative", "whole"]

#: Characters of a text that `+` may make: texts that are joined column by column would otherwise double each time.
MAX_TEXT = 65_536

#: From here on a float64 does not go into an int64. Powers are rounded, so that the bound has to be a little lower.
_INT64_END = 2.0**63 * (1 - 1e-12)

_UFUNCS: dict[str, Callable[[Any, Any], NDArray[Any]]] = {
    "+": np.add,
    "-": np.subtract,
    "*": np.multiply,
    "/": np.true_divide,
    "//": np.floor_divide,
    "%": np.remainder,
    "**": np.power,
}


def arithmetic(symbol: str, left: Vector, right: Vector) -> Vector:
    """Return the result of ``+ - * / // % **``: in int64 where both are integers, else in float64.

    ``/`` is always float64, and ``**`` too, unless both are integers and the exponent is one constant, 0 or more.
    ``+`` also joins two texts.

    Raises
    ------
    TypeError
        An operand is text, and it is not ``+`` of two.
    """
    if left.is_text or right.is_text:
        return _joined(symbol, left, right)
    a, b = left.values, right.values
    if a.dtype.kind in "bi" and b.dtype.kind in "bi" and symbol != "/":
        if symbol != "**":
            return _integer(symbol, left, right)
        if b.ndim == 0 and b >= 0:
            return _integer_power(left, right)
    return finite(_UFUNCS[symbol](a.astype(np.float64, copy=False), b.astype(np.float64, copy=False)), left, right)


def _joined(symbol: str, left: Vector, right: Vector) -> Vector:
    if symbol != "+" or not all(vector.is_text or vector.is_nothing for vector in (left, right)):
        raise TypeError(f"{symbol} takes two numbers{', or two texts' if symbol == '+' else ', not text'}")
    joined = np.asarray(np.add(*same_dtype([left, right])), object)
    lengths = np.fromiter(map(len, joined.flat), np.int64, joined.size).reshape(joined.shape)
    long = some(lengths > MAX_TEXT)
    if long is not None:
        joined = np.where(long, np.array("", object), joined)
    return Vector(joined, join_masks(left.null, right.null), join_masks(long, left.bad, right.bad))


def _integer(symbol: str, left: Vector, right: Vector) -> Vector:
    a, b = left.values.astype(np.int64, copy=False), right.values.astype(np.int64, copy=False)
    result = _UFUNCS[symbol](a, b)  # wraps around, where it overflows
    if symbol == "+":
        wrong = ((a ^ result) & (b ^ result)) < 0
    elif symbol == "-":
        wrong = ((a ^ b) & (a ^ result)) < 0
    elif symbol == "*":
        wrong = np.abs(a.astype(np.float64) * b) >= _INT64_END
    else:
        wrong = (b == 0) | ((a == np.iinfo(np.int64).min) & (b == -1))
    return Vector(result, join_masks(left.null, right.null), join_masks(some(wrong), left.bad, right.bad))


def _integer_power(left: Vector, right: Vector) -> Vector:
    base, exponent = left.values.astype(np.int64, copy=False), right.values.astype(np.int64)
    wrong = np.abs(np.power(base.astype(np.float64), exponent)) >= _INT64_END
    result = np.power(np.where(wrong, 0, base), exponent)
    return Vector(result, join_masks(left.null, right.null), join_masks(some(wrong), left.bad, right.bad))


def negative(vector: Vector) -> Vector:
    """Return ``-x``; of a truth value, as of the number 0 or 1."""
    if vector.is_text:
        raise TypeError("- takes a number, not text")
    if vector.values.dtype.kind == "f":
        return Vector(-vector.values, vector.null, vector.bad)
    return _integer("-", Vector(np.array(0, np.int64)), vector)


def finite(values: NDArray[Any], *operands: Vector) -> Vector:
    """Return what was calculated of operands, with its rows marked that are not finite."""
    fine = np.isfinite(values)
    own = None if fine.all() else ~fine
    null = join_masks(*(operand.null for operand in operands))
    return Vector(values, null, join_masks(own, *(operand.bad for operand in operands)))


def whole(values: NDArray[np.float64], operand: Vector) -> Vector:
    """Return whole numbers as int64, with the rows marked in which they do not fit."""
    fits = np.abs(values) < _INT64_END  # false of NaN too
    bad = None if fits.all() else ~fits
    return Vector(np.where(fits, values, 0).astype(np.int64), operand.null, join_masks(bad, operand.bad))

"""Comparisons, logic and choices over columns: null is neither true nor false, and what is not needed is not judged."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelstream.operators.vectors import Mask, Vector, join_masks, same_dtype

__all__ = ["both", "coalesce", "compare", "either", "is_null", "member", "negated", "true_rows", "where"]

_COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "==": np.equal,
    "!=": np.not_equal,
    "<": np.less,
    "<=": np.less_equal,
    ">": np.greater,
    ">=": np.greater_equal,
}


def compare(symbol: str, left: Vector, right: Vector) -> Vector:
    """Return where a comparison holds: of numbers by value, of texts by code point; null where one is null.

    Raises
    ------
    TypeError
        One is text and the other is not.
    """
    a, b = same_dtype([left, right])
    null = join_masks(left.null, right.null)
    return Vector(np.asarray(_COMPARE[symbol](a, b), np.bool_), null, join_masks(left.bad, right.bad))


def member(vector: Vector, values: NDArray[Any] | frozenset[str]) -> Vector:
    """Return where the value is one of some numbers, or of some texts.

    Raises
    ------
    TypeError
        It holds text and they are numbers, or the other way round.
    """
    if vector.is_text != isinstance(values, frozenset) and not vector.is_nothing:
        raise TypeError("text cannot be compared with a number")
    if isinstance(values, frozenset):
        found = np.fromiter(map(values.__contains__, vector.values.flat), np.bool_, vector.values.size)
        found = found.reshape(vector.values.shape)
    else:
        found = np.isin(vector.values, values)
    return Vector(found, vector.null, vector.bad)


def _truth(vector: Vector) -> Mask:
    if vector.is_text:
        raise TypeError("a condition is true or false, not text")
    return vector.values if vector.values.dtype == np.bool_ else vector.values != 0


def true_rows(vector: Vector) -> Mask:
    """Return where it is true, or a number other than 0: neither null nor without a finite result."""
    holds, unknown = _truth(vector), join_masks(vector.null, vector.bad)
    return holds if unknown is None else holds & ~unknown


def negated(vector: Vector) -> Vector:
    """Return ``not x``."""
    return Vector(~_truth(vector), vector.null, vector.bad)


def both(left: Vector, right: Vector) -> Vector:
    """Return ``x and y``: false where one is false, even if the other is null; y does not matter where x is false."""
    if left.null is right.null is left.bad is right.bad is None:
        return Vector(_truth(left) & _truth(right))
    left_false, right_false = true_rows(negated(left)), true_rows(negated(right))
    bad = join_masks(left.bad, None if right.bad is None else right.bad & ~left_false)
    false = left_false | right_false
    null = join_masks(left.null, right.null)
    return Vector(true_rows(left) & true_rows(right), None if null is None else null & ~false, bad)


def either(left: Vector, right: Vector) -> Vector:
    """Return ``x or y``: true where one is true, even if the other is null; y does not matter where x is true."""
    return negated(both(negated(left), negated(right)))


_NOWHERE = np.array(False)


def where(condition: Vector, left: Vector, right: Vector) -> Vector:
    """Return for each row the value of `left` where the condition is true, else (false or null) that of `right`."""
    chosen = true_rows(condition)
    a, b = same_dtype([left, right])
    null, bad = (
        None
        if x is None and y is None
        else np.where(chosen, _NOWHERE if x is None else x, _NOWHERE if y is None else y)
        for x, y in ((left.null, right.null), (left.bad, right.bad))
    )
    return Vector(np.where(chosen, a, b), null, join_masks(bad, condition.bad))


def is_null(vector: Vector) -> Vector:
    """Return where there is no value."""
    null = np.zeros(vector.values.shape, np.bool_) if vector.null is None else vector.null
    return Vector(null, None, vector.bad)


def coalesce(left: Vector, right: Vector) -> Vector:
    """Return for each row the value of `left`, or that of `right` where `left` is null."""
    return where(is_null(left), right, left)

"""Safe expressions over columns, such as ``where(late.score > 0.8, 'high', 'low')``: compiled once, run on batches.

Written here since numexpr has no text, nulls nor ``and``, and hands what it is given to `eval`, while simpleeval,
asteval and CEL work row by row.

An expression has names of columns (dots allowed; ``column('any name')`` for others), numbers, texts, ``true``,
``false`` and ``null``, ``+ - * / // % **``, comparisons, also chained, ``in [1, 2]``, ``is null``, ``and``, ``or``,
``not``, ``a if c else b``, and calls of a closed list of functions. It means what it means in Python, with these
differences, the price of whole columns at a time:

* Integers have 64 bits; everything else is float64. ``x ** y`` is an integer only where y is a constant, 0 or more.
* A calculation without a finite result (division by zero, an integer beyond 64 bits, the logarithm of a negative
  number) raises nothing; its row is marked, unless ``and``, ``or``, ``if`` or ``where`` do not need the value.
* ``null`` makes what is calculated of it null; ``and`` and ``or`` are null only where the other side does not decide;
  as a condition it counts as false. ``is null``, `is_null` and `coalesce` ask for it.
* ``and``, ``or``, ``not`` give true or false, not one of their operands.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelstream.operators.batch import Column
from modelstream.operators.expression_compiler import Compiler, Kind
from modelstream.operators.expression_parser import MAX_CHARACTERS, MAX_DEPTH, parse_expression
from modelstream.operators.frame import Frame
from modelstream.operators.vectors import Vector, join_masks

__all__ = ["MAX_CHARACTERS", "MAX_DEPTH", "Expression", "Frame", "Kind", "compile_expression"]


@dataclass(frozen=True, slots=True)
class Expression:
    """An expression, ready to run on batches of columns.

    Parameters
    ----------
    text : str
        As it was written.
    names : frozenset of str
        The columns that it reads.
    kind : str
        What it gives: ``number`` (truth values too), ``text``, or ``any`` where only data can tell.

    Examples
    --------
    >>> expression = compile_expression("score > 0.2 and score < 0.8", "unsure")
    >>> sorted(expression.names), expression({"score": np.array([0.1, 0.5, 0.9])}, 3)
    (['score'], array([False,  True, False]))
    """

    text: str
    names: frozenset[str]
    kind: Kind
    _run: Callable[[Frame], Vector]

    def __call__(self, columns: Mapping[str, Column], n_rows: int) -> NDArray[Any] | list[Any]:
        """Return the value of every row.

        Parameters
        ----------
        columns : mapping of str to Column
            At least the columns of `names`.
        n_rows : int
            Rows of the columns.

        Returns
        -------
        ndarray of bool, int64, float32 or float64, shape (n_rows,), or list of str
            Where a row is null or has no finite result: False, or NaN (which makes integers float64), or None in a
            list. `evaluate` tells which.

        Raises
        ------
        KeyError
            There is no such column.
        TypeError
            A column holds text where numbers are needed, or the other way round, or vectors.
        """
        result = self.evaluate(Frame(columns, n_rows))
        values, holes = result.values, join_masks(result.null, result.bad)
        if result.is_text:
            texts: list[Any] = (values if holes is None else np.where(holes, None, values)).tolist()  # type: ignore[call-overload]
            return texts
        if holes is None or not holes.any():
            return values
        return values & ~holes if values.dtype == np.bool_ else np.where(holes, np.nan, values)

    def evaluate(self, frame: Frame) -> Vector:
        """Return the value of every row, and which rows are null or have no finite result.

        Raises
        ------
        KeyError, TypeError
            As calling it.
        """
        with np.errstate(all="ignore"):  # whatever is not finite is marked
            return self._run(frame).spread(frame.n_rows)


def compile_expression(text: str, path: str, kinds: Mapping[str, Kind] | None = None) -> Expression:
    """Return an expression ready to run.

    Parameters
    ----------
    text : str
        The expression.
    path : str
        Where it stands in the pipeline, for errors.
    kinds : mapping of str to Kind, optional
        The names that it may read, with what is known of them; any name, if not given.

    Raises
    ------
    ConfigError
        It is no expression, has something in it that is not allowed, reads an unknown name, mixes numbers and text, or
        is a calculation with constants that has no finite result.

    Examples
    --------
    >>> compile_expression("distance / air_time * 60", "speed").names == {"distance", "air_time"}
    True
    >>> compile_expression("distnce > 5", "keep", {"distance": "number"})
    Traceback (most recent call last):
    modelstream.models.errors.ConfigError: keep: there is no 'distnce'; did you mean 'distance'? (character 1 of
    'distnce > 5')
    """
    node = parse_expression(text, path)
    compiler = Compiler(text, path, kinds)
    part = compiler.compile(node)
    return Expression(text, frozenset(compiler.names), part.kind, part.run)

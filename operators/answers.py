"""What the models of a stage answer, by field, and for which rows: between one model and the next, and in the cache."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelstream.models.contract import NUMPY_DTYPES, Column, FieldSpec
from modelstream.operators.columns import select_rows
from modelstream.operators.fields import ColumnSpec

__all__ = [
    "ASKED",
    "STEP",
    "Answer",
    "Fields",
    "Mask",
    "OutputSchema",
    "both",
    "either",
    "find_answer",
    "no_rows",
    "scatter",
    "selected",
]

#: Output fields by name.
Fields = Mapping[str, Column]
#: Of some rows; None for all of them.
Mask = NDArray[np.bool_] | None

#: Keys that stand beside the output fields of one answer, so that a cache keeps them with it; no field has such a name.
#: Whether a model was asked about the row: 1, or 0, or NaN where it was left alone. NaN is what no cache keeps.
ASKED = "\0asked"
#: Which step of a cascade the row's answer comes from.
STEP = "\0step"


@dataclass(frozen=True, slots=True)
class OutputSchema:
    """What is known of an answer before there is one.

    Parameters
    ----------
    fields : mapping of str to Column or None
        A column of no rows for each output field; None where only data can tell how the field looks.
    partial : bool
        Whether some rows may have no answer.
    """

    fields: Mapping[str, Column | None]
    partial: bool = False


@dataclass(slots=True)
class Answer:
    """The answers of one model, ensemble or cascade to a batch.

    Parameters
    ----------
    fields : mapping of str to Column, n_rows entries each
        Output fields; fillers where there is no answer.
    answered : ndarray of bool, shape (n_rows,), optional
        Rows with an answer; None for all.
    refused : ndarray of bool, shape (n_rows,), optional
        Rows that a model should have seen that is left alone for now.
    step : ndarray of int8, shape (n_rows,), optional
        Of a cascade: which step each row's answer comes from.
    """

    fields: Fields
    answered: Mask = None
    refused: Mask = None
    step: NDArray[np.int8] | None = None

    def flat(self, n_rows: int, partial: bool) -> Fields:
        """Return it all as columns; with `ASKED` if it may be partial."""
        flat = dict(self.fields)
        if partial:
            asked = np.ones(n_rows, np.float32) if self.answered is None else self.answered.astype(np.float32)
            if self.refused is not None:
                asked[self.refused] = np.nan
            flat[ASKED] = asked
        if self.step is not None:
            flat[STEP] = self.step
        return flat


def both(*masks: Mask) -> Mask:
    """Return the rows that are in all of the masks."""
    given = [mask for mask in masks if mask is not None]
    return np.logical_and.reduce(given) if given else None


def either(masks: Sequence[Mask]) -> Mask:
    """Return the rows that are in one of the masks at least; there is one mask at least."""
    given = [mask for mask in masks if mask is not None]
    return np.logical_or.reduce(given) if len(given) == len(masks) else None


def scatter(column: Column, rows: NDArray[np.intp], n_rows: int) -> Column:
    """Return a column of the whole batch with the values at the rows that they belong to, zero or "" elsewhere."""
    if isinstance(column, np.ndarray):
        whole = np.zeros((n_rows, *column.shape[1:]), column.dtype)
        if column.dtype == object:
            whole.fill("")
        whole[rows] = column
        return whole
    cells: NDArray[Any] = np.full(n_rows, "", object)
    cells[rows] = np.fromiter(column, object, len(column))
    texts: list[Any] = cells.tolist()
    return texts


def find_answer(source: str, names: Iterable[str]) -> tuple[str, str] | None:
    """Return the answer and the field of it that a text names, or None if it names a field of the events.

    Parameters
    ----------
    source : str
        ``ANSWER.FIELD``, or the path of a field.
    names : iterable of str
        Known answers.

    Examples
    --------
    >>> find_answer("delay.v2.value", ["delay", "delay.v2"]), find_answer("plane.year", ["delay"])
    (('delay.v2', 'value'), None)
    """
    name = max((name for name in names if source.startswith(f"{name}.")), key=len, default=None)
    return None if name is None else (name, source[len(name) + 1 :])


def no_rows(field: FieldSpec | ColumnSpec) -> Column:
    """Return a column of no rows, as a model reads the field; of rows of any width, any will do."""
    if field.dtype == "string" and field.width is None:
        return []
    return np.empty((0,) if field.width is None else (0, max(field.width, 1)), NUMPY_DTYPES[field.dtype])


def selected(fields: Fields, rows: NDArray[np.intp]) -> dict[str, Column]:
    """Return some rows of all fields."""
    return {name: select_rows(column, rows) for name, column in fields.items()}

"""Extract: columns from the events, as declared or by a user's function."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from modelstream.models.errors import ConfigError, OperatorError
from modelstream.operators.batch import Column, EventBatch
from modelstream.operators.fields import ColumnSpec, read_columns

__all__ = ["Extract", "ExtractFunction", "checked_column"]

#: A user's function: columns by name, each with one entry per event.
ExtractFunction = Callable[[EventBatch], Mapping[str, Column]]


@dataclass(frozen=True)
class Extract:
    """Adds columns to a batch.

    Parameters
    ----------
    step_id : str
        Name of the stage.
    columns : sequence of ColumnSpec
        Columns to read from the events; or
    function : callable
        Computes columns from a whole batch: numbers as arrays whose first axis is the rows, text as lists or arrays.
        Where it raises, the rows that make it raise are rejected.

    Examples
    --------
    >>> extract = Extract("features", function=lambda batch: {"double": np.array([e["x"] * 2 for e in batch.events])})
    >>> extract(EventBatch.of_events([{"x": 1}, {"x": 2}])).columns["double"]
    array([2, 4])
    """

    step_id: str
    columns: Sequence[ColumnSpec] = ()
    function: ExtractFunction | None = None

    def __post_init__(self) -> None:
        if bool(self.columns) == (self.function is not None):
            raise ConfigError(self.step_id, "extract needs columns or a function, and not both")
        names = [spec.name for spec in self.columns]
        if len(set(names)) < len(names):
            raise ConfigError(self.step_id, f"a column is declared twice: {', '.join(names)}")

    def __call__(self, batch: EventBatch) -> EventBatch:
        """Add the columns."""
        if self.function is None:
            read_columns(batch, self.columns, self.step_id)
            return batch
        columns = self.function(batch)
        if not isinstance(columns, Mapping):
            raise OperatorError(self.step_id, f"the function returned {_name(columns)}, not columns by name")
        for name, column in columns.items():
            batch.columns[name] = checked_column(self.step_id, name, column, len(batch))
        return batch


def checked_column(step_id: str, name: Any, column: Any, n_rows: int) -> Column:
    """Return a column that a user's function made, once it is sure that it is one.

    Parameters
    ----------
    step_id : str
        Name of the stage.
    name, column : object
        What the function calls it, and what it made.
    n_rows : int
        How many rows it must have.

    Raises
    ------
    OperatorError
        The name is no text, or the column is neither numbers nor text, or has other rows.
    """
    if not isinstance(name, str):
        raise OperatorError(step_id, f"a column's name is {name!r}, not text")
    if isinstance(column, np.ndarray) and column.ndim == 1 and column.dtype.kind in "UO":
        column = column.tolist()
    if not isinstance(column, np.ndarray | list):
        raise OperatorError(step_id, f"column {name!r} is {_name(column)}, neither an array nor a list")
    n_found = len(column) if isinstance(column, list) or column.ndim else 0
    if n_found != n_rows:
        raise OperatorError(step_id, f"column {name!r} has {n_found} rows for {n_rows} events")
    if isinstance(column, list):
        return _checked_list(step_id, name, column)
    if column.dtype.kind not in "biufMO":
        raise OperatorError(step_id, f"column {name!r} is an array of {column.dtype}")
    return column


def _checked_list(step_id: str, name: str, column: list[Any]) -> list[Any]:
    try:
        "".join(column)  # Raises where one is not text; the cheapest check there is.
    except TypeError:
        kinds = " and ".join(sorted({_name(value) for value in column}))
        raise OperatorError(
            step_id, f"column {name!r} is a list of {kinds}; lists are for text, numbers are arrays"
        ) from None
    return column


def _name(value: object) -> str:
    return type(value).__name__

"""Extract: columns from the events, as declared or by a user's function."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from modelstream.models.errors import ConfigError, OperatorError
from modelstream.operators.batch import Column, EventBatch
from modelstream.operators.fields import ColumnSpec, read_columns
from modelstream.operators.user_functions import call_user_function, checked_column

__all__ = ["Extract", "ExtractFunction"]

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
    >>> import numpy as np
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
        changed, columns = call_user_function(self.step_id, self.function, batch)
        if not isinstance(columns, Mapping):
            found = type(columns).__name__
            raise OperatorError(self.step_id, f"the function returned {found}, not columns by name")
        for name, column in columns.items():
            changed.columns[name] = checked_column(self.step_id, name, column, len(batch))
        return changed

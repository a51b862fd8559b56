"""What a model said about the rows of a batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelstream.models.contract import Column
from modelstream.operators.columns import Rows, concat_columns, select_rows

__all__ = ["ModelOutput"]


@dataclass(frozen=True, slots=True)
class ModelOutput:
    """What one model said about every row.

    Parameters
    ----------
    version : str, or list of str, n_rows entries
        The model version that answered, to each row where they differ.
    fields : mapping of str to Column
        Output fields in the order of the model's contract, such as ``value``, or ``label`` and ``score``.
    answered : ndarray of bool, shape (n_rows,), optional
        Which rows it was asked about, in a cascade say; the fields hold fillers for the others. None for all.
    """

    version: str | list[str]
    fields: Mapping[str, Column]
    answered: NDArray[np.bool_] | None = None

    def select(self, rows: Rows) -> ModelOutput:
        """Return the answers for some rows."""
        fields = {name: select_rows(column, rows) for name, column in self.fields.items()}
        version = self.version if isinstance(self.version, str) else select_rows(self.version, rows)
        return ModelOutput(version, fields, None if self.answered is None else self.answered[rows])

    def copy(self) -> ModelOutput:
        """Return the same answers, to be changed."""
        version = self.version if isinstance(self.version, str) else self.version.copy()
        fields = {name: column.copy() for name, column in self.fields.items()}
        return ModelOutput(version, fields, None if self.answered is None else self.answered.copy())

    @classmethod
    def concat(cls, parts: Sequence[ModelOutput]) -> ModelOutput:
        """Return the answers for batches put one after the other; they have the same fields."""
        first = parts[0]
        fields = {name: concat_columns([part.fields[name] for part in parts]) for name in first.fields}
        version: Any = first.version
        if not isinstance(version, str):
            version = concat_columns([part.version for part in parts])  # type: ignore[misc]
        if all(part.answered is None for part in parts):
            return cls(version, fields)
        return cls(version, fields, np.concatenate([part._answered_mask() for part in parts]))

    def _answered_mask(self) -> NDArray[np.bool_]:
        if self.answered is not None:
            return self.answered
        return np.ones(len(next(iter(self.fields.values()))), np.bool_)

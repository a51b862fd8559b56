"""The columns that expressions read, each made ready to calculate with once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from modelstream.operators.batch import Column
from modelstream.operators.vectors import Vector, load

__all__ = ["Frame"]


class Frame(Mapping[str, Vector]):
    """The columns that expressions read: each is made ready once, however many expressions read it.

    Parameters
    ----------
    columns : mapping of str to Column
        Numbers as arrays of shape (n_rows,), text as lists. NaN and None are null.
    n_rows : int
        Rows of the columns.
    nulls : mapping of str to ndarray of bool, shape (n_rows,), optional
        For columns that need it, which rows have no value.
    """

    def __init__(
        self,
        columns: Mapping[str, Column],
        n_rows: int,
        nulls: Mapping[str, NDArray[np.bool_]] | None = None,
    ) -> None:
        self.n_rows = n_rows
        self._columns = columns
        self._nulls = nulls or {}
        self._vectors: dict[str, Vector] = {}

    def __getitem__(self, name: str) -> Vector:
        if name not in self._vectors:
            self._vectors[name] = load(name, self._columns[name], self._nulls.get(name))
        return self._vectors[name]

    def __iter__(self) -> Iterator[str]:
        return iter({**self._columns, **self._vectors})

    def __len__(self) -> int:
        return len({**self._columns, **self._vectors})

    def put(self, name: str, vector: Vector) -> None:
        """Set what further expressions read under a name."""
        self._vectors[name] = vector

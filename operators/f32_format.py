"""Records that hold one raw vector each: float32 numbers, little-endian, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelstream.operators.batch import Column, Fault
from modelstream.operators.codecs import SOURCE, Faults
from modelstream.operators.paths import show

__all__ = ["VectorFormat"]

_FLOAT32 = np.dtype("<f4")


@dataclass(frozen=True, slots=True)
class VectorFormat:
    """One raw vector a record; a batch of them is one column, made at once.

    A value of another length is ``undecodable``, NaN or infinity ``non_finite``. Events are ``{}``, a dict of its own
    each, since a user's function may write into one.

    Parameters
    ----------
    width : int
        How many numbers.
    field : str
        The column that they become.

    Examples
    --------
    >>> faults = {}
    >>> one = np.array([1, 2.5], "<f4").tobytes()
    >>> events, columns = VectorFormat(2, "x").read([one, one[:-1]], faults)
    >>> columns["x"], faults[1].detail
    (array([[1. , 2.5],
           [0. , 0. ]], dtype=float32), '7 bytes, not 8: 2 float32')
    """

    width: int
    field: str

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"a vector of {self.width} float32"

    @property
    def blank(self) -> bytes:
        """A vector of zeros."""
        return bytes(4 * self.width)

    def read(self, values: Sequence[bytes], faults: Faults) -> tuple[list[dict[str, Any]], dict[str, Column]]:
        """Return empty events, and the column, with zeros where a value is bad."""
        n_rows = len(values)
        joined = self._joined(values, faults)
        column = np.frombuffer(joined, _FLOAT32).reshape(n_rows, self.width).astype(np.float32, copy=False)
        finite = np.isfinite(column)
        if not finite.all():
            for row in np.flatnonzero(~finite.all(axis=1)).tolist():
                at = int(np.argmin(finite[row]))
                detail = f"number {at} of {self.width} is {column[row, at]}"
                faults.setdefault(row, Fault(SOURCE, "non_finite", detail))
                column[row] = 0
        return [{} for _ in range(n_rows)], {self.field: column}

    def _joined(self, values: Sequence[bytes], faults: Faults) -> bytearray:
        """Return the bytes of all vectors, zeros for those of another length."""
        n_bytes = 4 * self.width
        lengths = set(map(len, values))
        if lengths - {n_bytes}:
            values = list(values)
            for row, value in enumerate(values):
                if len(value) != n_bytes:
                    detail = f"{len(value)} bytes, not {n_bytes}: {self.width} float32"
                    faults.setdefault(row, Fault(SOURCE, "undecodable", detail))
                    values[row] = self.blank
        # Not bytes: a stage may change a column in place.
        return bytearray().join(values)

    def write(self, event: Mapping[str, Any]) -> bytes:
        """Return the vector in an event: the numbers of its field, or else of all its fields, in their order."""
        if self.field in event:
            numbers, found = event[self.field], f"field {self.field!r}"
        else:
            numbers, found = list(event.values()), f"there is no field {self.field!r}, and the event"
        vector = self._vector(numbers, found)
        if vector.shape != (self.width,):
            shape = " x ".join(map(str, vector.shape)) or "no"
            raise ValueError(f"{found} has {shape} values, not {self.width}")
        if not np.isfinite(vector).all():
            raise ValueError(f"{found} has a number that is not finite in float32")
        return vector.tobytes()

    @staticmethod
    def _vector(numbers: Any, found: str) -> NDArray[np.float32]:
        try:
            vector = np.asarray(numbers)
        except ValueError:  # a ragged list
            raise ValueError(f"{found} is no list of numbers") from None
        if vector.dtype.kind not in "biuf" and vector.size:
            raise ValueError(f"{found} has values that are no numbers: {show(numbers)}")
        with np.errstate(over="ignore"):
            return vector.astype(_FLOAT32)

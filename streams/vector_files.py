"""Vectors of a file as records to produce: rows of a numpy array, or raw float32 numbers one after the other."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from modelstream.models.errors import DecodeError
from modelstream.operators.f32_format import VectorFormat
from modelstream.streams.event_files import EventFile, Record

__all__ = ["VectorFile"]

#: One read, so that what is done once a read costs nothing.
_READ_BYTES = 1024 * 1024

_FLOAT32 = np.dtype("<f4")


class VectorFile(EventFile):
    """A vector a row: an array in numpy's own format, or nothing but float32 numbers, little-endian.

    Parameters
    ----------
    path : Path or None
        The file; None is standard input.
    form : VectorFormat
        What records are to hold. Rows of an array may have more axes; its numbers may be of any type, and are cast.
    has_header : bool
        Whether it is numpy's format.
    """

    def __init__(self, path: Path | None, form: VectorFormat, *, has_header: bool) -> None:
        super().__init__(path, None, form)
        self._width = form.width
        self._has_header = has_header

    def records(self) -> Iterator[Record]:
        """Yield each vector, without a key."""
        with self._open() as stream:
            dtype = self._read_header(stream) if self._has_header else _FLOAT32
            n_row, n_bytes = 0, dtype.itemsize * self._width
            while block := stream.read(max(_READ_BYTES // n_bytes, 1) * n_bytes):
                n_rows, rest = divmod(len(block), n_bytes)
                rows = np.frombuffer(block, dtype, n_rows * self._width).reshape(n_rows, self._width)
                with np.errstate(over="ignore"):
                    rows = rows.astype(_FLOAT32, copy=False)
                finite = np.isfinite(rows).all(axis=1)
                n_sound = n_rows if finite.all() else int(np.argmin(finite))
                for row in rows[:n_sound]:
                    yield None, row.tobytes()
                n_row += n_sound
                if n_sound < n_rows:
                    raise DecodeError(f"{self.name}: row {n_row} has a number that is not finite in float32")
                if rest:
                    raise DecodeError(f"{self.name}: ends within row {n_row}, which has {rest} of {n_bytes} bytes")

    def _read_header(self, stream: BinaryIO) -> np.dtype[Any]:
        try:
            version = np.lib.format.read_magic(stream)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, by_columns, dtype = read(stream)
        except Exception as error:  # numpy takes the header for a literal of Python, and passes on what that raises
            raise DecodeError(f"{self.name}: no array of numpy: {type(error).__name__}") from None
        if dtype.kind not in "biuf":
            raise DecodeError(f"{self.name}: an array of {dtype}; vectors are of numbers")
        if by_columns:
            raise DecodeError(f"{self.name}: stands by columns; save np.ascontiguousarray(…) instead")
        if len(shape) < 2 or prod(shape[1:]) != self._width:
            raise DecodeError(f"{self.name}: an array of shape {shape}, not (rows, {self._width})")
        return dtype

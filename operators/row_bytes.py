"""Rows of columns as bytes, one string of bytes a row, and back: exact, unambiguous, and column by column."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import prod
from operator import add
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from modelstream.operators.batch import Column

__all__ = ["RowLayout"]

_TEXT = "text"
#: Before the dtype of a column whose rows are arrays, each of its own length; such a column can be packed only.
_RAGGED = "ragged "
_LENGTH = np.dtype("<u4")


@dataclass(frozen=True, slots=True)
class RowLayout:
    r"""How the columns of some batches look; rows of one layout differ if and only if their bytes do.

    A row is, one after the other: the bytes of each number; for each text its length in characters, for each array
    of any length its own; all texts as UTF-8; the bytes of those arrays.

    Parameters
    ----------
    columns : tuple of (str, tuple of int)
        For each column its dtype, as numpy writes it, ``text``, or ``ragged`` with a dtype; and how many values are in
        a row, axis by axis.

    Examples
    --------
    >>> columns = [np.array([1, 2], np.int16), ["a", "bc"]]
    >>> layout = RowLayout.of(columns)
    >>> layout.pack(columns, 2)
    [b'\x01\x00\x01\x00\x00\x00a', b'\x02\x00\x02\x00\x00\x00bc']
    >>> layout.unpack(layout.pack(columns, 2))
    [array([1, 2], dtype=int16), ['a', 'bc']]
    """

    columns: tuple[tuple[str, tuple[int, ...]], ...]

    @classmethod
    def of(cls, columns: Sequence[Column]) -> RowLayout:
        """Return the layout of columns."""
        return cls(
            tuple(
                (_TEXT if column.dtype == object else column.dtype.str, column.shape[1:])
                if isinstance(column, np.ndarray)
                else (_kind_of_list(column), ())
                for column in columns
            )
        )

    @property
    def n_fixed_bytes(self) -> int:
        """Bytes of a row before its texts."""
        return sum(self._width(dtype, shape) for dtype, shape in self.columns)

    @property
    def has_text(self) -> bool:
        """Whether a row may be longer than that."""
        return any(_varies(dtype) for dtype, _ in self.columns)

    @staticmethod
    def _width(dtype: str, shape: tuple[int, ...]) -> int:
        return (_LENGTH if _varies(dtype) else np.dtype(dtype)).itemsize * prod(shape)

    def pack(self, columns: Sequence[Column], n_rows: int, prefix: bytes = b"") -> list[bytes]:
        """Return the bytes of every row, each with the prefix in front.

        Raises
        ------
        TypeError
            If what should be text is not.
        """
        parts = [np.broadcast_to(np.frombuffer(prefix, np.uint8), (n_rows, len(prefix)))]
        texts: list[list[str]] = []
        lists: list[list[bytes]] = []
        for (dtype, shape), column in zip(self.columns, columns, strict=True):
            if dtype.startswith(_RAGGED):
                lists.append(_each_as_bytes(column))
                parts.append(_bytes_of(np.fromiter(map(len, column), _LENGTH, n_rows), n_rows, 1))
                continue
            if dtype != _TEXT:
                parts.append(_bytes_of(np.asarray(column), n_rows, prod(shape)))
                continue
            for cells in _text_columns(column, n_rows):
                texts.append(cells)
                parts.append(_bytes_of(np.fromiter(map(len, cells), _LENGTH, n_rows), n_rows, 1))
        fixed = _rows_of(np.concatenate(parts, axis=1))
        if texts:
            joined = map("".join, zip(*texts, strict=True))
            fixed = list(map(add, fixed, [text.encode("utf-8", "surrogatepass") for text in joined]))
        return list(map(b"".join, zip(fixed, *lists, strict=True))) if lists else fixed

    def unpack(self, rows: Sequence[bytes]) -> list[Column]:
        """Return the columns of rows that `pack` made in this layout.

        Raises
        ------
        ValueError
            If it did not.
        """
        n_rows, n_fixed = len(rows), self.n_fixed_bytes
        texts = [row[n_fixed:].decode("utf-8", "surrogatepass") for row in rows] if self.has_text else []
        fixed = bytearray().join([row[:n_fixed] for row in rows] if self.has_text else rows)
        matrix = np.frombuffer(fixed, np.uint8).reshape(n_rows, n_fixed)
        starts = [0] * n_rows
        columns: list[Column] = []
        left = 0
        for dtype, shape in self.columns:
            right = left + self._width(dtype, shape)
            part = np.ascontiguousarray(matrix[:, left:right])
            left = right
            if dtype != _TEXT:
                columns.append(part.view(dtype).reshape(n_rows, *shape))
                continue
            cells = []
            for lengths in part.view(_LENGTH).T.tolist():
                ends = list(map(add, starts, lengths))
                cells.append([text[start:end] for text, start, end in zip(texts, starts, ends, strict=True)])
                starts = ends
            columns.append(np.array(cells, object).T.reshape(n_rows, *shape) if shape else cells[0])
        return columns


def _varies(dtype: str) -> bool:
    return dtype == _TEXT or dtype.startswith(_RAGGED)


def _each_as_bytes(column: Iterable[Any]) -> list[bytes]:
    """Return rows of numbers, or of texts, as bytes that differ where the rows do."""
    return [orjson.dumps(row.tolist()) if row.dtype == object else row.tobytes() for row in column]


def _kind_of_list(column: list[Any]) -> str:
    if column and isinstance(column[0], np.ndarray):
        return f"{_RAGGED}{column[0].dtype.str}"
    return _TEXT


def _bytes_of(column: NDArray[Any], n_rows: int, n_values: int) -> NDArray[np.uint8]:
    return np.ascontiguousarray(column).reshape(n_rows, n_values).view(np.uint8)


def _rows_of(matrix: NDArray[np.uint8]) -> list[bytes]:
    n_rows, n_bytes = matrix.shape
    # numpy has no void of no bytes, and makes a matrix in another order where a part has none.
    return np.ascontiguousarray(matrix).view(f"V{n_bytes}").ravel().tolist() if n_bytes else [b""] * n_rows


def _text_columns(column: Column, n_rows: int) -> list[list[str]]:
    if isinstance(column, list):
        return [column]
    cells: list[list[str]] = column.reshape(n_rows, -1).T.tolist() if column.size else []
    return cells

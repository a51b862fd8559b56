"""Values into one typed column: all rows at once, or an error where one of them is something else."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from itertools import accumulate, chain, pairwise, starmap
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelstream.models.contract import ANY_WIDTH, Column, DType

__all__ = ["filler", "numbers_of", "pack", "unsound_rows"]

#: How `struct` packs a value. It takes numbers and truth values only, which makes it the check as well as the cast,
#: and is twice as fast as `numpy.array`, which would take text too. Truth values are packed as small integers, since
#: struct's own "?" takes anything.
_CODES = {"float32": "f", "float64": "d", "int32": "i", "int64": "q", "bool": "B"}


def pack(values: list[Any], dtype: DType, width: int | None) -> Column:
    """Return values as a column.

    Parameters
    ----------
    values : list
        One value a row; for a vector a list of values, or the bytes of its numbers, little-endian.
    dtype : DType
        Type of the column; truth values come out as uint8.
    width : int or None
        Values in each row; `ANY_WIDTH` for a list of arrays, each of its own length and none of them empty.

    Raises
    ------
    TypeError, ValueError, OverflowError, struct.error
        A value is of another type or width.

    Examples
    --------
    >>> pack([[1, 2], [3, 4]], "float32", 2)
    array([[1., 2.],
           [3., 4.]], dtype=float32)
    >>> pack([[1, 2], [3]], "int64", ANY_WIDTH)
    [array([1, 2]), array([3])]
    """
    if dtype == "string":
        return _pack_text(values, width)
    if width is None:
        return np.ndarray(len(values), _held(dtype), bytearray(struct.pack(f"{len(values)}{_CODES[dtype]}", *values)))
    kinds = set(map(type, values))
    if kinds == {bytes}:
        flat, lengths = _join(values, _held(dtype))
    elif kinds - {list}:  # text and bytes would be packed by their characters
        raise TypeError("a vector is no list")
    elif width == ANY_WIDTH:
        lengths = list(map(len, values))
        flat = bytearray(struct.pack(f"{sum(lengths)}{_CODES[dtype]}", *chain.from_iterable(values)))
    else:
        flat, lengths = bytearray().join(starmap(struct.Struct(f"{width}{_CODES[dtype]}").pack, values)), []
    numbers: NDArray[Any] = np.frombuffer(flat, _held(dtype))
    if width == ANY_WIDTH:
        return _split(numbers, lengths)
    if set(lengths) - {width}:
        raise ValueError("a vector has another width")
    return numbers.reshape(len(values), width)


def _held(dtype: DType) -> np.dtype[Any]:
    return np.dtype("uint8" if dtype == "bool" else dtype)


def _join(values: list[bytes], held: np.dtype[Any]) -> tuple[bytearray, list[int]]:
    """Return the bytes of all vectors, and how many numbers each has."""
    n_bytes = list(map(len, values))
    if any(n % held.itemsize for n in set(n_bytes)):
        raise ValueError("bytes that are no whole numbers")
    # Not bytes: a stage may change a column in place.
    return bytearray().join(values), [n // held.itemsize for n in n_bytes]


def _split(flat: NDArray[Any], lengths: list[int]) -> list[Any]:
    # No model can be asked about no values: an axis of length 0 has no mean, no largest value, no last element.
    if 0 in lengths:
        raise ValueError("a vector is empty")
    return [flat[start:end] for start, end in pairwise(accumulate(lengths, initial=0))]


def _pack_text(values: list[Any], width: int | None) -> Column:
    # Joining raises where one is not text, and is the cheapest check there is.
    if width is None:
        "".join(values)
        return values
    "".join(chain.from_iterable(values))
    lengths = list(map(len, values))
    if set(map(type, values)) - {list}:
        raise TypeError("a vector is no list")
    if width == ANY_WIDTH:
        return _split(np.array(list(chain.from_iterable(values)), object), lengths)
    if set(lengths) - {width}:
        raise ValueError("a vector has another width")
    return np.array(values, object).reshape(len(values), width)


def numbers_of(value: bytes, dtype: DType) -> list[Any] | bytes:
    """Return the numbers that bytes hold, little-endian; the bytes themselves where they hold none."""
    if dtype == "string" or len(value) % _held(dtype).itemsize:
        return value
    numbers: list[Any] = np.frombuffer(value, _held(dtype)).tolist()
    return numbers


def filler(dtype: DType, width: int | None) -> Any:
    """Return what stands for a value that does not fit: zero or the empty string, or a list of them."""
    one: Any = "" if dtype == "string" else 0
    return one if width is None else [one] * (1 if width == ANY_WIDTH else width)


def unsound_rows(column: Column, dtype: DType) -> list[int]:
    """Return the rows with numbers that could be packed, but are none of the dtype: not finite, or no truth value.

    Examples
    --------
    >>> unsound_rows(pack([1.0, float("nan")], "float32", None), "float32")
    [1]
    """
    if dtype not in ("float32", "float64", "bool"):
        return []
    ragged = isinstance(column, list)
    sound = _sound(np.concatenate(column) if ragged and column else np.asarray(column), dtype)
    if sound.all():
        return []
    if ragged:
        return [row for row, numbers in enumerate(column) if not _sound(numbers, dtype).all()]
    rows: list[int] = np.flatnonzero(~(sound if sound.ndim == 1 else sound.all(axis=1))).tolist()
    return rows


def _sound(numbers: Sequence[Any] | NDArray[Any], dtype: DType) -> NDArray[np.bool_]:
    sound: NDArray[np.bool_] = np.less_equal(numbers, 1) if dtype == "bool" else np.isfinite(numbers)
    return sound

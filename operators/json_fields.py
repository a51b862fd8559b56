"""Some fields of many JSON records, without a Python object for each number: simdjson gives a vector as a buffer.

orjson makes 20 objects of a vector of 20 numbers, which are packed into a matrix and thrown away: 1.6 µs a record
where this takes 1.1 (measured; a record of 200 bytes, batches of 1,024). A record has one meaning whichever reads it:
what is unusual in any way is left to orjson.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import numpy as np
import simdjson
from numpy.typing import NDArray

from modelstream.models.contract import Column
from modelstream.operators.separated import as_list

__all__ = ["JsonFields", "VectorField"]

# After a batch that was left to orjson so many are not tried, and twice as many after the next, up to a limit: where
# every batch holds something unusual, trying costs for nothing.
_MOST_SKIPPED = 256

_OPENING = ord("[")

# Records are read in parts of about so many bytes, so that what is read twice is still in the cache. In one part, 1,024
# records of 8 kB take 1.4 times as long (measured).
_PART_BYTES = 262_144

# How much a buffer of simdjson holds. A memoryview of each would say it too, for 100 ns instead of 30.
_N_BYTES = attrgetter("size")

# What a field that is no vector may hold.
_SCALARS = frozenset({str, int, float, bool, type(None)})


@dataclass(frozen=True, slots=True)
class VectorField:
    """How a field holds a vector.

    Parameters
    ----------
    width : int
        How many numbers it has.
    separator : str, optional
        What stands between them, where the field is text; without one it is a list.
    """

    width: int
    separator: str | None = None


class JsonFields:
    """Reads fields of the outermost object of records.

    Parameters
    ----------
    names : sequence of str
        Fields to read as what they hold.
    vectors : mapping of str to VectorField
        Fields to read as vectors.

    Examples
    --------
    >>> fields = JsonFields(["id"], {"x": VectorField(2), "y": VectorField(2, separator=";")})
    >>> fields.read([b'{"id": "a", "x": [1, 2.5], "y": "3;4"}'])
    {'id': ['a'], 'x': array([[1. , 2.5]]), 'y': array([[3., 4.]])}
    >>> fields.read([b'{"id": "a", "x": [1, "2.5"], "y": "3;4"}'])
    """

    def __init__(self, names: Sequence[str], vectors: Mapping[str, VectorField]) -> None:
        # Each once: an event's id may be a column as well.
        self._names = [name for name in dict.fromkeys(names) if name not in vectors]
        self._vectors = vectors
        self._quoted = [b'"%s"' % name.encode() for name in (*self._names, *vectors)]
        self._n_lists = sum(vector.separator is None for vector in vectors.values())
        self._is_id_and_list = len(self._names) == len(vectors) == self._n_lists == 1
        self._start_over()
        self._n_skipped = self._n_to_skip = 0

    def _start_over(self) -> None:
        self._parser = simdjson.Parser()
        # Of the texts of a record, which is a document that is still in use.
        self._text_parser = simdjson.Parser()

    def read(self, values: Sequence[bytes]) -> dict[str, Column] | None:
        """Return the fields of all records; None where one of them is not sound, or might be read otherwise.

        A vector comes as float64 of shape (n_rows, width).
        """
        if self._n_skipped < self._n_to_skip:
            self._n_skipped += 1
            return None
        fields = self._read(values)
        self._n_skipped = 0
        self._n_to_skip = 0 if fields is not None else min(_MOST_SKIPPED, 2 * self._n_to_skip + 1)
        return fields

    def _read(self, values: Sequence[bytes]) -> dict[str, Column] | None:
        n_rows = len(values)
        scalars: dict[str, list[Any]] = {name: [] for name in self._names}
        matrices = {name: np.empty((n_rows, vector.width)) for name, vector in self._vectors.items()}
        step = max(1, _PART_BYTES // (1 + max(map(len, values), default=0)))
        for start in range(0, n_rows, step):
            part = values[start : start + step]
            try:
                found, n_fields = self._parse(part)
            except (ValueError, TypeError, LookupError, AttributeError, RuntimeError):
                # simdjson's own errors, and those of values that are something else. What was found may still hold a
                # part of a document, and its parser would refuse the next one.
                self._start_over()
                return None
            if self._is_ambiguous(b"\n".join(part), len(part), n_fields):
                return None
            for name in self._names:
                scalars[name] += found[name]
            for name, matrix in matrices.items():
                if not _fill(matrix[start : start + step], found[name]):
                    return None
        return {**scalars, **matrices}

    def _parse(self, values: Sequence[bytes]) -> tuple[dict[str, list[Any]], set[int]]:
        """Return what was found by name, and how many fields there are in a record."""
        found, n_fields = self._parse_id_and_list(values) if self._is_id_and_list else self._parse_any(values)
        if not all(_SCALARS.issuperset(map(type, found[name])) for name in self._names):
            raise TypeError("a field is no scalar")
        return found, n_fields

    def _parse_id_and_list(self, values: Sequence[bytes]) -> tuple[dict[str, list[Any]], set[int]]:
        # As the other one does, for what most streams of vectors are; loops over one field each take a fifth more.
        [name], [vector] = self._names, self._vectors
        scalars: list[Any] = []
        buffers: list[Any] = []
        n_fields: set[int] = set()
        parse, count, keep, keep_buffer = self._parser.parse, n_fields.add, scalars.append, buffers.append
        for value in values:
            record: Any = parse(value)
            count(len(record))
            keep(record[name])
            keep_buffer(record[vector].as_buffer(of_type="d"))
            del record  # or the parser would refuse the next
        return {name: scalars, vector: buffers}, n_fields

    def _parse_any(self, values: Sequence[bytes]) -> tuple[dict[str, list[Any]], set[int]]:
        found: dict[str, list[Any]] = {name: [] for name in (*self._names, *self._vectors)}
        scalars = [(name, found[name].append) for name in self._names]
        given = self._vectors.items()
        lists = [(name, found[name].append) for name, vector in given if vector.separator is None]
        texts = [(name, found[name].append, vector.separator) for name, vector in given if vector.separator is not None]
        parse = self._parser.parse
        n_fields = set()
        # Record by record: the parser holds one document, and with a parser for each of many they leave the cache.
        for value in values:
            record: Any = parse(value)
            n_fields.add(len(record))
            for name, keep in scalars:
                keep(record[name])
            for name, keep in lists:
                keep(record[name].as_buffer(of_type="d"))
            for name, keep, separator in texts:
                keep(self._numbers(record[name], separator))
            del record
        return found, n_fields

    def _numbers(self, text: str, separator: str) -> Any:
        """Return the numbers of a text as a buffer of float64."""
        listed = as_list(text, separator)
        if "[" in text:  # it would be read as a list in a list, whose numbers simdjson takes for those of the outer one
            raise ValueError("a list in a text")
        numbers: Any = self._text_parser.parse(listed)
        return numbers.as_buffer(of_type="d")

    def _is_ambiguous(self, joined: bytes, n_rows: int, n_fields: set[int]) -> bool:
        """Return whether a record might be something else to orjson, or to `pack`."""
        # A list in a vector: simdjson takes its numbers for the vector's.
        if np.count_nonzero(np.frombuffer(joined, np.uint8) == _OPENING) != n_rows * self._n_lists:
            return True
        # Skipped by simdjson before a record, refused by orjson.
        if b"\xef" in joined and b"\xef\xbb\xbf" in joined:
            return True
        # Of a field that is there twice simdjson finds the first, orjson the last. Without others there is no place for
        # a second one; with others each name must be there once, and be written in one way only.
        if n_fields == {len(self._quoted)}:
            return False
        if b"\\" in joined and b"\\u" in joined:
            return True
        return any(joined.count(name) != n_rows for name in self._quoted)


def _fill(matrix: NDArray[np.float64], buffers: Sequence[Any]) -> bool:
    """Put buffers into the rows of a matrix, and return whether they have its width."""
    if set(map(_N_BYTES, buffers)) - {matrix.itemsize * matrix.shape[1]}:
        return False
    matrix[:] = np.frombuffer(b"".join(buffers)).reshape(matrix.shape)
    return True

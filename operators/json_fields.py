"""Some fields of many JSON records, without a Python object for each number: simdjson gives a vector as a buffer.

orjson makes 20 objects of a vector of 20 numbers, which are packed into a matrix and thrown away: 1.6 µs a record
where this takes 1.1 (measured; a record of 200 bytes, batches of 1,024). A record has one meaning whichever reads it:
what is unusual in any way is left to orjson.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import itemgetter, methodcaller
from typing import Any

import numpy as np
import simdjson
from numpy.typing import NDArray

from modelstream.models.contract import Column

__all__ = ["JsonFields"]

# A parser holds one document at a time, so this many records are gone through together, each step in C. A few fit into
# the cache.
_N_PARSERS = 64

# After a batch that was left to orjson so many are not tried, and twice as many after the next, up to a limit: where
# every batch holds something unusual, trying costs for nothing.
_MOST_SKIPPED = 256

_OPENING, _BACKSLASH, _BYTE_ORDER_MARK = b"[\\\xef"

# What a field that is no vector may hold.
_SCALARS = frozenset({str, int, float, bool, type(None)})

_numbers_of = methodcaller("as_buffer", of_type="d")


class JsonFields:
    """Reads fields of the outermost object of records.

    Parameters
    ----------
    names : sequence of str
        Fields to read as what they hold.
    widths : mapping of str to int
        Fields to read as vectors, and how many numbers each has.

    Examples
    --------
    >>> fields = JsonFields(["id"], {"x": 2})
    >>> fields.read([b'{"id": "a", "x": [1, 2.5]}', b'{"id": "b", "x": [3, 4]}'])
    {'id': ['a', 'b'], 'x': array([[1. , 2.5],
           [3. , 4. ]])}
    >>> fields.read([b'{"id": "a", "x": [1, "2.5"]}'])
    """

    def __init__(self, names: Sequence[str], widths: Mapping[str, int]) -> None:
        self._names = [name for name in names if name not in widths]
        self._widths = widths
        self._quoted = [b'"%s"' % name.encode() for name in (*self._names, *widths)]
        self._parsers = [simdjson.Parser() for _ in range(_N_PARSERS)]
        self._n_skipped = self._n_to_skip = 0

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
        try:
            found, n_fields = self._parse(values)
        except (ValueError, TypeError, LookupError, AttributeError, RuntimeError):
            # simdjson's own errors, and those of values that are something else. What was found may still hold parts of
            # documents, and their parsers would refuse the next.
            self._parsers = [simdjson.Parser() for _ in range(_N_PARSERS)]
            return None
        joined = b"\n".join(values)
        if self._is_ambiguous(joined, len(values), n_fields):
            return None
        columns: dict[str, Column] = {name: found[name] for name in self._names}
        for name, width in self._widths.items():
            if {memoryview(numbers).nbytes for numbers in found[name]} - {8 * width}:
                return None
            columns[name] = np.frombuffer(b"".join(found[name])).reshape(len(values), width)
        return columns

    def _parse(self, values: Sequence[bytes]) -> tuple[dict[str, list[Any]], set[int]]:
        """Return what was found by name, and how many fields there are in a record."""
        found: dict[str, list[Any]] = {name: [] for name in (*self._names, *self._widths)}
        n_fields: set[int] = set()
        for start in range(0, len(values), _N_PARSERS):
            records: list[Any] = list(map(simdjson.Parser.parse, self._parsers, values[start : start + _N_PARSERS]))
            n_fields.update(map(len, records))
            for name in self._names:
                found[name] += map(itemgetter(name), records)
                if not _SCALARS.issuperset(map(type, found[name][start:])):
                    raise TypeError(f"field {name!r} is no scalar")
            for name in self._widths:
                found[name] += map(_numbers_of, map(itemgetter(name), records))
            del records  # or the parsers would refuse the next
        return found, n_fields

    def _is_ambiguous(self, joined: bytes, n_rows: int, n_fields: set[int]) -> bool:
        """Return whether a record might be something else to orjson, or to `pack`."""
        every_byte: NDArray[np.uint8] = np.frombuffer(joined, np.uint8)
        # A list in a vector: simdjson takes its numbers for the vector's.
        if np.count_nonzero(every_byte == _OPENING) != n_rows * len(self._widths):
            return True
        # Skipped by simdjson before a record, refused by orjson.
        if (every_byte == _BYTE_ORDER_MARK).any():
            return True
        # Of a field that is there twice simdjson finds the first, orjson the last. Without others there is no place for
        # a second one; with others each name must be there once, and be written in one way only.
        if n_fields == {len(self._quoted)}:
            return False
        if (every_byte == _BACKSLASH).any() and b"\\u" in joined:
            return True
        return any(joined.count(name) != n_rows for name in self._quoted)

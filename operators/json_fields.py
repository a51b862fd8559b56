"""Some fields of many JSON records, without a Python object for each number: simdjson gives a vector as a buffer.

orjson makes 20 objects of a vector of 20 numbers, which are packed into a matrix and thrown away: 1.6 µs a record
where this takes 1.1 (measured; a record of 200 bytes, batches of 1,024). A record has one meaning whichever reads it:
what is unusual in any way is left to orjson.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import simdjson

from modelstream.models.contract import Column

__all__ = ["JsonFields"]

# After a batch that was left to orjson so many are not tried, and twice as many after the next, up to a limit: where
# every batch holds something unusual, trying costs for nothing.
_MOST_SKIPPED = 256

_OPENING = ord("[")

# What a field that is no vector may hold.
_SCALARS = frozenset({str, int, float, bool, type(None)})


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
        # Each once: an event's id may be a column as well.
        self._names = [name for name in dict.fromkeys(names) if name not in widths]
        self._widths = widths
        self._quoted = [b'"%s"' % name.encode() for name in (*self._names, *widths)]
        self._parser = simdjson.Parser()
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
            # simdjson's own errors, and those of values that are something else. What was found may still hold a part
            # of a document, and its parser would refuse the next one.
            self._parser = simdjson.Parser()
            return None
        joined = b"\n".join(values)
        if self._is_ambiguous(joined, len(values), n_fields):
            return None
        columns: dict[str, Column] = {name: found[name] for name in self._names}
        for name, width in self._widths.items():
            if set(map(len, map(memoryview, found[name]))) - {8 * width}:  # type: ignore[arg-type]
                return None
            columns[name] = np.frombuffer(b"".join(found[name])).reshape(len(values), width)
        return columns

    def _parse(self, values: Sequence[bytes]) -> tuple[dict[str, list[Any]], set[int]]:
        """Return what was found by name, and how many fields there are in a record."""
        found: dict[str, list[Any]] = {name: [] for name in (*self._names, *self._widths)}
        scalars = [(name, found[name].append) for name in self._names]
        vectors = [(name, found[name].append) for name in self._widths]
        parse = self._parser.parse
        n_fields = set()
        # Record by record: the parser holds one document, and with a parser for each of many they leave the cache.
        for value in values:
            record: Any = parse(value)
            n_fields.add(len(record))
            for name, keep in scalars:
                keep(record[name])
            for name, keep in vectors:
                keep(record[name].as_buffer(of_type="d"))
            del record  # or the parser would refuse the next
        if not all(_SCALARS.issuperset(map(type, found[name])) for name in self._names):
            raise TypeError("a field is no scalar")
        return found, n_fields

    def _is_ambiguous(self, joined: bytes, n_rows: int, n_fields: set[int]) -> bool:
        """Return whether a record might be something else to orjson, or to `pack`."""
        # A list in a vector: simdjson takes its numbers for the vector's.
        if np.count_nonzero(np.frombuffer(joined, np.uint8) == _OPENING) != n_rows * len(self._widths):
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

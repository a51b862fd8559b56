"""Entries of the prediction cache: the key of a row, and answers as bytes that cannot be mistaken for others."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping, Sequence
from itertools import compress
from zlib import crc32

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_128_digest

from modelstream.operators.batch import Column
from modelstream.operators.row_bytes import RowLayout

__all__ = ["AnswerCodec", "Answers", "row_keys"]

#: Part of every key: what a release kept that writes rows or answers in another way is not found.
_SCHEMA = b"modelstream cache 1"
#: First byte of every answer.
_FORMAT = 1
_HEADER = struct.Struct("<BI")

#: What each model answered, in the order of the models.
Answers = list[Mapping[str, Column]]


def row_keys(identity: bytes, columns: Sequence[Column], n_rows: int) -> list[bytes]:
    """Return a key for each row, equal only if the rows are.

    Parameters
    ----------
    identity : bytes
        What else the answers depend on.
    columns : sequence of Column
        What the models read.
    n_rows : int
        Rows of the columns.

    Raises
    ------
    TypeError
        If what should be text is not.

    Examples
    --------
    >>> one, other, again = row_keys(b"model@1", [np.array([1.0, 2.0, 1.0])], 3)
    >>> one == again, one == other, len(one)
    (True, False, 19)
    """
    layout = RowLayout.of(columns)
    tag = hashlib.sha256(b"\n".join([_SCHEMA, identity, repr(layout.columns).encode()])).digest()[:16]
    return [b"ms:" + digest for digest in map(xxh3_128_digest, layout.pack(columns, n_rows, prefix=tag))]


class AnswerCodec:
    """Answers of one row as a value for the store: a format byte, a checksum, and the outputs of all models, exact.

    Parameters
    ----------
    sample : list of mapping of str to Column
        Answers, of no rows too: what every other looks like.
    """

    def __init__(self, sample: Answers) -> None:
        self._names = [tuple(fields) for fields in sample]
        self._layout = layout = RowLayout.of(_flat(sample))
        self._shortest = _HEADER.size + layout.n_fixed_bytes
        self._longest = float("inf") if layout.has_text else self._shortest
        # In the checksum, not in the value: what was written in another layout must not be read in this one.
        self._seed = crc32(repr((self._names, self._layout.columns)).encode())

    def fits(self, answers: Answers) -> bool:
        """Say whether answers look like the sample."""
        return [tuple(fields) for fields in answers] == self._names and RowLayout.of(_flat(answers)) == self._layout

    def encode(self, answers: Answers, n_rows: int) -> list[bytes]:
        """Return a value for each row."""
        seed, pack = self._seed, _HEADER.pack
        return [pack(_FORMAT, crc32(row, seed)) + row for row in self._layout.pack(_flat(answers), n_rows)]

    def decode(self, values: Sequence[bytes | None]) -> tuple[NDArray[np.bool_], Answers]:
        """Return which values are whole, and their answers.

        Returns
        -------
        found : ndarray of bool, shape (n_values,)
            Whether there is a value and it is as `encode` made it.
        answers : list of mapping of str to Column
            The answers of those, in their order.
        """
        found = np.fromiter(map(self._is_whole, values), np.bool_, len(values))
        size = _HEADER.size
        rows = [value[size:] for value in compress(values, found.tolist()) if value is not None]
        columns = iter(self._layout.unpack(rows))
        return found, [{name: next(columns) for name in names} for names in self._names]

    def _is_whole(self, value: bytes | None) -> bool:
        return (
            value is not None
            and self._shortest <= len(value) <= self._longest
            and _HEADER.unpack_from(value) == (_FORMAT, crc32(value[_HEADER.size :], self._seed))
        )


def _flat(answers: Answers) -> list[Column]:
    return [column for fields in answers for column in fields.values()]

"""Entries of the prediction cache: the key of a row, and answers as bytes that cannot be mistaken for others."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from itertools import compress, repeat
from zlib import crc32

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_128_digest

from modelstream.models.outputs import non_finite_rows
from modelstream.operators.batch import Column
from modelstream.operators.row_bytes import RowLayout

__all__ = ["AnswerCodec", "Answers", "row_digests", "store_keys"]

#: Part of every key: what a release kept that writes rows or answers in another way is not found.
_SCHEMA = b"modelstream cache 1"
#: First byte of every answer.
_FORMAT = 1
#: What stands before the answer. Not padded: five bytes.
_HEADER = np.dtype([("format", "u1"), ("checksum", "<u4")])
#: So that the answers can be told from whatever else is in a Redis.
_PREFIX = b"ms:"

#: What each model answered, in the order of the models.
Answers = list[Mapping[str, Column]]


def row_digests(identity: bytes, columns: Sequence[Column], n_rows: int) -> list[bytes]:
    """Return 16 bytes for each row, equal only if the rows are.

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
    >>> one, other, again = row_digests(b"model@1", [np.array([1.0, 2.0, 1.0])], 3)
    >>> one == again, one == other, len(one)
    (True, False, 16)
    """
    layout = RowLayout.of(columns)
    tag = hashlib.sha256(b"\n".join([_SCHEMA, identity, repr(layout.columns).encode()])).digest()[:16]
    return list(map(xxh3_128_digest, layout.pack(columns, n_rows, prefix=tag)))


def store_keys(digests: Iterable[bytes]) -> list[bytes]:
    """Return the keys under which the answers to rows are stored."""
    return [_PREFIX + digest for digest in digests]


class AnswerCodec:
    """Answers of one row as a value for the store: a format byte, a checksum, and the outputs of all models, exact.

    Parameters
    ----------
    sample : list of mapping of str to Column
        Answers, of no rows too: what every other looks like.
    """

    def __init__(self, sample: Answers) -> None:
        self._names = [tuple(fields) for fields in sample]
        self._layout = layout = RowLayout.of(self.columns(sample))
        self._shortest = _HEADER.itemsize + layout.n_fixed_bytes
        self._longest = float("inf") if layout.has_text else self._shortest
        # In the checksum, not in the value: what was written in another layout must not be read in this one.
        self._seed = crc32(repr((self._names, self._layout.columns)).encode())

    def fits(self, answers: Answers) -> bool:
        """Say whether answers look like the sample."""
        if [tuple(fields) for fields in answers] != self._names:
            return False
        return RowLayout.of(self.columns(answers)) == self._layout

    @staticmethod
    def columns(answers: Answers) -> list[Column]:
        """Return the columns of answers, one model's after the other's."""
        return [column for fields in answers for column in fields.values()]

    def answers(self, columns: Iterable[Column]) -> Answers:
        """Return the answers of which these are the columns."""
        each = iter(columns)
        return [{name: next(each) for name in names} for names in self._names]

    @staticmethod
    def keepable(columns: Sequence[Column], n_rows: int) -> NDArray[np.bool_]:
        """Return for which rows all numbers are finite: others are not kept."""
        if not columns:
            return np.ones(n_rows, np.bool_)
        return ~non_finite_rows(dict(zip(map(str, range(len(columns))), columns, strict=True)))

    def encode(self, columns: Sequence[Column], n_rows: int) -> list[bytes]:
        """Return a value for each row."""
        rows = self._layout.pack(columns, n_rows)
        headers = np.empty(n_rows, _HEADER)
        headers["format"] = _FORMAT
        headers["checksum"] = np.fromiter(map(crc32, rows, repeat(self._seed)), np.uint32, n_rows)
        return [header + row for header, row in zip(_split(headers.tobytes(), n_rows), rows, strict=True)]

    def decode(self, values: Sequence[bytes | None]) -> tuple[NDArray[np.bool_], list[Column]]:
        """Return which values are whole, and their answers.

        Returns
        -------
        found : ndarray of bool, shape (n_values,)
            Whether there is a value and it is as `encode` made it.
        columns : list of Column
            The answers of those, in their order.
        """
        shortest, longest, size = self._shortest, self._longest, _HEADER.itemsize
        # Most are: the loops are over what is there.
        fits = [value is not None and shortest <= len(value) <= longest for value in values]
        whole: list[bytes] = list(compress(values, fits))  # type: ignore[arg-type]
        rows = [value[size:] for value in whole]
        headers = np.frombuffer(b"".join([value[:size] for value in whole]), _HEADER)
        checksums = np.fromiter(map(crc32, rows, repeat(self._seed)), np.uint32, len(rows))
        right = (headers["format"] == _FORMAT) & (headers["checksum"] == checksums)
        found = np.array(fits, np.bool_)
        if not right.all():
            found[found] = right
            rows = list(compress(rows, right.tolist()))
        return found, self._layout.unpack(rows)


def _split(joined: bytes, n_parts: int) -> Iterable[bytes]:
    size = len(joined) // n_parts if n_parts else 1
    return (joined[start : start + size] for start in range(0, len(joined), size))

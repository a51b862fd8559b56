"""How often rows come again, estimated from one row in 64, at a cost that even a fast model does not notice."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelstream.operators.batch import Column

__all__ = ["ReuseSample", "row_hashes"]

#: Rows whose hash begins with so many zero bits are followed.
_SAMPLE_BITS = 6
#: Rows of the sample that are remembered: those of a million different rows of the stream, in 4 MB.
_MAX_REMEMBERED = 16_384
#: After so many rows what was seen counts half.
_HALF_LIFE_ROWS = 65_536
#: Shares are told at the upper end of what they may be, so many standard deviations above what was counted.
_DEVIATIONS = 4

_MIX = np.uint64(0x9E3779B97F4A7C15)


def row_hashes(columns: Sequence[Column], n_rows: int) -> NDArray[np.uint64]:
    """Return a hash of each row. Equal rows have equal hashes, in this process; good for estimates only.

    Parameters
    ----------
    columns : sequence of Column
        Numbers and text, ``n_rows`` entries each.
    n_rows : int
        Rows of the columns.

    Raises
    ------
    TypeError
        If what should be text cannot be hashed.

    Examples
    --------
    >>> one, other, again = row_hashes([np.array([1.0, 2.0, 1.0]), ["a", "a", "a"]], 3)
    >>> bool(one == again), bool(one == other)
    (True, False)
    """
    words = [_words(column, n_rows) for column in columns]
    factors = _odd_numbers(sum(matrix.shape[1] for matrix in words))
    total = np.zeros(n_rows, np.uint64)
    start = 0
    for matrix in words:
        end = start + matrix.shape[1]
        # Not `@`, which is slow for integers.
        total += matrix[:, 0] * factors[start] if end == start + 1 else np.vecdot(matrix, factors[start:end])
        start = end
    total = (total ^ (total >> np.uint64(32))) * _MIX
    mixed: NDArray[np.uint64] = total ^ (total >> np.uint64(29))
    return mixed


def _words(column: Column, n_rows: int) -> NDArray[np.uint64]:
    """Return a column as whole numbers, shape (n_rows, n_values)."""
    if isinstance(column, list):
        if column and isinstance(column[0], np.ndarray):  # rows of different lengths
            return np.fromiter(map(_hash_of_array, column), np.int64, n_rows).view(np.uint64)[:, None]
        return np.fromiter(map(hash, column), np.int64, n_rows).view(np.uint64)[:, None]
    if column.dtype == object:
        rows = map(tuple, column.reshape(n_rows, -1).tolist())
        return np.fromiter(map(hash, rows), np.int64, n_rows).view(np.uint64)[:, None]
    matrix = np.ascontiguousarray(column).reshape(n_rows, -1)
    wide = matrix.shape[1] * matrix.dtype.itemsize % 8 == 0
    return matrix.view("u8" if wide else f"u{matrix.dtype.itemsize}").astype(np.uint64, copy=False)


def _hash_of_array(row: Any) -> int:
    return hash(tuple(row.tolist())) if row.dtype == object else hash(row.tobytes())


@lru_cache(maxsize=64)
def _odd_numbers(n: int) -> NDArray[np.uint64]:
    return np.random.default_rng(n).integers(0, 2**63, n, np.uint64) * np.uint64(2) + np.uint64(1)


class ReuseSample:
    """Follows some of the rows, chosen by their hash, and tells how many of all rows are new.

    A row is new where its equal was not seen within `ttl_s`, and far where it was not within the last `horizon` rows.
    All equal rows are in the sample, or none, so each row of it meets its equals as in the whole stream. What is
    counted are those that meet none: their number, times 64, is an estimate that very frequent rows do not upset. It is
    rather too high than too low.

    Parameters
    ----------
    horizon : int
        Rows that a cache in memory holds.
    ttl_s : float
        Seconds that it holds them.
    clock : callable
        Monotonic seconds.

    References
    ----------
    Waldspurger et al., "Efficient MRC Construction with SHARDS", FAST 2015: sampling by hash, and counting the rows
    that are missing from the sample as if they had met their equals at once.
    """

    def __init__(self, horizon: int, ttl_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._horizon = horizon
        self._ttl_s = ttl_s
        self._clock = clock
        self._n_rows = 0
        self._seen: dict[int, tuple[int, float]] = {}
        self._weight = 0.0
        self._far = 0.0
        self._new = 0.0

    @property
    def weight(self) -> float:
        """Rows that the estimates are made of, the older ones counting less."""
        return self._weight

    @property
    def far_share(self) -> float:
        """Share of the rows that a cache in memory would not know, 0 to 1; 1 before the first row."""
        return self._share(self._far)

    @property
    def new_share(self) -> float:
        """Share of the rows that no cache would know, 0 to 1; 1 before the first row."""
        return self._share(self._new)

    def _share(self, count: float) -> float:
        # How many of the rows are in the sample is chance: rows that never repeat must not look as if some did.
        most = count + _DEVIATIONS * math.sqrt(count)
        return min(1.0, most * 2**_SAMPLE_BITS / self._weight) if self._weight else 1.0

    def observe(self, columns: Sequence[Column], n_rows: int) -> None:
        """Look at a batch; the parameters and errors are those of `row_hashes`."""
        hashes = row_hashes(columns, n_rows)
        sampled: list[int] = hashes[hashes >> np.uint64(64 - _SAMPLE_BITS) == 0].tolist()
        fade = 0.5 ** (n_rows / _HALF_LIFE_ROWS)
        self._weight, self._far, self._new = self._weight * fade, self._far * fade, self._new * fade
        self._weight += n_rows
        now, seen = self._clock(), self._seen
        for row in sampled:
            last: Any = seen.pop(row, None)
            if last is None or now - last[1] > self._ttl_s:
                self._new += 1
                self._far += 1
            elif self._n_rows - last[0] > self._horizon:
                self._far += 1
            # At the end of the dict, which so begins with the row that was not seen for longest.
            seen[row] = (self._n_rows, now)
        while len(seen) > _MAX_REMEMBERED:
            del seen[next(iter(seen))]
        self._n_rows += n_rows

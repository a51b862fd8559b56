"""Records of several partitions put in the order of their times, while they come, without holding them all."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

__all__ = ["TimeOrder"]

T = TypeVar("T")

# Before all times: where a partition has said nothing yet, nothing of the others may go.
_NOTHING_YET = np.iinfo(np.int64).min


class TimeOrder(Generic[T]):
    """Merges partitions by time; a partition's own records keep their order, whatever their times are.

    A record that is late within its partition counts as of the time of the latest one before it. Equal times come in
    the order of their partitions. What comes out does not depend on how the records came in.

    Parameters
    ----------
    partitions : iterable of int
        Those that records will come of.

    Examples
    --------
    >>> order = TimeOrder([0, 1])
    >>> order.add(0, np.array([10, 30]), ["a", "c"])
    >>> order.take()  # of partition 1 an earlier one may come
    []
    >>> order.add(1, np.array([20]), ["b"])
    >>> order.take()
    ['a', 'b']
    >>> order.close(1)
    >>> order.take()
    ['c']
    """

    def __init__(self, partitions: Iterable[int]) -> None:
        self._queues: dict[int, _Queue[T]] = {p: _Queue() for p in sorted(partitions)}
        self._open = set(self._queues)

    def add(self, partition: int, times: NDArray[np.int64], records: list[T]) -> None:
        """Add records of a partition that follow those it had.

        Parameters
        ----------
        partition : int
            One that is not closed.
        times : ndarray of int64, shape (n_records,)
            Their times, one at least.
        records : list
            The records.
        """
        self._queues[partition].add(times, records)

    def close(self, partition: int) -> None:
        """Note that nothing more comes of a partition."""
        self._open.discard(partition)

    def take(self) -> list[T]:
        """Return the records that nothing to come can go before, in order."""
        bound = min(((self._queues[p].latest, p) for p in self._open), default=None)
        times: list[NDArray[np.int64]] = []
        records: list[T] = []
        for partition, queue in self._queues.items():
            # Of the bound's own partition more may come of that very time; of those behind it, not before them.
            n = len(queue) if bound is None else queue.count_until(bound[0], inclusive=partition <= bound[1])
            if n:
                times.append(queue.times[:n])
                records += queue.records[:n]
                queue.drop(n)
        if len(times) < 2:
            return records
        return [records[i] for i in np.argsort(np.concatenate(times), kind="stable").tolist()]

    def waiting(self, partition: int) -> list[T]:
        """Return the records of a partition that have not been taken."""
        return self._queues[partition].records

    @property
    def open_partitions(self) -> Collection[int]:
        """Those that are not closed."""
        return self._open


class _Queue(Generic[T]):
    """Records of one partition, with times that never fall."""

    def __init__(self) -> None:
        self.latest = _NOTHING_YET
        self.times: NDArray[np.int64] = np.empty(0, np.int64)
        self.records: list[T] = []

    def __len__(self) -> int:
        return len(self.records)

    def add(self, times: NDArray[np.int64], records: list[T]) -> None:
        rising = np.maximum(np.maximum.accumulate(times), self.latest)
        self.latest = int(rising[-1])
        self.times = np.concatenate([self.times, rising])
        self.records += records

    def count_until(self, time: int, *, inclusive: bool) -> int:
        return int(np.searchsorted(self.times, time, "right" if inclusive else "left"))

    def drop(self, n: int) -> None:
        self.times, self.records = self.times[n:], self.records[n:]

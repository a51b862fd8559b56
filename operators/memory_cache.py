"""Answers in this process's memory: columns, and a dict that says which row; a batch of hits is one selection."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from itertools import repeat
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelstream.operators.batch import Column

__all__ = ["MemoryCache"]

#: Answers that are kept together would all end together, and be computed again at once.
_TTL_JITTER = 0.1
#: Slots that the clock's hand looks at in one go, at least.
_STRIDE = 256


class MemoryCache:
    """Keeps the answers to so many rows, each for about so long, and gives up those that are not asked for.

    Which one goes is told by a clock: a hand goes round the slots, and passes over what was asked for since it last
    came by. What is asked for once only goes first, so a stream of new rows does not wash out those that come again.

    It has no lock: one thread at a time.

    Parameters
    ----------
    sample : sequence of Column
        How the columns of answers look; of no rows too.
    max_rows : int
        Rows that are kept at most; 0 keeps none.
    ttl_s : float
        Seconds that an answer is kept, a tenth more or less.
    clock : callable
        Monotonic seconds.
    rng : numpy.random.Generator, optional
        Spreads the times to live.

    Examples
    --------
    >>> memory = MemoryCache([np.empty(0, np.float32)], max_rows=2, ttl_s=60)
    >>> memory.add([b"a", b"b"], [np.array([1, 2], np.float32)])
    >>> slots = memory.find([b"b", b"c"])
    >>> slots >= 0, memory.read(slots[:1])
    (array([ True, False]), [array([2.], dtype=float32)])
    """

    def __init__(
        self,
        sample: Sequence[Column],
        max_rows: int,
        ttl_s: float,
        clock: Callable[[], float] = time.monotonic,
        rng: np.random.Generator | None = None,
    ) -> None:
        self._max_rows = max_rows
        self._ttl_s = ttl_s
        self._clock = clock
        self._rng = rng or np.random.default_rng()
        # Not touched yet, and so not in memory: the system gives out pages as rows are written.
        self._columns = [_empty_like(column, max_rows) for column in sample]
        self._is_list = [isinstance(column, list) for column in sample]
        self._expires = np.empty(max_rows, np.float64)
        self._asked_for = np.zeros(max_rows, np.bool_)
        self._digests: NDArray[Any] = np.empty(max_rows, object)
        self._slots: dict[bytes, int] = {}
        self._hand = 0

    def __len__(self) -> int:
        return len(self._slots)

    def find(self, digests: Sequence[bytes]) -> NDArray[np.intp]:
        """Return where the answers stand.

        Parameters
        ----------
        digests : sequence of bytes
            What rows are known by.

        Returns
        -------
        ndarray of int, shape (n_digests,)
            A slot, until the next `add`; -1 where the answer is not known, or too old.
        """
        slots = np.fromiter(map(self._slots.get, digests, repeat(-1)), np.intp, len(digests))
        if self._slots:
            # Slot -1 is the last one: what stands there is for nothing.
            slots[self._expires[slots] <= self._clock()] = -1
            self._asked_for[slots[slots >= 0]] = True
        return slots

    def read(self, slots: NDArray[np.intp]) -> list[Column]:
        """Return the columns of the answers at slots, as copies."""
        return [
            column[slots].tolist() if is_list else column[slots]
            for column, is_list in zip(self._columns, self._is_list, strict=True)
        ]

    def add(self, digests: Sequence[bytes], columns: Sequence[Column]) -> None:
        """Keep answers; the first ones are passed over where there are more than fit.

        Parameters
        ----------
        digests : sequence of bytes
            What their rows are known by, each once.
        columns : sequence of Column
            The answers, in their order.
        """
        if not self._max_rows or not digests:
            return
        surplus = len(digests) - self._max_rows
        if surplus > 0:
            digests, columns = digests[surplus:], [column[surplus:] for column in columns]
        self._forget(digests)
        slots = self._free_slots(len(digests))
        for kept, column in zip(self._columns, columns, strict=True):
            kept[slots] = column
        self._expires[slots] = self._clock() + self._ttl_s * self._rng.uniform(
            1 - _TTL_JITTER, 1 + _TTL_JITTER, len(slots)
        )
        names = np.empty(len(digests), object)
        names[:] = digests
        self._digests[slots] = names
        self._slots.update(zip(digests, slots.tolist(), strict=True))

    def _forget(self, digests: Sequence[bytes]) -> None:
        """Give up what is too old, and is now added again."""
        known = np.fromiter(map(self._slots.get, digests, repeat(-1)), np.intp, len(digests))
        known = known[known >= 0]
        if len(known):
            _consume(map(self._slots.pop, self._digests[known].tolist()))
            self._digests[known] = None
            self._asked_for[known] = False

    def _free_slots(self, n_slots: int) -> NDArray[np.intp]:
        """Return so many slots that may be written to; what stood there is forgotten."""
        slots = self._take(n_slots)
        _consume(map(self._slots.pop, self._digests[slots].tolist(), repeat(None)))
        self._asked_for[slots] = False
        return slots

    def _take(self, n_slots: int) -> NDArray[np.intp]:
        """Move the hand until it has found so many slots that nobody asked for."""
        parts: list[NDArray[np.intp]] = []
        while n_slots:
            start = self._hand
            end = min(self._max_rows, start + max(2 * n_slots, _STRIDE))
            free = start + np.flatnonzero(~self._asked_for[start:end])[:n_slots]
            n_slots -= len(free)
            if not n_slots:
                end = int(free[-1]) + 1
            self._asked_for[start:end] = False
            # Or the hand might take them once more when it comes round.
            self._asked_for[free] = True
            self._hand = end % self._max_rows
            parts.append(free)
        return np.concatenate(parts)


def _empty_like(column: Column, n_rows: int) -> NDArray[Any]:
    if isinstance(column, list):
        return np.empty(n_rows, object)
    return np.empty((n_rows, *column.shape[1:]), column.dtype)


def _consume(calls: map[Any]) -> None:
    deque(calls, maxlen=0)

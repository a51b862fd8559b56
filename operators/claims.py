"""Who computes which row: a row that one thread computes is not computed by another one, but waited for."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import repeat
from threading import Event

import numpy as np
from numpy.typing import NDArray

from modelstream.operators.answer_parts import AnswerParts

__all__ = ["Claim", "Claims"]


class Claim:
    """The rows that one call has claimed.

    Parameters
    ----------
    digests : sequence of bytes
        What all rows of the call are known by, claimed or not, each once.
    rows : ndarray of int, shape (n_claimed,)
        Which of them it has claimed.
    """

    __slots__ = ("_fulfilled", "_parts", "digests", "given_up", "rows")

    def __init__(self, digests: Sequence[bytes], rows: NDArray[np.intp]) -> None:
        self.digests = digests
        self.rows = rows
        #: Whether somebody has waited in vain, so that its rows may be claimed by others now.
        self.given_up = False
        self._fulfilled = Event()
        self._parts: AnswerParts | None = None

    @property
    def claimed(self) -> list[bytes]:
        """What the claimed rows are known by."""
        if len(self.rows) == len(self.digests):
            return list(self.digests)
        return [self.digests[row] for row in self.rows.tolist()]

    def fulfil(self, parts: AnswerParts | None) -> None:
        """Tell the others that the answers are there; None where there are none."""
        self._parts = parts
        self._fulfilled.set()

    def wait(self, timeout_s: float) -> AnswerParts | None:
        """Return the answers to the rows of the call; None where it failed, or takes longer than that."""
        return self._parts if self._fulfilled.wait(timeout_s) else None


class Claims:
    """The claims of all calls that are under way. It has no lock: one thread at a time.

    A call computes what it has claimed before it waits for others, so no two calls wait for each other.

    Examples
    --------
    >>> claims = Claims()
    >>> first, others = claims.claim([b"a", b"b"], np.array([0, 1]))
    >>> second, others = claims.claim([b"b", b"c"], np.array([0, 1]))
    >>> second.claimed, others == [(first, [0])]
    ([b'c'], True)
    """

    def __init__(self) -> None:
        self._by_digest: dict[bytes, Claim] = {}

    def claim(self, digests: Sequence[bytes], rows: NDArray[np.intp]) -> tuple[Claim, list[tuple[Claim, list[int]]]]:
        """Claim the rows that nobody computes.

        Parameters
        ----------
        digests : sequence of bytes
            What the rows of a call are known by, each once.
        rows : ndarray of int
            Which of them are wanted.

        Returns
        -------
        claim : Claim
            What is claimed now, to be released with `release`.
        others : list of (Claim, list of int)
            The calls that compute the other rows, and which rows those are.
        """
        others: dict[Claim, list[int]] = {}
        if self._by_digest:
            mine = []
            for row in rows.tolist():
                claim = self._by_digest.get(digests[row])
                if claim is None:
                    mine.append(row)
                else:
                    others.setdefault(claim, []).append(row)
            rows = np.array(mine, np.intp)
        claim = Claim(digests, rows)
        self._by_digest.update(dict.fromkeys(claim.claimed, claim))
        return claim, list(others.items())

    def release(self, claim: Claim) -> None:
        """Forget the claims of a call that has ended, well or not."""
        if claim.given_up:
            self.give_up(claim)
        else:
            deque(map(self._by_digest.pop, claim.claimed, repeat(None)), maxlen=0)

    def give_up(self, claim: Claim) -> None:
        """Let others claim the rows of a call that takes too long."""
        claim.given_up = True
        for digest in claim.claimed:
            if self._by_digest.get(digest) is claim:
                del self._by_digest[digest]

"""A circuit breaker: when calls of a dependency fail, leave it alone for a while."""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Callable

__all__ = ["Breaker"]

#: Seconds of calls that `max_share` is a share of, and how many calls there must be.
_WINDOW_S = 1.0
_LEAST_CALLS = 20


class Breaker:
    """Says whether to ask a dependency, from how the last calls went.

    Closed, it allows every call. After a row of failures, or where many calls of the last second failed, it opens and
    allows none, but one probe each time it has rested; the first success closes it. It has no lock: one thread at a
    time.

    Parameters
    ----------
    max_failures : int
        Failures in a row that open it.
    rest_s : float
        Seconds before a probe. A probe whose outcome nobody reports counts as failed.
    clock : callable
        Monotonic seconds.
    max_share : float, optional
        Share of failures among the calls of the last second that opens it too, if those were 20 or more.
    jitter : float
        Up to so much of `rest_s` is added to it, so that not all workers probe at once.
    rng : random.Random, optional
        Draws the jitter.

    Examples
    --------
    >>> now = 0.0
    >>> breaker = Breaker(max_failures=2, rest_s=1, clock=lambda: now)
    >>> breaker.failed(), breaker.failed(), breaker.allows()
    (None, None, False)
    >>> now = 1.0
    >>> breaker.allows(), breaker.allows()
    (True, False)
    >>> breaker.succeeded()
    >>> breaker.allows()
    True
    """

    def __init__(
        self,
        max_failures: int = 5,
        rest_s: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
        *,
        max_share: float | None = None,
        jitter: float = 0.0,
        rng: random.Random | None = None,
    ) -> None:
        self._max_failures = max_failures
        self._rest_s = rest_s
        self._clock = clock
        self._max_share = max_share
        self._jitter = jitter
        self._rng = rng or random.Random()
        self._failures = 0
        self._open = False
        self._probe_at = 0.0
        #: When each call of the last second ended, and whether it failed; kept only where it matters.
        self._calls: deque[tuple[float, bool]] = deque()
        self._failed_calls = 0

    @property
    def is_open(self) -> bool:
        """Whether calls are not allowed, but for probes."""
        return self._open

    @property
    def rests_s(self) -> float:
        """Seconds until the next probe; 0 if there may be one now."""
        return max(0.0, self._probe_at - self._clock())

    def allows(self) -> bool:
        """Say whether to make a call now; its outcome is to be told by `succeeded` or `failed`."""
        if not self._open:
            return True
        now = self._clock()
        if now < self._probe_at:
            return False
        self._rest(now)
        return True

    def succeeded(self) -> None:
        """Note that a call went well."""
        self._failures = 0
        if self._open:
            self._close()
        elif self._max_share is not None:
            self._note(self._clock(), failed=False)

    def tried(self) -> None:
        """Note that a trial went well that was not quite a call, a ping say: the first call that follows decides."""
        self._close()
        self._failures = self._max_failures - 1

    def failed(self) -> None:
        """Note that a call failed."""
        now = self._clock()
        self._failures += 1
        if self._max_share is not None:
            self._note(now, failed=True)
        if self._failures >= self._max_failures or self._too_many_fail():
            self._open = True
        self._rest(now)

    def _close(self) -> None:
        self._open = False
        self._calls.clear()
        self._failed_calls = 0

    def _rest(self, now: float) -> None:
        self._probe_at = now + self._rest_s * (1 + self._rng.uniform(0, self._jitter))

    def _note(self, now: float, *, failed: bool) -> None:
        self._calls.append((now, failed))
        self._failed_calls += failed
        while self._calls[0][0] < now - _WINDOW_S:
            self._failed_calls -= self._calls.popleft()[1]

    def _too_many_fail(self) -> bool:
        if self._max_share is None or len(self._calls) < _LEAST_CALLS:
            return False
        return self._failed_calls >= self._max_share * len(self._calls)

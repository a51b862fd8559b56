"""A circuit breaker: after some failures in a row, leave a dependency alone for a while."""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["Breaker"]


class Breaker:
    """Says whether to ask a dependency, from how the last calls went.

    Closed, it allows every call. After a row of failures it opens and allows none, but one probe each time it has
    rested; the first success closes it. For one thread.

    Parameters
    ----------
    max_failures : int
        Failures in a row that open it.
    rest_s : float
        Seconds before a probe. A probe whose outcome nobody reports counts as failed.
    clock : callable
        Monotonic seconds.

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

    def __init__(self, max_failures: int = 5, rest_s: float = 1.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._max_failures = max_failures
        self._rest_s = rest_s
        self._clock = clock
        self._failures = 0
        self._probe_at = 0.0

    @property
    def is_open(self) -> bool:
        """Whether calls are not allowed, but for probes."""
        return self._failures >= self._max_failures

    def allows(self) -> bool:
        """Say whether to make a call now; its outcome is to be told by `succeeded` or `failed`."""
        if not self.is_open:
            return True
        now = self._clock()
        if now < self._probe_at:
            return False
        self._probe_at = now + self._rest_s
        return True

    def succeeded(self) -> None:
        """Note that a call went well."""
        self._failures = 0

    def failed(self) -> None:
        """Note that a call failed."""
        self._failures += 1
        self._probe_at = self._clock() + self._rest_s

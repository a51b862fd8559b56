"""What a worker's log says of dead letters: each new reason at once, and how many there are now and then."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable

from modelstream.operators.batch import Fault
from modelstream.streams.wording import counted

__all__ = ["DeadLetterLog"]

logger = logging.getLogger(__name__)

#: Seconds between two lines for reasons that are known: enough to see that it goes on, and few enough for a log.
_REPEAT_AFTER_S = 10.0


class DeadLetterLog:
    """Tells of dead letters, without a line for each.

    Parameters
    ----------
    total : callable
        Returns how many there are by now.
    """

    def __init__(self, total: Callable[[], int]) -> None:
        self._total = total
        self._known: set[tuple[str, str]] = set()
        self._latest: Fault | None = None
        self._timer: asyncio.TimerHandle | None = None

    def note(self, faults: Iterable[Fault]) -> None:
        """Note why there are new ones, each reason once; called in the event loop, after they were counted."""
        for fault in faults:
            kind = (fault.stage, fault.reason)
            if kind not in self._known:
                self._known.add(kind)
                self._tell(fault)
            else:
                self._latest = fault
        if self._latest is not None and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_REPEAT_AFTER_S, self._tell_latest)

    def _tell_latest(self) -> None:
        self._timer = None
        if self._latest is not None:
            self._tell(self._latest)
            self._latest = None

    def _tell(self, fault: Fault) -> None:
        logger.warning(
            "%s so far in all, now: %s at stage %r: %s",
            counted(self._total(), "dead letter"),
            fault.reason,
            fault.stage,
            fault.detail,
        )

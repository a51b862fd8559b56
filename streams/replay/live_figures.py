"""How a replay stands while it runs, for who watches it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from modelstream.streams.replay.collecting import Answers
from modelstream.streams.replay.matching import UNKNOWN, Matcher

__all__ = ["LiveFigures", "Progress"]

#: Of what came last, so many tell how latency is now.
_N_SAMPLED = 500


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a replay is, for who shows it.

    ``lag`` is how many events were sent after the latest one that has its prediction; latencies are of what came last,
    by the consumer's clock, None before anything came. ``silent_s`` is for how long events have been waiting without
    anything being answered.
    """

    seconds: float
    events: int
    sent: int
    answered: int
    lag: int
    p50_ms: float | None
    p99_ms: float | None
    silent_s: float = 0.0


class LiveFigures:
    """Lag and latencies of a replay under way.

    Parameters
    ----------
    id_hashes : ndarray of uint64, shape (n_events,)
        Hashes of the events' ids.
    """

    def __init__(self, id_hashes: NDArray[np.uint64]) -> None:
        self._matcher = Matcher(id_hashes)
        self._needs_all = self._matcher.n_repeated > 0
        self._n_seen = self._n_answered = 0
        self._heard_s = 0.0
        self._position = UNKNOWN
        self._positions, self._came_us = np.empty(0, np.int64), np.empty(0, np.int64)

    def look(self, answers: Answers) -> None:
        """Take up the predictions that came since the last look."""
        n_new, self._n_seen = answers.n - self._n_seen, answers.n
        # Which event of an id is answered takes all predictions; where ids occur once, the last few tell as much, for
        # less of the time of who measures.
        hashes, came_us = answers.latest(n_new if self._needs_all else min(n_new, _N_SAMPLED))
        positions = self._matcher.match(hashes)
        is_answer = positions != UNKNOWN
        self._position = max(self._position, int(positions.max(initial=UNKNOWN)))
        self._positions = np.concatenate([self._positions, positions[is_answer]])[-_N_SAMPLED:]
        self._came_us = np.concatenate([self._came_us, came_us[is_answer]])[-_N_SAMPLED:]

    def lag(self, n_sent: int) -> int:
        """Return how many of the events sent come after the latest one that has its prediction."""
        return max(n_sent - 1 - self._position, 0)

    def silent_s(self, seconds: float, n_answered: int, n_sent: int) -> float:
        """Return for how long events have been waiting without any answer, as far as the calls tell.

        Parameters
        ----------
        seconds : float
            Since the start.
        n_answered, n_sent : int
            Predictions and dead letters, and events, until now.
        """
        if n_answered != self._n_answered or n_answered >= n_sent:
            self._n_answered, self._heard_s = n_answered, seconds
        return seconds - self._heard_s

    def percentiles_ms(self, intended_us: NDArray[np.int64]) -> tuple[float | None, float | None]:
        """Return p50 and p99 of the last latencies, None where there are none.

        Parameters
        ----------
        intended_us : ndarray of int64, shape (n_events,)
            When each event was due.
        """
        if not len(self._positions):
            return None, None
        p50, p99 = np.percentile((self._came_us - intended_us[self._positions]) / 1000, [50, 99]).tolist()
        return p50, p99

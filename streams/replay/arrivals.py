"""When events are due: as they were recorded, faster or slower, or at a rate."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from modelstream.models.errors import ConfigError

__all__ = ["Arrivals", "Pace", "Schedule", "parse_speed"]

Arrivals = Literal["recorded", "poisson", "even"]

_SPEED = re.compile(r"([0-9]+(?:\.[0-9]+)?)x?")


def parse_speed(text: str) -> float | None:
    """Return how many times faster than recorded a speed is, None for as fast as possible.

    Raises
    ------
    ValueError
        The text is no speed.

    Examples
    --------
    >>> parse_speed("60x"), parse_speed("0.5x"), parse_speed("max")
    (60.0, 0.5, None)
    """
    if text == "max":
        return None
    match = _SPEED.fullmatch(text)
    if match is None or not float(match[1]):
        raise ValueError(f"{text!r} is no speed; write 1x, 60x or max")
    return float(match[1])


@dataclass(frozen=True, slots=True)
class Schedule:
    """When each event of a replay is due.

    Parameters
    ----------
    due_us : ndarray of int64, shape (n_events,), or None
        Microseconds after the start, never falling; None where all are due as soon as they can be sent.
    n_clamped : int
        Events whose time lies before that of an earlier one, and that are due with that one.
    max_clamped_us : int
        By how much the one that is the latest is due after its time.
    """

    due_us: NDArray[np.int64] | None
    n_clamped: int = 0
    max_clamped_us: int = 0


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast events come; neither a speed nor a rate means as fast as they can be sent.

    Parameters
    ----------
    speed : float, optional
        Times faster than recorded.
    rate_per_s : float, optional
        Events per second, in the mean.
    arrivals : {"recorded", "poisson", "even"}
        For a rate: as recorded, stretched to that mean; with gaps that know nothing of each other; or with equal ones.
    seed : int
        Of the Poisson arrivals.

    Examples
    --------
    >>> Pace(speed=60).schedule(3, np.array([0, 60_000, 30_000])).due_us.tolist()
    [0, 1000000, 1000000]
    >>> Pace(rate_per_s=1000, arrivals="even").schedule(3).due_us.tolist()
    [0, 1000, 2000]
    """

    speed: float | None = None
    rate_per_s: float | None = None
    arrivals: Arrivals = "poisson"
    seed: int = 0

    @property
    def needs_times(self) -> bool:
        """Whether the events' times matter."""
        return self.speed is not None or (self.rate_per_s is not None and self.arrivals == "recorded")

    @property
    def kind(self) -> Literal["recorded", "poisson", "even", "max"]:
        """How the events come."""
        if self.speed is not None:
            return "recorded"
        return "max" if self.rate_per_s is None else self.arrivals

    def __str__(self) -> str:
        if self.speed is not None:
            return f"{self.speed:g}x"
        return "max" if self.rate_per_s is None else f"{self.rate_per_s:.12g}/s"

    def schedule(self, n_events: int, times_ms: NDArray[np.int64] | None = None) -> Schedule:
        """Return when each event is due.

        Parameters
        ----------
        n_events : int
            How many there are.
        times_ms : ndarray of int64, shape (n_events,), optional
            Their times, in milliseconds since 1970 or any other moment; needed where they matter.

        Raises
        ------
        ConfigError
            The rate is to be that of recorded times which are all the same.
        """
        if self.speed is None and self.rate_per_s is None:
            return Schedule(None)
        if self.needs_times:
            assert times_ms is not None
            return self._recorded(times_ms)
        assert self.rate_per_s is not None
        if self.arrivals == "even":
            return Schedule((np.arange(n_events) * (1e6 / self.rate_per_s)).astype(np.int64))
        gaps_us = np.random.default_rng(self.seed).exponential(1e6 / self.rate_per_s, n_events)
        return Schedule(np.cumsum(gaps_us).astype(np.int64))

    def _recorded(self, times_ms: NDArray[np.int64]) -> Schedule:
        if not len(times_ms):
            return Schedule(np.zeros(0, np.int64))
        latest_ms = np.maximum.accumulate(times_ms)
        elapsed_ms = (latest_ms - latest_ms[0]).astype(np.float64)
        speed = self.speed
        if speed is None:
            assert self.rate_per_s is not None
            if not elapsed_ms[-1]:
                raise ConfigError("--arrivals", "all events have the same time; use poisson or even")
            speed = elapsed_ms[-1] * self.rate_per_s / (1000 * len(times_ms))
        behind_ms = latest_ms - times_ms
        return Schedule(
            (elapsed_ms * (1000 / speed)).astype(np.int64),
            int((behind_ms > 0).sum()),
            int(behind_ms.max() * (1000 / speed)),
        )

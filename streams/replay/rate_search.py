"""The search for the highest rate that is sustained: up or down by steps, then by halves of what is between."""

from __future__ import annotations

import math
from collections.abc import Callable

__all__ = ["find_highest", "most_rates"]

#: A step up where no limit is known yet.
_STEP = 1.5
#: No guess is so wrong that a limit lies more such steps above it.
_MOST_STEPS = 8
#: A rate so far below where the search began is none that anybody would call sustained.
_GIVE_UP = 0.01


def most_rates(precision: float) -> int:
    """Return how many rates `find_highest` tries at the most.

    Examples
    --------
    >>> most_rates(0.05), most_rates(0.5)
    (13, 9)
    """
    up = 1 + _MOST_STEPS + _halvings(_STEP, precision)
    down = math.ceil(-math.log2(_GIVE_UP)) + _halvings(2.0, precision)
    return max(up, down)


def _halvings(ratio: float, precision: float) -> int:
    return max(math.ceil(math.log2(math.log(ratio) / math.log1p(precision)) - 1e-9), 0)


def find_highest(
    is_sustained: Callable[[float], bool],
    start: float,
    *,
    precision: float = 0.05,
    is_hopeless: Callable[[], bool] = lambda: False,
) -> float | None:
    """Return the highest rate that is sustained, to a share of itself; None where none is that is worth the name.

    Starts at a guess; goes up by half until a rate is not sustained, or down by half until one is; then halves what is
    between, by ratio.

    Parameters
    ----------
    is_sustained : callable
        Tries a rate.
    start : float
        The guess, above 0.
    precision : float
        How far, as a share, the lowest rate known to fail may be above the result.
    is_hopeless : callable
        Whether a lower rate would tell nothing more; asked while none is sustained.

    Examples
    --------
    >>> tried = []
    >>> def is_sustained(rate):
    ...     tried.append(round(rate))
    ...     return rate <= 1000
    >>> round(find_highest(is_sustained, 600, precision=0.1)), tried
    (996, [600, 900, 1350, 1102, 996, 1048])
    """
    sustained: float | None = None
    failed: float | None = None
    rate, highest = start, start * _STEP ** (_MOST_STEPS + 0.5)
    while sustained is None or failed is None or failed > sustained * (1 + precision):
        if is_sustained(rate):
            sustained = rate
        else:
            failed = rate
        if failed is None:
            rate *= _STEP
            if rate > highest:
                return sustained
        elif sustained is None:
            rate /= 2
            if rate < start * _GIVE_UP or is_hopeless():
                return None
        else:
            rate = math.sqrt(sustained * failed)
    return sustained

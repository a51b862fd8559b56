"""Numbers of a report as people read them."""

from __future__ import annotations

__all__ = ["clock", "compact", "figure", "milliseconds", "percent"]


def figure(value: float | None, unit: str = "", digits: int = 3) -> str:
    """Return a number with three digits that count, or more where they are whole, and its unit; a dash for none.

    Examples
    --------
    >>> figure(248_123.4, "/s"), figure(9.1234, "ms"), figure(0.0), figure(None, "ms"), figure(12.0, "MB")
    ('248,123/s', '9.12 ms', '0', '–', '12 MB')
    """
    if value is None:
        return "–"
    if value == int(value) or abs(value) >= 10 ** (digits - 1):
        text = f"{value:,.0f}"
    else:
        text = f"{value:.{digits}g}"
        if "e" in text:
            text = f"{value:.2e}"
    return text + (unit if unit in ("", "%") or unit.startswith("/") else f" {unit}")


def milliseconds(value: float | None) -> str:
    """Return a latency; in seconds from ten on.

    Examples
    --------
    >>> milliseconds(0.5), milliseconds(950.4), milliseconds(12_345.0)
    ('0.5 ms', '950 ms', '12.3 s')
    """
    return figure(value, "ms") if value is None or value < 10_000 else figure(value / 1000, "s")


def percent(share: float) -> str:
    """Return a share of 1, in whole per cent; what is there is never 0 %.

    Examples
    --------
    >>> percent(0.923), percent(0.001), percent(0)
    ('92 %', '< 1 %', '0 %')
    """
    return "< 1 %" if 0 < share < 0.005 else f"{100 * share:.0f} %"


def compact(value: float, _: object = None) -> str:
    """Return the number of a tick, short; matplotlib also tells its position.

    Examples
    --------
    >>> [compact(value) for value in (0, 0.25, 950, 9_500, 25_000, 1_500_000)]
    ['0', '0.25', '950', '9,500', '25k', '1.5M']
    """
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size and (size > 1e3 or abs(value) >= 1e4):
            return f"{value / size:g}{letter}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:g}"


def clock(seconds: float, _: object = None) -> str:
    """Return a time after the start, in minutes and seconds from one minute on.

    Examples
    --------
    >>> clock(2.5), clock(125), clock(0)
    ('2.5 s', '2:05', '0 s')
    """
    if seconds < 60:
        return f"{seconds:g} s"
    hours, rest = divmod(round(seconds), 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}" if hours else f"{rest // 60}:{rest % 60:02d}"

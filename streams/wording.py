"""Words that go with numbers, for messages and logs."""

from __future__ import annotations

__all__ = ["counted"]


def counted(n: int, noun: str) -> str:
    """Return a number with what it counts.

    Parameters
    ----------
    n : int
        The number.
    noun : str
        What is counted, in the singular; its plural has an s.

    Examples
    --------
    >>> counted(1, "dead letter"), counted(20_000, "prediction")
    ('1 dead letter', '20,000 predictions')
    """
    return f"{n:,} {noun}{'' if n == 1 else 's'}"

"""Vectors that a field holds as text: numbers with commas, or something else, between them."""

from __future__ import annotations

from typing import Any

import orjson

from modelstream.models.errors import ConfigError

__all__ = ["as_list", "check_separator", "split_numbers"]

#: What may stand between numbers: no part of a number, nor of JSON's own writing.
_SEPARATORS = ",;|: \t/_"


def check_separator(name: str, separator: str) -> None:
    """Raise a ConfigError, about a column, where this cannot stand between numbers."""
    if len(separator) != 1 or separator not in _SEPARATORS:
        raise ConfigError(name, f"the separator {separator!r} is none of {' '.join(map(repr, _SEPARATORS))}")


def as_list(text: str, separator: str) -> str:
    """Return the JSON list that a text stands for; one separator may stand behind the last number.

    Raises
    ------
    TypeError, ValueError
        It is no text, or has commas though something else separates.
    """
    if separator != ",":
        if "," in text:
            raise ValueError(f"a comma among numbers separated by {separator!r}")
        text = text.removesuffix(separator).replace(separator, ",")
    elif text.endswith(","):
        text = text[:-1]
    return f"[{text}]"


def split_numbers(text: Any, separator: str) -> list[Any]:
    """Return the numbers of a text.

    Parameters
    ----------
    text : str
        Numbers as JSON writes them, with separators between them, and perhaps one behind the last.
    separator : str
        One character; see `check_separator`.

    Raises
    ------
    TypeError, ValueError
        It is no text, or is none of that.

    Examples
    --------
    >>> split_numbers("1,2.5,-3e2,", ","), split_numbers("1;2", ";")
    ([1, 2.5, -300.0], [1, 2])
    """
    if not isinstance(text, str):
        raise TypeError("numbers as text are no text")
    numbers: list[Any] = orjson.loads(as_list(text, separator))
    return numbers

"""Dead letters as JSON objects, for people and for tools: the headers that `dead_letter` writes, read back."""

from __future__ import annotations

import base64
from typing import Any

from confluent_kafka import Message

__all__ = ["describe_dead_letter"]

_PREFIX = "modelstream."
_TEXTS = ("reason", "stage", "detail", "exception")
_NUMBERS = ("attempts", "partition", "offset", "timestamp_ms")
#: Only where the original value was too large to be kept.
_OF_TRUNCATED = ("truncated_from_bytes", "sha256")

Headers = list[tuple[str, bytes | None]]


def describe_dead_letter(message: Message) -> dict[str, Any]:
    """Return what a dead letter says.

    Parameters
    ----------
    message : confluent_kafka.Message
        A record of a dead-letter topic.

    Returns
    -------
    dict
        ``reason``, ``stage``, ``detail``, ``exception``, ``attempts``, and the original record: ``topic``,
        ``partition``, ``offset``, ``timestamp_ms``, ``key``, ``value`` and ``headers``, a list of objects with
        ``name`` and ``value``. Bytes that are not UTF-8 stand in base64 under ``key_base64`` and ``value_base64``.
        What a record does not say, because something else wrote it, is null.
    """
    ours, original = _split(message.headers() or [])
    said: dict[str, Any] = {name: ours.get(name) for name in _TEXTS}
    said |= {"attempts": _number(ours.get("attempts")), "topic": ours.get("topic")}
    said |= {name: _number(ours.get(name)) for name in ("partition", "offset", "timestamp_ms")}
    said |= _as_text("key", message.key()) | _as_text("value", message.value())
    if "truncated_from_bytes" in ours:
        said |= {"truncated_from_bytes": _number(ours["truncated_from_bytes"]), "sha256": ours.get("sha256")}
    said["headers"] = [{"name": name, **_as_text("value", value)} for name, value in original]
    return said


def _split(headers: Headers) -> tuple[dict[str, str], Headers]:
    """Return what the engine says, and the headers of the original record.

    The original's come first. Was it a dead letter itself once, they hold the same names, so the last of each counts.
    """
    names = {_PREFIX + name for name in (*_TEXTS, *_NUMBERS, *_OF_TRUNCATED, "topic")}
    ours: dict[str, str] = {}
    original: Headers = []
    for name, value in reversed(headers):
        short = name.removeprefix(_PREFIX)
        if name in names and short not in ours and value is not None:
            ours[short] = value.decode("utf-8", "replace")
        else:
            original.append((name, value))
    return ours, original[::-1]


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdecimal() else None


def _as_text(name: str, value: bytes | None) -> dict[str, str | None]:
    if value is None:
        return {name: None}
    try:
        return {name: value.decode()}
    except UnicodeDecodeError:
        return {f"{name}_base64": base64.b64encode(value).decode()}

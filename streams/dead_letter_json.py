"""Dead letters as JSON objects, for people and for tools: the headers that `dead_letter` writes, read back."""

from __future__ import annotations

import base64
from typing import Any

from confluent_kafka import Message

from modelstream.streams.dead_letter_reading import Letter
from modelstream.streams.headers import Headers, as_count, header_text, read_headers, split_own

__all__ = ["as_text", "describe_dead_letter", "describe_letter", "letter_as_dict"]

_TEXTS = ("reason", "stage", "detail", "exception")
#: Only where there is something to say: of a redriven event, and of a record that was too large to be kept whole.
_OPTIONAL_TEXTS = ("origin", "redriven_from", "sha256", "dropped_headers")
_OPTIONAL_NUMBERS = ("truncated_from_bytes", "key_truncated_from_bytes")


def describe_dead_letter(message: Message) -> dict[str, Any]:
    """Return what a dead letter says.

    Parameters
    ----------
    message : confluent_kafka.Message
        A record of a dead-letter topic.

    Returns
    -------
    dict
        ``letter``, where it stands in its topic (``PARTITION/OFFSET``), and ``written_ms``, its own timestamp;
        ``reason``, ``stage``, ``detail``, ``exception``, ``attempts``; and the original record: ``topic``,
        ``partition``, ``offset``, ``timestamp_ms``, ``key``, ``value`` and ``headers``, a list of objects with
        ``name`` and ``value``. Bytes that are not UTF-8 stand in base64 under ``key_base64`` and ``value_base64``.
        What a record does not say, because something else wrote it, is null.
    """
    [headers] = read_headers([message])
    return {
        "letter": f"{message.partition()}/{message.offset()}",
        "written_ms": message.timestamp()[1],
        **describe_letter(message.key(), message.value(), headers or []),
    }


def describe_letter(key: bytes | None, value: bytes | None, headers: Headers) -> dict[str, Any]:
    """Return what a dead letter says, wherever it stands: as `describe_dead_letter`, from ``reason`` on."""
    own, original = split_own(headers)
    said: dict[str, Any] = {
        **{name: header_text(own.get(name)) for name in _TEXTS},
        "attempts": as_count(own.get("attempts")),
        "topic": header_text(own.get("topic")),
        **{name: as_count(own.get(name)) for name in ("partition", "offset", "timestamp_ms")},
        **as_text("key", key),
        **as_text("value", value),
    }
    said |= {name: as_count(own[name]) for name in _OPTIONAL_NUMBERS if name in own}
    said |= {name: header_text(own[name]) for name in _OPTIONAL_TEXTS if name in own}
    said["headers"] = [{"name": name, **as_text("value", value)} for name, value in original]
    return said


def as_text(name: str, value: bytes | None) -> dict[str, str | None]:
    r"""Return bytes under a name, those that are no UTF-8 in base64 under ``NAME_base64``.

    Examples
    --------
    >>> as_text("key", b"N1") | as_text("value", b"\xff")
    {'key': 'N1', 'value_base64': '/w=='}
    """
    if value is None:
        return {name: None}
    try:
        return {name: value.decode()}
    except UnicodeDecodeError:
        return {f"{name}_base64": base64.b64encode(value).decode()}


def letter_as_dict(letter: Letter) -> dict[str, Any]:
    """Return what is known of a letter without its value, as plain data."""
    source = letter.source
    return {
        "letter": str(letter.place),
        "written_ms": letter.written_ms,
        "reason": letter.reason,
        "stage": letter.stage,
        "detail": letter.detail,
        "attempts": letter.attempts,
        **as_text("key", letter.key),
        "topic": source and source.topic,
        "partition": source and source.partition,
        "offset": source and source.offset,
        "origin": source and "/".join(map(str, letter.origin)),
        "incomplete": letter.incomplete,
        "redriven": letter.redriven,
    }

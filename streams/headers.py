"""Headers of records: read without harm whatever they hold, and the engine's own told apart from a record's.

Names that begin with ``modelstream.`` are the engine's. Those of `OWN` stand on dead letters and on redriven records;
`docs/dead-letters.md` says what each means. Nothing here needs Faust, so that a command starts quickly.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from sys import intern

from confluent_kafka import Message

__all__ = [
    "FIRST_TIMESTAMP",
    "ORIGIN",
    "OWN",
    "PREFIX",
    "Headers",
    "as_count",
    "header_text",
    "n_header_bytes",
    "own_headers",
    "read_headers",
    "split_own",
]

Headers = list[tuple[str, bytes | None]]

PREFIX = "modelstream."

#: Where an event stood first, ``TOPIC/PARTITION/OFFSET``: on redriven records, and on their dead letters.
ORIGIN = "modelstream.origin"

#: When the record was produced that a dead letter holds, or that a redriven one was at first; milliseconds since 1970.
FIRST_TIMESTAMP = "modelstream.timestamp_ms"

_DROPPED = "modelstream.dropped_headers"

#: What a dead letter or a redriven record may say of itself, without the prefix.
OWN = frozenset(
    {
        "reason",
        "stage",
        "detail",
        "exception",
        "attempts",
        "topic",
        "partition",
        "offset",
        "timestamp_ms",
        "truncated_from_bytes",
        "sha256",
        "key_truncated_from_bytes",
        "dropped_headers",
        "origin",
        "redriven_from",
        "redriven",
    }
)

# So that it fits into an int64. Python would even refuse to read some thousands.
_MAX_DIGITS = 18


def read_headers(messages: Sequence[Message]) -> list[Headers | None]:
    """Return the headers of each record, None where it has none; where a name is no UTF-8, that all were dropped.

    Kafka takes any bytes as a name, and confluent-kafka raises SystemError for those. Asked a second time it returns
    a list with a NULL in it, which crashes whoever looks at it: so that list is replaced.

    Parameters
    ----------
    messages : sequence of confluent_kafka.Message
        Records, without an error.
    """
    found: list[Headers | None] = []
    rest = iter(messages)
    while True:
        try:
            found.extend(map(Message.headers, rest))
            return found
        except SystemError:
            dropped: Headers = [(_DROPPED, b"all")]
            messages[len(found)].set_headers(dropped)
            found.append(dropped)


def n_header_bytes(headers: Headers) -> int:
    """Return how many bytes names and values of headers have, where names are ASCII, as nearly all are.

    Examples
    --------
    >>> n_header_bytes([("trace", b"7"), ("empty", None)])
    11
    """
    return sum(len(name) + len(value or b"") for name, value in headers)


def split_own(headers: Iterable[tuple[str, bytes | None]]) -> tuple[dict[str, bytes], Headers]:
    """Return what the engine says, by name without the prefix, and the record's own headers.

    Parameters
    ----------
    headers : iterable of (str, bytes or None)
        Headers in their order. Of several of one name the last one counts: the engine's stand behind the record's.

    Examples
    --------
    >>> split_own([("trace", b"7"), ("modelstream.attempts", b"1"), ("modelstream.attempts", b"2")])
    ({'attempts': b'2'}, [('trace', b'7')])
    """
    own: dict[str, bytes] = {}
    others: Headers = []
    for name, value in headers:
        short = name.removeprefix(PREFIX)
        if short in OWN and name.startswith(PREFIX):
            own[short] = value or b""
        else:
            others.append((name, value))
    return own, others


def own_headers(said: dict[str, str | int | None]) -> Headers:
    """Return headers of the engine's, one for each value that is not None.

    Examples
    --------
    >>> own_headers({"attempts": 2, "origin": None})
    [('modelstream.attempts', b'2')]
    """
    return [
        (PREFIX + name, str(value).encode("utf-8", "backslashreplace"))
        for name, value in said.items()
        if value is not None
    ]


def as_count(value: bytes | None) -> int | None:
    """Return the whole number that a header holds, None where it holds anything else.

    Examples
    --------
    >>> as_count(b"12"), as_count(b"-1"), as_count(b"9" * 5000), as_count(None)
    (12, None, None, None)
    """
    return int(value) if value is not None and len(value) <= _MAX_DIGITS and value.isdigit() else None


def header_text(value: bytes | None) -> str | None:
    r"""Return the text of a header; what is no UTF-8 in it is replaced.

    Examples
    --------
    >>> header_text(b"too_deep"), header_text(b"\xff") == "\N{REPLACEMENT CHARACTER}", header_text(None)
    ('too_deep', True, None)
    """
    # The same few words again and again.
    return None if value is None else intern(value.decode("utf-8", "replace"))

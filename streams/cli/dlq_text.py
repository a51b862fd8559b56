"""Dead letters as text for a terminal: whatever an event holds, nothing of it reaches the terminal as a command."""

from __future__ import annotations

import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import orjson

from modelstream.streams.dead_letter_reading import Letter
from modelstream.streams.wording import counted

__all__ = ["age", "as_table", "describe_letter", "printable", "show_bytes", "summary", "utc"]

_MISSING = "-"
#: Bytes of a value that is no text; more of them tell a person nothing. `--raw` has all.
_HEX_BYTES = 1024
_HEX_WIDTH = 16

#: Letters, and what stands above them.
_COLUMNS: dict[str, Callable[[Letter, float], str]] = {
    "LETTER": lambda letter, now_s: str(letter.place),
    "WRITTEN": lambda letter, now_s: utc(letter.written_ms),
    "AGE": lambda letter, now_s: age(now_s - letter.written_ms / 1000),
    "REASON": lambda letter, now_s: printable(letter.reason or _MISSING),
    "STAGE": lambda letter, now_s: printable(letter.stage or _MISSING),
    "KEY": lambda letter, now_s: show_bytes(letter.key),
    "ATTEMPTS": lambda letter, now_s: str(letter.attempts),
}


def as_table(letters: Sequence[Letter], now_s: float, last: tuple[str, Callable[[Letter], str]]) -> Iterable[str]:
    """Yield the lines of a table of letters.

    Parameters
    ----------
    letters : sequence of Letter
        The letters.
    now_s : float
        Seconds since 1970, for their ages.
    last : tuple of (str, callable)
        Name of the last column, which may be long, and what it says of a letter. On a terminal it is cut.
    """
    rows = [[*_COLUMNS, last[0]]]
    rows += [[*(cell(letter, now_s) for cell in _COLUMNS.values()), last[1](letter)] for letter in letters]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)][:-1]
    limit = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    for *cells, text in rows:
        line = "  ".join([*(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)), text])
        yield line if limit is None or len(line) <= limit else f"{line[: limit - 1]}…"


def summary(letters: Sequence[Letter]) -> Iterable[str]:
    """Yield lines that count letters by reason and stage, the most frequent first."""
    counts = Counter((printable(letter.reason or _MISSING), printable(letter.stage or _MISSING)) for letter in letters)
    rows = [(f"{n:,}", reason, stage) for (reason, stage), n in counts.most_common()]
    widths = [max((len(row[i]) for row in rows), default=0) for i in (0, 1)]
    for n, reason, stage in rows:
        yield f"  {n.rjust(widths[0])}  {reason.ljust(widths[1])}  at {stage}"


def describe_letter(said: dict[str, Any], value: bytes | None, topic: str, of_vectors: bool = False) -> str:
    """Return all that a dead letter says.

    Parameters
    ----------
    said : dict
        What `describe_dead_letter` makes of it, and whether it was ``redriven``.
    value : bytes or None
        The original value.
    topic : str
        The dead-letter topic.
    of_vectors : bool
        Whether values are raw float32 vectors, whatever else their bytes look like.
    """
    source = "-" if said["topic"] is None else f"{said['topic']}/{said['partition']}/{said['offset']}"
    lines = [f"letter {said['letter']} of {topic}, written {utc(said['written_ms'])}"]
    facts = {name: said[name] for name in ("reason", "stage", "detail", "exception", "attempts")}
    facts["source"] = source + (f", of {utc(said['timestamp_ms'])}" if said["timestamp_ms"] else "")
    optional = ("origin", "redriven_from", "truncated_from_bytes", "sha256", "key_truncated_from_bytes")
    facts |= {name: said[name] for name in (*optional, "dropped_headers") if name in said}
    facts |= {"redriven": "yes; only `dlq redrive --again` sends it once more"} if said.get("redriven") else {}
    facts["key"] = _of(said, "key")
    width = max(map(len, facts)) + 2
    lines += [
        f"{name.ljust(width)}{_MISSING if fact is None else printable(str(fact))}" for name, fact in facts.items()
    ]
    lines += [f"{'header'.ljust(width)}{printable(h['name'])}: {printable(_of(h, 'value'))}" for h in said["headers"]]
    note, text = _value_text(value, of_vectors)
    return "\n".join([*lines, f"{'value'.ljust(width)}{note}", *([text] if text else [])])


def _of(said: dict[str, Any], name: str) -> str:
    if name in said:
        return _MISSING if said[name] is None else str(said[name])
    return f"{said[f'{name}_base64']} (base64)"


def _value_text(value: bytes | None, of_vectors: bool) -> tuple[str, str]:
    """Return a note on a value, and the value for a person to read."""
    if not value:
        return ("null", "") if value is None else ("empty", "")
    size = counted(len(value), "byte")
    if of_vectors:
        n_numbers, n_over = divmod(len(value), 4)
        over = f" and {counted(n_over, 'byte')}" if n_over else ""
        return f"{size}, {counted(n_numbers, 'float32 number')}{over}{_hex_note(value)}", _hex_lines(value)
    try:
        text = orjson.dumps(orjson.loads(value), option=orjson.OPT_INDENT_2).decode()
        return f"{size}, JSON (indented here)", "\n".join(map(printable, text.split("\n")))
    except (ValueError, TypeError):  # orjson writes less deep than it reads
        pass
    try:
        return f"{size}, text", "\n".join(map(printable, value.decode().split("\n")))
    except UnicodeDecodeError:
        return f"{size}, no text{_hex_note(value)}", _hex_lines(value)


def _hex_note(value: bytes) -> str:
    more = "" if len(value) <= _HEX_BYTES else f", the first {_HEX_BYTES:,} in hexadecimal"
    return f"{more}; --raw writes them as they are"


def _hex_lines(value: bytes) -> str:
    rows = (value[at : at + _HEX_WIDTH] for at in range(0, min(len(value), _HEX_BYTES), _HEX_WIDTH))
    return "\n".join(
        f"{number * _HEX_WIDTH:08x}  {row.hex(' ').ljust(3 * _HEX_WIDTH - 1)}  "
        + "".join(chr(byte) if 32 <= byte < 127 else "." for byte in row)
        for number, row in enumerate(rows)
    )


def show_bytes(value: bytes | None, max_chars: int = 40) -> str:
    r"""Return a key in one line.

    Examples
    --------
    >>> show_bytes(b"N1"), show_bytes(None), show_bytes(b"\xff\x00"), show_bytes(b"x" * 50, 5)
    ('N1', '-', '0xff00', 'xxxx…')
    """
    if value is None:
        return _MISSING
    try:
        text = printable(value.decode())
    except UnicodeDecodeError:
        text = f"0x{value.hex()}"
    return text if len(text) <= max_chars else f"{text[: max_chars - 1]}…"


def printable(text: str) -> str:
    r"""Return a text with all that is not to be printed escaped.

    Examples
    --------
    >>> print(printable("a\x1b[31m\nü"))
    a\x1b[31m\nü
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def utc(ms: int) -> str:
    """Return a time as text, in UTC.

    Examples
    --------
    >>> utc(1_357_035_300_000), utc(-1), utc(10**18)
    ('2013-01-01T10:15:00Z', '-', '1000000000000000000 ms')
    """
    if ms < 0:  # Kafka's word for none
        return _MISSING
    try:
        return f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%dT%H:%M:%SZ}"
    except (ValueError, OverflowError, OSError):
        return f"{ms} ms"


def age(seconds: float) -> str:
    """Return how long ago something was, in its largest unit.

    Examples
    --------
    >>> age(5), age(3 * 3600 + 5), age(-3)
    ('5s', '3h', '0s')
    """
    for unit, n_seconds in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds >= n_seconds:
            return f"{int(seconds // n_seconds):,}{unit}"
    return f"{max(int(seconds), 0)}s"

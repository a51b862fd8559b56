"""Lines of NDJSON as records to produce: as the bytes they are, where records hold JSON."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

import orjson

from modelstream.models.errors import DecodeError
from modelstream.operators.codecs import Format
from modelstream.operators.json_format import JsonFormat
from modelstream.operators.paths import parse_path
from modelstream.streams.event_files import EventFile, Record, key_bytes, key_of

__all__ = ["BrokenLine", "NdjsonFile"]

#: One read. Some hundred events, so that what is done once a read costs nothing; larger reads are no quicker.
_READ_BYTES = 256 * 1024
#: No event is that long: a file without line ends is something else, and must not fill the memory.
_MAX_LINE_BYTES = 64 * 1024 * 1024

_UTF8_BOM = b"\xef\xbb\xbf"


class BrokenLine(DecodeError):
    """A line is no JSON object, and would go out as it stands if it were asked for."""


class NdjsonFile(EventFile):
    r"""One JSON object a line. Where records hold JSON, lines go out as they stand, without their line end.

    Blank lines are skipped.

    Parameters
    ----------
    path, key, form
        As for `EventFile`.
    as_is : bool
        Yield every line as it stands, whatever the format of records, blank and broken ones too; where a line has no
        key, the key is null.
    """

    def __init__(self, path: Path | None, key: str | None, form: Format, *, as_is: bool = False) -> None:
        super().__init__(path, key, form)
        self._as_is = as_is
        self._rewrites = not as_is and not isinstance(form, JsonFormat)

    def records(self) -> Iterator[Record]:
        """Yield key and value of each event."""
        line_number = 1
        with self._open() as stream:
            for lines in self._blocks(stream):
                if self._rewrites:
                    yield from self._rewritten(lines, line_number)
                    line_number += len(lines)
                    continue
                try:
                    keys = self._keys(lines)
                except (ValueError, AttributeError):  # not JSON, or no object
                    yield from self._one_by_one(lines, line_number)
                else:
                    yield from zip(keys, lines, strict=True)
                line_number += len(lines)

    def _blocks(self, stream: BinaryIO) -> Iterator[list[bytes]]:
        # read1 returns what a pipe holds: lines of a live source go out as they come.
        read = cast(io.BufferedReader, stream).read1
        rest, start = b"", _UTF8_BOM
        while block := read(_READ_BYTES).removeprefix(start):
            start = b""
            *lines, rest = _split(rest + block)
            if len(rest) > _MAX_LINE_BYTES:
                raise DecodeError(f"{self.name}: a line of more than {_MAX_LINE_BYTES >> 20} MiB; is this NDJSON?")
            yield lines
        if rest:
            yield [rest.removesuffix(b"\r")]

    def _keys(self, lines: list[bytes]) -> list[bytes | None]:
        key = self._key
        if self._as_is and key is None:
            return [None] * len(lines)
        loads = orjson.loads
        # One event at a time: a list of them all would be a fifth slower, for its memory.
        if key is None:
            if any(type(loads(line)) is not dict for line in lines):
                raise ValueError("a line is no object")
            return [None] * len(lines)
        steps = parse_path(key)
        if len(steps) > 1:
            return list(map(self._key_of_line, lines))
        values = [loads(line).get(steps[0]) for line in lines]
        return [value.encode() if value.__class__ is str else key_bytes(value) for value in values]

    def _one_by_one(self, lines: list[bytes], line_number: int) -> Iterator[Record]:
        for i, line in enumerate(lines, line_number):
            try:
                yield self._key_of_line(line), line
            except ValueError as error:
                if self._as_is:
                    yield None, line
                elif line.strip():
                    raise BrokenLine(f"{self.name}:{i}: {_say(error)}") from None

    def _rewritten(self, lines: list[bytes], line_number: int) -> Iterator[Record]:
        for i, line in enumerate(lines, line_number):
            if line and not line.isspace():
                try:
                    event = _event(line)
                    yield None if self._key is None else key_of(event, self._key), self._form.write(event)
                except (TypeError, ValueError) as error:
                    raise DecodeError(f"{self.name}:{i}: {_say(error)}") from None

    def _key_of_line(self, line: bytes) -> bytes | None:
        event = _event(line)
        return None if self._key is None else key_of(event, self._key)


def _event(line: bytes) -> dict[str, Any]:
    event = orjson.loads(line)
    if not isinstance(event, dict):
        raise ValueError("no JSON object; NDJSON has one event a line")
    return event


def _say(error: Exception) -> str:
    # orjson counts lines too, and would call this one line 1.
    return f"no JSON: {error.msg} at column {error.colno}" if isinstance(error, orjson.JSONDecodeError) else str(error)


def _split(block: bytes) -> list[bytes]:
    """Return the lines of a block without their ends; after the last end stands the beginning of the next line."""
    if b"\r" not in block:
        return block.split(b"\n")
    *lines, rest = block.split(b"\n")
    return [*(line.removesuffix(b"\r") for line in lines), rest]

"""Events of a file as records to produce: NDJSON line by line as the bytes they are; tables in `event_tables`."""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import stat
import sys
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Literal, cast, get_args

import orjson

from modelstream.models.errors import ConfigError, DecodeError, did_you_mean
from modelstream.operators.paths import Unfit, look_up

__all__ = ["EventFile", "Format", "NdjsonFile", "Record", "format_of", "key_bytes", "key_of", "open_events"]

#: What a file of events holds.
Format = Literal["ndjson", "csv", "parquet"]

#: Key and value of a Kafka record.
Record = tuple[bytes | None, bytes]

_SUFFIXES: dict[str, Format] = {
    ".ndjson": "ndjson",
    ".jsonl": "ndjson",
    ".json": "ndjson",
    ".csv": "csv",
    ".parquet": "parquet",
    ".pq": "parquet",
}

#: One read. Some hundred events, so that what is done once a read costs nothing; larger reads are no quicker.
_READ_BYTES = 256 * 1024
#: No event is that long: a file without line ends is something else, and must not fill the memory.
_MAX_LINE_BYTES = 64 * 1024 * 1024

_GZIP_MAGIC = b"\x1f\x8b"
_UTF8_BOM = b"\xef\xbb\xbf"


def format_of(path: Path | None) -> Format:
    """Return what a file holds by its suffix; standard input (None) holds NDJSON.

    Raises
    ------
    ConfigError
        The suffix says nothing.

    Examples
    --------
    >>> format_of(Path("flights.csv.gz")), format_of(Path("flights.jsonl")), format_of(None)
    ('csv', 'ndjson', 'ndjson')
    """
    if path is None:
        return "ndjson"
    name = path.name.lower().removesuffix(".gz")
    found = _SUFFIXES.get(Path(name).suffix)
    if found is None:
        raise ConfigError(str(path), f"the name does not tell its format; add --format {'|'.join(get_args(Format))}")
    return found


def key_bytes(value: Any) -> bytes | None:
    """Return the key of a record: text as UTF-8, anything else as JSON writes it, null as no key.

    Examples
    --------
    >>> key_bytes("N14228"), key_bytes(7), key_bytes(0.5), key_bytes(None)
    (b'N14228', b'7', b'0.5', None)
    """
    if value is None:
        return None
    return value.encode() if isinstance(value, str) else orjson.dumps(value)


def key_of(event: dict[str, Any], path: str) -> bytes | None:
    """Return the key that a field gives an event; none where there is no such field.

    Examples
    --------
    >>> key_of({"plane": {"tail": "N14228"}}, "plane.tail"), key_of({}, "plane.tail")
    (b'N14228', None)
    """
    try:
        return key_bytes(look_up(event, path))
    except Unfit:  # something on the way is no object
        return None


class EventFile(ABC):
    """A file of events, read once, from its start to its end.

    Parameters
    ----------
    path : Path or None
        The file; None is standard input. Compression by gzip is seen by itself.
    key : str or None
        The field that keys the records.
    """

    def __init__(self, path: Path | None, key: str | None) -> None:
        self.name = "standard input" if path is None else str(path)
        self._path = path
        self._key = key
        self._raw: BinaryIO | None = None

    @abstractmethod
    def records(self) -> Iterator[Record]:
        """Yield key and value of each event.

        Raises
        ------
        ConfigError
            The file cannot be opened, or is something else altogether.
        DecodeError
            It is broken in some line; all before it has been yielded.
        """

    def share_read(self) -> float | None:
        """Return how much of the file has been read, from 0 to 1; None where nobody knows its size."""
        if self._raw is None or self._raw.closed or self._path is None:
            return None
        size = os.fstat(self._raw.fileno()).st_size
        return self._raw.tell() / size if size else None

    @contextlib.contextmanager
    def _open(self) -> Iterator[BinaryIO]:
        """Open the file, decompressed; what goes wrong while reading it comes out as an error that names it."""
        with contextlib.ExitStack() as stack:
            if self._path is None:
                self._raw = sys.stdin.buffer
            else:
                self._raw = stack.enter_context(_open_file(self._path))
            stream: BinaryIO = self._raw
            if cast(io.BufferedReader, stream).peek(2)[:2] == _GZIP_MAGIC:
                stream = cast(BinaryIO, stack.enter_context(gzip.GzipFile(fileobj=stream)))
            try:
                yield stream
            except (EOFError, zlib.error, gzip.BadGzipFile) as error:
                raise DecodeError(f"{self.name}: broken gzip file: {error}") from None
            except OSError as error:
                raise DecodeError(f"{self.name}: cannot be read: {error.strerror or error}") from None


def _open_file(path: Path) -> BinaryIO:
    with _naming(path):
        return path.open("rb")


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise ConfigError(str(path), f"no such file{_neighbour(path)}") from None
    except IsADirectoryError:
        raise ConfigError(str(path), "is a directory; name a file in it") from None
    except OSError as error:
        raise ConfigError(str(path), f"cannot be read: {error.strerror}") from None
    except ValueError:  # a NUL in the name
        raise ConfigError(repr(str(path)), "is no file name") from None


def _check_is_there(path: Path) -> None:
    # Not by opening it: a pipe's writer would end when it is closed again.
    with _naming(path):
        if stat.S_ISDIR(path.stat().st_mode):
            raise IsADirectoryError


def _neighbour(path: Path) -> str:
    try:
        return did_you_mean(path.name, [entry.name for entry in path.parent.iterdir()])
    except OSError:
        return ""


class NdjsonFile(EventFile):
    r"""One JSON object a line. Lines go out as they stand, without their line end; blank ones are skipped.

    Parameters
    ----------
    path : Path or None
        The file; None is standard input.
    key : str or None
        The field that keys the records.
    as_is : bool
        Yield every line, blank and broken ones too; where a line has no key, the key is null.
    """

    def __init__(self, path: Path | None, key: str | None, *, as_is: bool = False) -> None:
        super().__init__(path, key)
        self._as_is = as_is

    def records(self) -> Iterator[Record]:
        """Yield key and value of each event."""
        line_number = 1
        with self._open() as stream:
            for lines in self._blocks(stream):
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
        if "." in key:
            return list(map(self._key_of_line, lines))
        values = [loads(line).get(key) for line in lines]
        return [value.encode() if value.__class__ is str else key_bytes(value) for value in values]

    def _one_by_one(self, lines: list[bytes], line_number: int) -> Iterator[Record]:
        for i, line in enumerate(lines, line_number):
            try:
                yield self._key_of_line(line), line
            except ValueError as error:
                if self._as_is:
                    yield None, line
                elif line.strip():
                    raise DecodeError(f"{self.name}:{i}: {_say(error)}") from None

    def _key_of_line(self, line: bytes) -> bytes | None:
        event = orjson.loads(line)
        if not isinstance(event, dict):
            raise ValueError("no JSON object; NDJSON has one event a line")
        return None if self._key is None else key_of(event, self._key)


def _say(error: ValueError) -> str:
    # orjson counts lines too, and would call this one line 1.
    return f"no JSON: {error.msg} at column {error.colno}" if isinstance(error, orjson.JSONDecodeError) else str(error)


def _split(block: bytes) -> list[bytes]:
    """Return the lines of a block without their ends; after the last end stands the beginning of the next line."""
    if b"\r" not in block:
        return block.split(b"\n")
    *lines, rest = block.split(b"\n")
    return [*(line.removesuffix(b"\r") for line in lines), rest]


def open_events(path: Path | None, form: Format | None, key: str | None, *, as_is: bool = False) -> EventFile:
    """Return a file of events, ready to read.

    Parameters
    ----------
    path : Path or None
        The file; None is standard input.
    form : {"ndjson", "csv", "parquet"} or None
        What it holds; None is what its suffix says.
    key : str or None
        The field that keys the records, as ``source.key`` names it.
    as_is : bool
        For NDJSON: yield broken lines too.

    Raises
    ------
    ConfigError
        There is no such file, or its format cannot be read that way.
    """
    if path is not None:
        _check_is_there(path)
    form = form or format_of(path)
    if form == "ndjson":
        return NdjsonFile(path, key, as_is=as_is)
    if as_is:
        raise ConfigError("--as-is", f"is for lines of NDJSON, not for {form}")
    from modelstream.streams.event_tables import CsvFile, ParquetFile

    reader: Callable[[Path | None, str | None], EventFile] = CsvFile if form == "csv" else ParquetFile
    return reader(path, key)

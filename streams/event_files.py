"""Events of a file as records to produce: see `event_lines`, `event_tables` and `vector_files` for what files hold."""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import stat
import sys
import zlib
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Generic, Literal, TypeVar, cast, get_args

import orjson

from modelstream.models.errors import ConfigError, DecodeError
from modelstream.operators.codecs import Format
from modelstream.operators.f32_format import VectorFormat
from modelstream.operators.paths import Unfit, look_up
from modelstream.streams.formats import SourceFormat, make_format
from modelstream.streams.yaml_file import neighbour_hint

__all__ = ["EventFile", "FileFormat", "KeyWatch", "Record", "format_of", "key_bytes", "key_of", "open_events"]

#: What a file of events holds.
FileFormat = Literal["ndjson", "csv", "parquet", "npy", "f32"]

T = TypeVar("T", bound=tuple[Any, ...])

#: Key and value of a Kafka record.
Record = tuple[bytes | None, bytes]

_SUFFIXES: dict[str, FileFormat] = {
    ".ndjson": "ndjson",
    ".jsonl": "ndjson",
    ".json": "ndjson",
    ".csv": "csv",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".npy": "npy",
    ".f32": "f32",
}

_GZIP_MAGIC = b"\x1f\x8b"


def format_of(path: Path | None) -> FileFormat:
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
        raise ConfigError(
            str(path), f"the name does not tell its format; add --format {'|'.join(get_args(FileFormat))}"
        )
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


class KeyWatch(Generic[T]):
    """Hands records on, and notices where there are none, or none has a key: `source.key` may be misspelt.

    Parameters
    ----------
    records : iterator of tuple
        The records, each with its key first. From the first one with a key on nothing is looked at.

    Examples
    --------
    >>> watch = KeyWatch(iter([(None, b"{}")]))
    >>> list(watch), watch.note("machin", "events.ndjson").partition(",")[0]
    ([(None, b'{}')], "no event has a field 'machin' (source.key)")
    """

    def __init__(self, records: Iterator[T]) -> None:
        self._records = records
        # None before the first record.
        self._has_key: bool | None = None

    def __iter__(self) -> Iterator[T]:
        for record in self._records:
            yield record
            self._has_key = record[0] is not None
            if self._has_key:
                break
        yield from self._records

    def note(self, key: str | None, name: str) -> str | None:
        """Return what to tell of the records of this name, keyed by this field; None where there is nothing."""
        if self._has_key is None:
            return f"{name} holds no events"
        if key is None or self._has_key:
            return None
        return f"no event has a field {key!r} (source.key), so none has a key, and they keep no order among them"


class EventFile(ABC):
    """A file of events, read once, from its start to its end.

    Parameters
    ----------
    path : Path or None
        The file; None is standard input. Compression by gzip is seen by itself.
    key : str or None
        Path of the field that keys the records.
    form : Format
        What records are to hold: the pipeline's format.
    """

    def __init__(self, path: Path | None, key: str | None, form: Format) -> None:
        self.name = "standard input" if path is None else str(path)
        self._path = path
        self._key = key
        self._form = form
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
        raise ConfigError(str(path), f"no such file{neighbour_hint(path)}") from None
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


def open_events(
    path: Path | None,
    file_format: FileFormat | None,
    key: str | None,
    *,
    as_is: bool = False,
    source_format: SourceFormat = "json",
    codes: Collection[str] = (),
) -> EventFile:
    """Return a file of events, ready to read.

    Parameters
    ----------
    path : Path or None
        The file; None is standard input.
    file_format : {"ndjson", "csv", "parquet", "npy", "f32"} or None
        What it holds; None is what its suffix says.
    key : str or None
        Path of the field that keys the records, as ``source.key`` names it.
    as_is : bool
        For NDJSON: yield lines as they stand, broken ones too.
    source_format : str or F32Format
        What records are to hold, as ``source.format`` says.
    codes : collection of str
        Of CSV, the columns whose cells are text although they look like numbers, whole ones aside: keys, ids.

    Raises
    ------
    ConfigError
        There is no such file, or its format cannot be read that way.
    """
    if path is not None:
        _check_is_there(path)
    file_format = file_format or format_of(path)
    if file_format == "ndjson":
        from modelstream.streams.event_lines import NdjsonFile

        return NdjsonFile(path, key, make_format(source_format), as_is=as_is)
    if as_is:
        raise ConfigError("--as-is", f"is for lines of NDJSON, not for {file_format}")
    if file_format in ("npy", "f32"):
        return _open_vectors(path, file_format, source_format)
    from modelstream.streams.event_tables import CsvFile, ParquetFile, plain

    form = make_format(source_format, default=plain)
    return CsvFile(path, key, form, codes) if file_format == "csv" else ParquetFile(path, key, form)


def _open_vectors(path: Path | None, file_format: FileFormat, source_format: SourceFormat) -> EventFile:
    from modelstream.streams.vector_files import VectorFile

    form = make_format(source_format)
    if not isinstance(form, VectorFormat):
        raise ConfigError(
            str(path or "-"), "holds vectors, and the pipeline's events do not; it needs format: {f32: N}"
        )
    return VectorFile(path, form, has_header=file_format == "npy")

"""Records of a topic in a Parquet file, every byte of them, and out of it again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from modelstream.models.errors import ConfigError, DecodeError
from modelstream.streams.event_tables import CAPTURE_MARK
from modelstream.streams.headers import Headers
from modelstream.streams.replay.recorded import RecordedBatch
from modelstream.streams.whole_file import whole_or_nothing

__all__ = ["CAPTURE_SUFFIXES", "CaptureFile", "CaptureSummary", "is_capture", "write_capture"]

#: Of files that `write_capture` writes; others are not looked into.
CAPTURE_SUFFIXES = (".parquet", ".pq")

#: In which version of its form a file is, under `CAPTURE_MARK`.
_VERSION = b"1"
_TOPIC = b"modelstream.topic"

#: Limits of one row group, which is in memory as a whole: readers skip or read it as one.
_GROUP_ROWS = 128 * 1024
_GROUP_BYTES = 64 * 1024 * 1024
#: Rows of a captured file that are Python objects at one time.
_READ_ROWS = 8192


@dataclass(frozen=True, slots=True)
class CaptureSummary:
    """What went into a file.

    Parameters
    ----------
    n_records : int
        How many.
    first_ms, last_ms : int or None
        The earliest and the latest timestamp, in milliseconds since 1970; None where there is no record.
    n_bytes : int
        Size of the file.
    """

    n_records: int
    first_ms: int | None
    last_ms: int | None
    n_bytes: int


def write_capture(
    path: Path,
    topic: str,
    batches: Iterable[RecordedBatch],
    on_progress: Callable[[int], None] = lambda n_records: None,
) -> CaptureSummary:
    """Write records to a Parquet file, as they come.

    The columns are ``topic``, ``partition``, ``offset``, ``timestamp``, ``key``, ``value`` and ``headers``. The file
    has its name once it is whole; until then it is ``NAME.part``, which is removed where an error or Ctrl-C ends it.

    Parameters
    ----------
    path : Path
        The file; one that is there is replaced.
    topic : str
        Where the records stood.
    batches : iterable of RecordedBatch
        The records; only some row groups of them are ever in memory.
    on_progress : callable
        Gets the number of records so far.

    Raises
    ------
    ConfigError
        The file cannot be written, or pyarrow is not installed.
    """
    arrow = _pyarrow(path)
    schema = _schema(arrow, topic)
    n_records, times_ms = 0, []
    try:
        with whole_or_nothing(path) as part, arrow.parquet.ParquetWriter(part, schema, compression="zstd") as writer:
            for group in _groups(batches):
                writer.write_table(
                    arrow.Table.from_batches([_to_arrow(arrow, one, schema) for one in group]), _GROUP_ROWS
                )
                n_records += sum(map(len, group))
                times_ms += [time for one in group for time in (one.timestamps_ms.min(), one.timestamps_ms.max())]
                times_ms = [min(times_ms), max(times_ms)]
                on_progress(n_records)
    except OSError as error:
        raise ConfigError(str(path), f"cannot be written: {error.strerror or error}") from None
    first_ms, last_ms = map(int, times_ms) if times_ms else (None, None)
    return CaptureSummary(n_records, first_ms, last_ms, path.stat().st_size)


def _groups(batches: Iterable[RecordedBatch]) -> Iterator[list[RecordedBatch]]:
    group: list[RecordedBatch] = []
    n_rows = n_bytes = 0
    for batch in batches:
        group.append(batch)
        n_rows += len(batch)
        n_bytes += sum(map(len, filter(None, batch.values)))
        if n_rows >= _GROUP_ROWS or n_bytes >= _GROUP_BYTES:
            yield group
            group, n_rows, n_bytes = [], 0, 0
    if group:
        yield group


def _schema(arrow: Any, topic: str) -> Any:
    header = arrow.struct([arrow.field("name", arrow.string(), nullable=False), ("value", arrow.binary())])
    fields = [
        arrow.field("topic", arrow.dictionary(arrow.int32(), arrow.string()), nullable=False),
        arrow.field("partition", arrow.int32(), nullable=False),
        arrow.field("offset", arrow.int64(), nullable=False),
        arrow.field("timestamp", arrow.timestamp("ms", "UTC"), nullable=False),
        arrow.field("key", arrow.binary()),
        arrow.field("value", arrow.binary()),
        arrow.field("headers", arrow.list_(header)),
    ]
    return arrow.schema(fields, {CAPTURE_MARK: _VERSION, _TOPIC: topic.encode()})


def _to_arrow(arrow: Any, batch: RecordedBatch, schema: Any) -> Any:
    topics = arrow.DictionaryArray.from_arrays(np.zeros(len(batch), np.int32), [batch.topic])
    columns = [topics, batch.partitions, batch.offsets, batch.timestamps_ms, batch.keys, batch.values, batch.headers]
    typed = [
        column if field.name == "topic" else arrow.array(column, field.type)
        for column, field in zip(columns, schema, strict=True)
    ]
    return arrow.RecordBatch.from_arrays(typed, schema=schema)


def is_capture(path: Path) -> bool:
    """Say whether a file is one that `write_capture` wrote.

    Only the suffix ``.parquet`` or ``.pq`` makes it look into the file. Without pyarrow, nothing is known of it.
    """
    if path.suffix.lower() not in CAPTURE_SUFFIXES:
        return False
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        return False
    try:
        return CAPTURE_MARK in (pyarrow.parquet.read_schema(path).metadata or {})
    except (OSError, pyarrow.ArrowException):
        return False  # whoever reads it says what is wrong


class CaptureFile:
    """Captured records, read again as often as one likes.

    Parameters
    ----------
    path : Path
        The file.

    Raises
    ------
    ConfigError
        It cannot be read, or holds something else.

    Attributes
    ----------
    name : str
        The file, for messages.
    topic : str
        Where the records stood.
    n_records : int
        How many there are.
    """

    def __init__(self, path: Path) -> None:
        self._arrow = _pyarrow(path)
        self._path, self.name = path, str(path)
        self._n_read = 0
        with self._open() as file:
            said = file.schema_arrow.metadata or {}
            self.n_records: int = file.metadata.num_rows
        if CAPTURE_MARK not in said:
            raise ConfigError(str(path), "holds no captured records; `modelstream replay --capture` writes such files")
        if (version := said[CAPTURE_MARK]) != _VERSION:
            raise ConfigError(
                str(path),
                f"was written by a newer modelstream (form {version.decode()}); this one reads {_VERSION.decode()}",
            )
        self.topic: str = said[_TOPIC].decode()

    def records(self) -> Iterator[tuple[bytes | None, bytes | None, int]]:
        """Yield key, value and timestamp (milliseconds since 1970) of each record, in the order of the file."""
        for batch in self.batches():
            self._n_read += len(batch)
            yield from zip(batch.keys, batch.values, batch.timestamps_ms.tolist(), strict=True)

    def share_read(self) -> float | None:
        """Return how much of the file `records` has read, from 0 to 1; None where there is nothing to read."""
        return self._n_read / self.n_records if self.n_records else None

    def batches(self) -> Iterator[RecordedBatch]:
        """Yield the records in the order of the file.

        Raises
        ------
        DecodeError
            The file is broken; all before that has been yielded.
        """
        with self._open() as file:
            try:
                for batch in file.iter_batches(_READ_ROWS):
                    yield self._from_arrow(batch)
            except (OSError, self._arrow.ArrowException) as error:
                raise DecodeError(f"{self._path}: {str(error).splitlines()[0]}") from None

    def _from_arrow(self, batch: Any) -> RecordedBatch:
        def column(name: str) -> Any:
            return batch.column(name)

        return RecordedBatch(
            topic=self.topic,
            partitions=column("partition").to_numpy(),
            offsets=column("offset").to_numpy(),
            timestamps_ms=column("timestamp").cast(self._arrow.int64()).to_numpy(),
            keys=column("key").to_pylist(),
            values=column("value").to_pylist(),
            headers=_headers(column("headers")),
        )

    @contextmanager
    def _open(self) -> Iterator[Any]:
        try:
            file = self._arrow.parquet.ParquetFile(self._path)
        except (OSError, self._arrow.ArrowException) as error:
            raise ConfigError(str(self._path), f"cannot be read: {str(error).splitlines()[0]}") from None
        with file:
            yield file


def _headers(column: Any) -> list[Headers | None]:
    if column.null_count == len(column):
        return [None] * len(column)
    rows = column.to_pylist()
    return [None if row is None else [(header["name"], header["value"]) for header in row] for row in rows]


def _pyarrow(path: Path) -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise ConfigError(str(path), "Parquet needs pyarrow: pip install 'modelstream[parquet]'") from None
    return pyarrow

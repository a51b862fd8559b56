"""Events of tables as records to produce: each row of a CSV or Parquet file becomes one event."""

from __future__ import annotations

import base64
import csv
import io
import math
import re
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from decimal import Decimal
from functools import lru_cache
from pathlib import Path
from typing import Any

from modelstream.models.errors import ConfigError, DecodeError
from modelstream.operators.codecs import Format
from modelstream.streams.event_files import EventFile, Record, key_of

__all__ = ["CAPTURE_MARK", "CsvFile", "ParquetFile", "infer_cell", "infer_code", "plain"]

#: Key of the schema's metadata of a Parquet file whose rows are records of Kafka, and so no events.
CAPTURE_MARK = b"modelstream.capture"

# As JSON writes numbers: with a leading zero or a plus it is a code, such as 007, and stays text.
_INTEGER = re.compile(r"-?(0|[1-9][0-9]*)")
_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")

#: Integers beyond 64 bits are no JSON numbers that anybody reads exactly.
_INT64 = range(-(2**63), 2**63)

#: Rows of a Parquet file that are Python objects at one time.
_PARQUET_ROWS = 2048


# Cells repeat: airports, hours, small numbers. A hit costs a fifth of the inference.
@lru_cache(maxsize=65_536)
def infer_cell(text: str) -> str | int | float | bool | None:
    """Return what a cell of a CSV file says, by itself and not by its column.

    Empty is null; ``true`` and ``false``, in any case, are booleans; what JSON would call a number is one. All else is
    text, as is a number with leading zeros, such as a postcode, and one that does not fit into 64 bits.

    Examples
    --------
    >>> [infer_cell(text) for text in ("", "12", "-1.5e3", "007", "True", "NA")]
    [None, 12, -1500.0, '007', True, 'NA']
    """
    if not text:
        return None
    # 20 characters hold every integer of 64 bits; of thousands of digits int() would refuse to make a number.
    if _INTEGER.fullmatch(text):
        return int(text) if len(text) <= 20 and int(text) in _INT64 else text
    if _NUMBER.fullmatch(text):
        number = float(text)
        return number if math.isfinite(number) else text
    lowered = text.lower()
    return lowered == "true" if lowered in ("true", "false") else text


def infer_code(text: str) -> str | int | None:
    """Return what a cell of a CSV file says in a column of codes, such as keys: text, but for whole numbers.

    Examples
    --------
    >>> [infer_code(text) for text in ("", "12", "12e3", "1.50", "true")]
    [None, 12, '12e3', '1.50', 'true']
    """
    found = infer_cell(text)
    return found if found is None or type(found) is int else text


class CsvFile(EventFile):
    """Comma-separated values in UTF-8, with the fields' names in the first line; cells as `infer_cell` reads them.

    Parameters
    ----------
    path, key, form
        As for `EventFile`.
    codes : collection of str
        Columns that are read as `infer_code` does: what looks like a number there is none.
    """

    def __init__(self, path: Path | None, key: str | None, form: Format, codes: Collection[str] = ()) -> None:
        super().__init__(path, key, form)
        self._codes = codes

    def records(self) -> Iterator[Record]:
        """Yield key and value of each event."""
        with self._open() as stream:
            # Bytes that are not UTF-8 become surrogates, which no format writes: so the error can name the line.
            text = io.TextIOWrapper(stream, "utf-8-sig", "surrogateescape", newline="")
            rows = csv.reader(text, strict=True)
            try:
                yield from self._rows(rows)
            except csv.Error as error:
                raise DecodeError(f"{self.name}:{rows.line_num}: {error}") from None
            finally:
                text.detach()  # the stream is not ours to close

    def _rows(self, rows: Any) -> Iterator[Record]:
        names = next(rows, None)
        if names is None:
            return
        if len(set(names)) < len(names) or "" in names:
            raise DecodeError(f"{self.name}:1: the first line must name each column, and no two of them the same")
        codes = [i for i, name in enumerate(names) if name in self._codes]
        for row in rows:
            if not row:  # a blank line
                continue
            if len(row) != len(names):
                raise DecodeError(f"{self.name}:{rows.line_num}: {len(row)} cells for {len(names)} columns")
            event = dict(zip(names, map(infer_cell, row), strict=True))
            for i in codes:
                event[names[i]] = infer_code(row[i])
            try:
                yield None if self._key is None else key_of(event, self._key), self._form.write(event)
            except (TypeError, ValueError) as error:
                problem = "not UTF-8" if "surrogates" in str(error) else str(error)
                raise DecodeError(f"{self.name}:{rows.line_num}: {problem}") from None


class ParquetFile(EventFile):
    """Rows of a Parquet file. Times become ISO 8601 in UTC, decimals numbers, NaN null.

    Bytes stay bytes where records can hold them; in JSON they become text, or else base64.
    """

    def __init__(self, path: Path | None, key: str | None, form: Format) -> None:
        super().__init__(path, key, form)
        if path is None:
            raise ConfigError("FILE", "Parquet cannot be read from standard input; name the file")
        self._pyarrow = _pyarrow(self.name)
        self._n_rows = 0
        self._n_read = 0

    def share_read(self) -> float | None:
        """Return how much of the file has been read, from 0 to 1."""
        return self._n_read / self._n_rows if self._n_rows else None

    def records(self) -> Iterator[Record]:
        """Yield key and value of each event."""
        with self._open() as stream, self._arrow_errors():
            file = self._pyarrow.parquet.ParquetFile(stream)
            if CAPTURE_MARK in (file.schema_arrow.metadata or {}):
                raise ConfigError(
                    self.name,
                    "holds captured records, not events; `modelstream replay` and `batch` take them",
                )
            self._n_rows = file.metadata.num_rows
            for batch in file.iter_batches(_PARQUET_ROWS):
                # A column at a time, which takes a tenth of what `batch.to_pylist` does.
                columns = [_as_list(self._pyarrow, column) for column in batch.columns]
                names = batch.schema.names
                yield from self._rows(dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True))

    def _rows(self, rows: Iterable[dict[str, Any]]) -> Iterator[Record]:
        for event in rows:
            self._n_read += 1
            try:
                value = self._form.write(event)
            except (TypeError, ValueError) as error:
                name = self._form.name
                raise DecodeError(f"{self.name}: row {self._n_read} cannot be written as {name}: {error}") from None
            yield None if self._key is None else self._key_of(event, value), value

    def _key_of(self, event: dict[str, Any], value: bytes) -> bytes | None:
        assert self._key is not None
        if not isinstance(event.get(self._key), str | int | float):
            # The key as the record says it, so that a time is one text everywhere.
            [event], _ = self._form.read([value], {})
        return key_of(event, self._key)

    @contextmanager
    def _arrow_errors(self) -> Iterator[None]:
        try:
            yield
        except (self._pyarrow.ArrowException, KeyError, ValueError) as error:
            where = f": after row {self._n_read}" if self._n_rows else ""
            raise DecodeError(f"{self.name}{where}: {str(error).splitlines()[0]}") from None


def _pyarrow(name: str) -> Any:
    try:
        import pyarrow
        import pyarrow.compute
        import pyarrow.parquet
    except ImportError:
        raise ConfigError(name, "reading Parquet needs pyarrow: pip install 'modelstream[parquet]'") from None
    return pyarrow


def _as_list(pyarrow: Any, column: Any) -> list[Any]:
    if pyarrow.types.is_timestamp(column.type):
        # Text from Arrow: Python's times are slower by much, and have no nanoseconds. Without a zone it is UTC.
        unit = "us" if column.type.unit == "ns" else column.type.unit
        column = pyarrow.compute.strftime(column.cast(pyarrow.timestamp(unit, "UTC"), safe=False), "%Y-%m-%dT%H:%M:%SZ")
    elif pyarrow.types.is_floating(column.type):
        # Not every format has NaN, and to none of them it means that the value is missing.
        column = pyarrow.compute.if_else(pyarrow.compute.is_nan(column), None, column)
    values: list[Any] = column.to_pylist(maps_as_pydicts="strict")
    return values


def plain(value: object) -> object:
    """Return as JSON's types what a table holds and a format does not know."""
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return base64.b64encode(value).decode()
    raise TypeError(f"{type(value).__name__} is not JSON")

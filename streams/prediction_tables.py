"""Predictions as tables: the record as it is, and its parts in columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO

import numpy as np

from modelstream.models.contract import Column
from modelstream.models.errors import ConfigError, ModelStreamError
from modelstream.operators.answers import OutputSchema
from modelstream.streams.prediction_files import PredictionWriter

__all__ = ["ParquetWriter"]

#: Rows of a row group: some 15 MB of JSON.
_GROUP_ROWS = 65_536
#: Arrow parses so many bytes at once on each thread.
_BLOCK_BYTES = 4 * 1024 * 1024


class ParquetWriter(PredictionWriter):
    """A Parquet file with a row for each prediction.

    ``value`` is the record as the stream has it; ``id``, ``event_id``, ``key`` and ``event_time`` (in UTC) are what
    stands in it; and each field of each answer is a column ``ANSWER.FIELD``, with ``ANSWER.version``, null where a
    model was not asked. Numbers have the type that the model gives them.

    Parameters
    ----------
    stream : BinaryIO
        Where to.
    answers : mapping of str to OutputSchema
        What the predictions say. How a field looks that nobody knows before is told by the first rows.
    """

    def __init__(self, stream: BinaryIO, answers: Mapping[str, OutputSchema]) -> None:
        self._pyarrow = pa = _pyarrow()
        self._stream = stream
        self._fields = {name: dict(schema.fields) for name, schema in answers.items()}
        texts = [(name, pa.string()) for name in ("id", "event_id", "key")]
        self._own = pa.schema([*texts, ("event_time", pa.timestamp("us", "UTC"))])
        self._waiting: list[str] = []
        self._schema: Any = None
        self._writer: Any = None

    def write(self, values: Sequence[str]) -> None:
        """Write some records."""
        self._waiting += values
        if len(self._waiting) >= _GROUP_ROWS:
            self._write_group()

    def close(self) -> None:
        """Write what is held back."""
        if self._waiting or self._writer is None:
            self._write_group()
        self._writer.close()

    def abandon(self) -> None:
        """Close the file below, which would otherwise complain when it is freed: its stream is closed by then."""
        if self._writer is not None:
            self._writer.close()

    def _write_group(self) -> None:
        values, self._waiting = self._waiting, []
        text = "\n".join(values).encode()
        if self._schema is None:
            self._schema = self._find_schema(text)
        table = self._flat(self._parse(text, self._schema), values)
        if self._writer is None:
            self._writer = self._pyarrow.parquet.ParquetWriter(self._stream, table.schema, compression="zstd")
        self._writer.write_table(table, row_group_size=_GROUP_ROWS)

    def _parse(self, text: bytes, schema: Any = None) -> Any:
        pa = self._pyarrow
        if not text:
            return (schema or pa.schema([])).empty_table()
        options = pa.json.ParseOptions(
            explicit_schema=schema, unexpected_field_behavior="ignore" if schema else "infer"
        )
        # A block must hold a whole record.
        longest = max(map(len, text.split(b"\n"))) + 2 if len(text) > _BLOCK_BYTES else len(text) + 1
        reading = pa.json.ReadOptions(block_size=max(_BLOCK_BYTES, longest))
        try:
            return pa.json.read_json(pa.BufferReader(text), reading, options)
        except pa.ArrowInvalid as error:
            raise ModelStreamError(
                f"predictions do not fit into columns: {str(error).splitlines()[0]}; write them as .ndjson"
            ) from None

    def _find_schema(self, text: bytes) -> Any:
        """Return how records look: as the models say, and for the rest as the first records do."""
        pa = self._pyarrow
        found: dict[str, dict[str, Any]] = {}
        if any(column is None for fields in self._fields.values() for column in fields.values()) or not self._fields:
            seen = self._parse(text).schema
            if "predictions" in seen.names:
                found = {
                    one.name: {part.name: part.type for part in one.type} for one in seen.field("predictions").type
                }
        answers = []
        for name in [*self._fields, *(name for name in found if name not in self._fields)]:
            types = {"version": pa.string(), **found.get(name, {})}
            types |= {
                field: _type(pa, column)
                for field, column in self._fields.get(name, {}).items()
                if column is not None or types.get(field, pa.null()) == pa.null()
            }
            answers.append((name, pa.struct([(field, _no_null(pa, one)) for field, one in types.items()])))
        return self._own.append(pa.field("predictions", pa.struct(answers)))

    def _flat(self, table: Any, values: Sequence[str]) -> Any:
        pa = self._pyarrow
        columns: dict[str, Any] = {name: table.column(name) for name in self._own.names}
        predictions = table.column("predictions")
        for answer in predictions.type:
            for field in answer.type:
                columns[f"{answer.name}.{field.name}"] = pa.compute.struct_field(predictions, [answer.name, field.name])
        return pa.table({**columns, "value": pa.array(values, pa.string())})


def _type(pa: Any, column: Column | None) -> Any:
    """Return the type of a column of no rows, as its numbers stand in JSON."""
    if column is None:
        return pa.float64()
    if not isinstance(column, np.ndarray) or column.dtype == object:
        return pa.string()
    one = pa.from_numpy_dtype(column.dtype) if column.dtype != np.float16 else pa.float32()
    for _ in column.shape[1:]:
        one = pa.list_(one)
    return one


def _no_null(pa: Any, one: Any) -> Any:
    return pa.float64() if one == pa.null() else one


def _pyarrow() -> Any:
    try:
        import pyarrow
        import pyarrow.compute
        import pyarrow.json
        import pyarrow.parquet
    except ImportError:
        raise ConfigError("OUT", "writing Parquet needs pyarrow: pip install 'modelstream[parquet]'") from None
    return pyarrow

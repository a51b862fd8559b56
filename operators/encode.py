"""Predictions into records: one JSON document a row, put together from columns of text."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from functools import lru_cache
from itertools import repeat
from typing import Any

import numpy as np
import orjson
import xxhash
from numpy.typing import NDArray

from modelstream.operators.batch import Column, EventBatch, ModelOutput
from modelstream.operators.times import format_times

__all__ = ["PredictionEncoder", "event_id_bytes"]

#: A piece of every document: the same text in all of them, or one text for each.
_Piece = str | list[str]


class PredictionEncoder:
    r"""Encodes predictions as JSON.

    ::

        {"id": …, "event_id": …, "key": …, "event_time": …,
         "predictions": {"arrival_delay": {"version": "1", "value": 12.3}, …}}

    ``id`` is the 128-bit XXH3 of the event id, seeded with the 64-bit XXH3 of `seed_text`, in 32 hexadecimal digits.
    ``key`` is the record's key as text; a key that is no UTF-8 is null there, and stands in a further field
    ``key_base64`` right after it. ``event_time`` is ISO-8601 in UTC. Numbers have the fewest digits that give the same
    float32 or float64 again; what is not finite is null. A model that was not asked about a row has no entry for it.
    A document depends on its row alone, not on the batch around it: an event that is
    delivered again gives the same bytes.

    Parameters
    ----------
    seed_text : str
        What the predictions come from: pipeline, stages, model versions.

    Examples
    --------
    >>> from modelstream.operators.batch import ModelOutput
    >>> batch = EventBatch.of_events([{}])
    >>> batch.outputs["delay"] = ModelOutput("1", {"value": np.array([12.3], np.float32)})
    >>> PredictionEncoder("flights delay delay@1").encode(batch)[0][41:]
    '"event_id":"0","key":null,"event_time":"1970-01-01T00:00:00Z","predictions":{"delay":{"version":"1","value":12.3}}}'
    """

    def __init__(self, seed_text: str) -> None:
        self._seed = xxhash.xxh3_64_intdigest(seed_text.encode())

    def encode(self, batch: EventBatch) -> list[str]:
        """Return one document for each row.

        Parameters
        ----------
        batch : EventBatch
            Rows, all of them kept, with the outputs of the models.
        """
        if not len(batch):
            return []
        hashes = list(map(xxhash.xxh3_128_hexdigest, map(str.encode, batch.ids), repeat(self._seed)))
        return _rows(
            [
                '{"id":"',
                hashes,
                '","event_id":',
                *_strings(batch.ids),
                *_keys(batch.keys),
                ',"event_time":"',
                format_times(batch.event_times),
                '","predictions":{',
                *_predictions(batch),
                "}}",
            ],
            len(batch),
        )


#: Where the event id begins: behind 32 hexadecimal digits.
_EVENT_ID_AT = len('{"id":"","event_id":') + 32


def event_id_bytes(document: bytes) -> bytes:
    """Return the event id of a document that `PredictionEncoder` has written, as the JSON text that it is there.

    Nothing is parsed: this is for who looks at every document. A text in JSON cannot hold what ends it here.

    Examples
    --------
    >>> event_id_bytes(PredictionEncoder("seed").encode(EventBatch.of_events([{}]))[0].encode())
    b'"0"'
    """
    return document[_EVENT_ID_AT : document.find(b',"key":', _EVENT_ID_AT)]


def _rows(pieces: Iterable[_Piece], n_rows: int) -> list[str]:
    merged: list[_Piece] = []
    for piece in pieces:
        if merged and isinstance(piece, str) and isinstance(merged[-1], str):
            merged[-1] += piece
        else:
            merged.append(piece)
    # The whole loop over the rows runs in C.
    columns = [repeat(piece, n_rows) if isinstance(piece, str) else piece for piece in merged]
    return list(map("".join, zip(*columns, strict=True)))


def _predictions(batch: EventBatch) -> Iterable[_Piece]:
    before: NDArray[np.bool_] | bool = False  # which rows have an entry already, so that a comma must follow it
    for name, output in batch.outputs.items():
        answered = output.answered
        if answered is None or answered.all():
            yield _commas(before)
            yield from _entry(name, output)
            before = True
        elif answered.any():
            yield _commas(before & answered)
            texts = _rows(_entry(name, output.select(answered)), n_answered := int(answered.sum()))
            cells = np.full(len(batch), "", object)
            cells[answered] = np.fromiter(texts, object, n_answered)
            yield cells.tolist()
            before = before | answered


def _commas(where: NDArray[np.bool_] | bool) -> _Piece:
    if isinstance(where, bool):
        return "," if where else ""
    commas: list[str] = np.where(where, ",", "").tolist()
    return commas


def _entry(name: str, output: ModelOutput) -> Iterable[_Piece]:
    if isinstance(output.version, str):
        yield f'{_name(name)}:{{"version":{_name(output.version)}'
    else:
        yield f'{_name(name)}:{{"version":'
        yield from _strings(output.version)
    for field, column in output.fields.items():
        yield f",{_name(field)}:"
        yield from _column(column)
    yield "}"


def _keys(keys: list[bytes | None]) -> list[_Piece]:
    if keys[0] is None and keys.count(None) == len(keys):
        return [',"key":null']
    try:
        joined = b"\n".join(keys).decode()  # type: ignore[arg-type]
    except (TypeError, UnicodeDecodeError):
        return [list(map(_key, keys))]
    if _is_plain(joined, len(keys)):
        return [',"key":"', joined.split("\n"), '"']
    return [list(map(_key, keys))]


def _key(key: bytes | None) -> str:
    if key is None:
        return ',"key":null'
    try:
        return f',"key":{_string(key.decode())}'
    except UnicodeDecodeError:
        return f',"key":null,"key_base64":"{base64.b64encode(key).decode()}"'


def _column(column: Column) -> list[_Piece]:
    if isinstance(column, np.ndarray) and column.dtype.kind in "biuf":
        return _numbers(np.ascontiguousarray(column))
    values: list[Any] = column if isinstance(column, list) else column.tolist()
    try:
        return _strings(values)
    except TypeError:  # not text only
        return [[orjson.dumps(value).decode() for value in values]]


def _numbers(column: NDArray[Any]) -> list[_Piece]:
    if column.ndim > 2:
        return [[orjson.dumps(row, option=orjson.OPT_SERIALIZE_NUMPY).decode() for row in column]]
    text = orjson.dumps(column, option=orjson.OPT_SERIALIZE_NUMPY).decode()
    if column.ndim == 2:
        return ["[", text[2:-2].split("],["), "]"]
    return [text[1:-1].split(",")]


def _strings(texts: list[str]) -> list[_Piece]:
    if _is_plain("\n".join(texts), len(texts)):
        return ['"', texts, '"']
    return [list(map(_string, texts))]


def _is_plain(joined: str, n_texts: int) -> bool:
    """Return whether texts, joined by line feeds, stand in JSON as they are: only the line feeds grew, by one each."""
    n_bytes = len(joined) if joined.isascii() else len(joined.encode())
    return len(orjson.dumps(joined)) == n_bytes + n_texts + 1


def _string(text: str) -> str:
    return orjson.dumps(text).decode()


#: For the names that stand in every document: of models, versions and fields.
_name = lru_cache(maxsize=1024)(_string)

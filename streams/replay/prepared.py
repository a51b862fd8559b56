"""Events made ready for a replay: records in files that the generator maps, and of each event what the measuring needs.

All that takes time is done before the start: reading the file, ids, times, partitions. Records stay on disk, so that
a file may be larger than the memory; in memory are some 30 bytes an event.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache
from itertools import count, islice
from pathlib import Path
from typing import TypeVar

import numpy as np
import ormsgpack
from aiokafka.partitioner import murmur2
from numpy.typing import NDArray

from modelstream.models.errors import ConfigError
from modelstream.operators.codecs import Codec
from modelstream.streams.event_files import Record
from modelstream.streams.formats import make_codec
from modelstream.streams.headers import Headers
from modelstream.streams.replay.matching import hash_ids
from modelstream.streams.spec import SourceSpec
from modelstream.streams.wording import counted

__all__ = ["HEADERS", "KEYS", "RECORDS", "VALUES", "PreparedEvents", "TimedRecord", "prepare", "without_times"]

T = TypeVar("T")

#: Key, value, and timestamp in milliseconds since 1970, -1 where it has none; of recorded ones their headers too.
TimedRecord = tuple[bytes | None, bytes | None, int] | tuple[bytes | None, bytes | None, int, Headers | None]

#: Files of the folder: all values, all keys, all headers in MessagePack, and lengths (-1 for null) and partition of
#: each record.
VALUES, KEYS, HEADERS, RECORDS = "values", "keys", "headers", "records.npy"
_RECORD = np.dtype([("n_value", np.int64), ("n_key", np.int64), ("n_headers", np.int64), ("partition", np.int32)])

#: Records that are decoded together.
_CHUNK = 4096

_murmur2 = lru_cache(maxsize=100_000)(murmur2)


@dataclass(frozen=True, slots=True)
class PreparedEvents:
    """The events of a replay, in the order in which they are sent.

    Parameters
    ----------
    folder : Path
        Where the records lie.
    partitions : ndarray of int32, shape (n_events,)
        Where each goes.
    id_hashes : ndarray of uint64, shape (n_events,), or None
        Hashes of their ids; None where an event's id is its place in Kafka.
    times_ms : ndarray of int64, shape (n_events,)
        Event times in milliseconds since 1970; of an unreadable event that of the one before.
    """

    folder: Path
    partitions: NDArray[np.int32]
    id_hashes: NDArray[np.uint64] | None
    times_ms: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.partitions)

    def cycled(self, n_events: int) -> PreparedEvents:
        """Return so many of them: the first ones, or, where there are fewer, all over and over."""
        return PreparedEvents(
            self.folder,
            np.resize(self.partitions, n_events),
            None if self.id_hashes is None else np.resize(self.id_hashes, n_events),
            np.resize(self.times_ms, n_events),
        )

    def position_of(self, partition: int, nth: int) -> int | None:
        """Return the position of the event that is, counted from 0, the nth of its partition; None if there is none."""
        rows = np.flatnonzero(self.partitions == partition)
        return int(rows[nth]) if 0 <= nth < len(rows) else None

    def hashes_at(self, topic: str, first_offsets: NDArray[np.int64]) -> NDArray[np.uint64]:
        """Return the hashes of the events' ids, where the first one of a partition will stand at an offset.

        Parameters
        ----------
        topic : str
            The topic that they will be sent to, by nobody else.
        first_offsets : ndarray of int64, shape (n_partitions,)
            Where each partition ends now.
        """
        if self.id_hashes is not None:
            return self.id_hashes
        counters = [count(first) for first in first_offsets.tolist()]
        return hash_ids(f"{topic}/{p}/{next(counters[p])}" for p in self.partitions.tolist())


def without_times(records: Iterable[Record]) -> Iterator[TimedRecord]:
    """Return records of a file, which have no timestamps."""
    return ((key, value, -1) for key, value in records)


def prepare(
    records: Iterable[TimedRecord],
    source: SourceSpec,
    n_partitions: int,
    folder: Path,
    *,
    limit: int | None = None,
    needs_times: bool = False,
    on_progress: Callable[[int], None] = lambda n_events: None,
) -> PreparedEvents:
    """Write records into a folder, and return what there is to know of their events.

    A key has the partition that Java's clients give it. Events without a key go to the partitions in turn.

    Parameters
    ----------
    records : iterable of TimedRecord
        Key, value and timestamp of each record, and its headers where they are kept.
    source : SourceSpec
        How the pipeline reads events.
    n_partitions : int
        Of the topic that they are to be sent to.
    folder : Path
        Where the files go; it exists.
    limit : int, optional
        Take no more than so many.
    needs_times : bool
        Whether the pace goes by the events' times.
    on_progress : callable
        Gets the number of records now and then.

    Raises
    ------
    ConfigError
        There are no events, or none has the time that is needed.
    """
    codec = make_codec(source)
    parts: list[tuple[NDArray[np.void], NDArray[np.uint64], NDArray[np.int64]]] = []
    n_events = 0
    for part in _written(islice(records, limit), codec, n_partitions, folder):
        parts.append(part)
        n_events += len(part[0])
        on_progress(n_events)
    if not n_events:
        raise ConfigError("", "there are no events to replay")
    table, id_hashes, times_ms = map(np.concatenate, zip(*parts, strict=True))
    if needs_times and (times_ms == _NO_TIME).all():
        raise ConfigError(
            "source.event_time",
            f"none of {counted(n_events, 'event')} can be read with a time in {source.event_time!r}, and the pace goes "
            "by it; name the field that has it, or use --speed max, or --rate N/s",
        )
    np.save(folder / RECORDS, table)
    return PreparedEvents(
        folder,
        np.ascontiguousarray(table["partition"]),
        None if codec.event_id is None else id_hashes,
        _without_gaps(times_ms),
    )


def _written(
    records: Iterable[TimedRecord], codec: Codec, n_partitions: int, folder: Path
) -> Iterator[tuple[NDArray[np.void], NDArray[np.uint64], NDArray[np.int64]]]:
    """Write records into a folder, and yield of each chunk how it is laid out, hashes of its ids, and its times."""
    n_before = 0
    with ExitStack() as stack:
        files = [stack.enter_context((folder / name).open("wb")) for name in (VALUES, KEYS, HEADERS)]
        for chunk in _chunks(records):
            keys, values, stamps_ms, *rest = map(list, zip(*chunk, strict=True))
            headers: list[bytes | None] = list(map(_packed, rest[0])) if rest else [None] * len(keys)
            for file, cells in zip(files, (values, keys, headers), strict=True):
                file.write(b"".join(filter(None, cells)))
            ids, times_ms = _ids_and_times(codec, keys, values, stamps_ms)
            hashes = hash_ids([] if codec.event_id is None else ids)
            yield _laid_out(keys, values, headers, n_partitions, n_before), hashes, times_ms
            n_before += len(chunk)


def _chunks(items: Iterable[T]) -> Iterator[list[T]]:
    rest = iter(items)
    while chunk := list(islice(rest, _CHUNK)):
        yield chunk


def _packed(headers: Headers | None) -> bytes | None:
    return ormsgpack.packb(headers) if headers else None


def _laid_out(
    keys: list[bytes | None],
    values: list[bytes | None],
    headers: list[bytes | None],
    n_partitions: int,
    n_before: int,
) -> NDArray[np.void]:
    table = np.empty(len(keys), _RECORD)
    for name, cells in (("n_value", values), ("n_key", keys), ("n_headers", headers)):
        table[name] = [-1 if cell is None else len(cell) for cell in cells]
    table["partition"] = [
        (n_before + row if key is None else _murmur2(key) & 0x7FFFFFFF) % n_partitions for row, key in enumerate(keys)
    ]
    return table


#: The time of an event that cannot be read.
_NO_TIME = np.iinfo(np.int64).min


def _ids_and_times(
    codec: Codec, keys: list[bytes | None], values: list[bytes | None], stamps_ms: list[int]
) -> tuple[list[str], NDArray[np.int64]]:
    batch = codec.decode(values, keys, stamps_ms)
    times_ms = batch.event_times.astype("datetime64[ms]").view(np.int64).copy()
    for row in batch.faults:
        times_ms[row] = _NO_TIME
    return batch.ids, times_ms


def _without_gaps(times_ms: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return times where each that is missing is that of the event before it, or for the first ones the next."""
    rows = np.flatnonzero(times_ms != _NO_TIME)
    if not len(rows):
        return np.zeros_like(times_ms)
    before = np.searchsorted(rows, np.arange(len(times_ms)), "right") - 1
    filled: NDArray[np.int64] = times_ms[rows[np.maximum(before, 0)]]
    return filled

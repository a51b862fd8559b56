"""Raw records of one partition, as one fetch brought them; nothing outside `streams` sees them."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter

import numpy as np
from confluent_kafka import Message
from faust.types import TP
from numpy.typing import NDArray

from modelstream.streams.headers import FIRST_TIMESTAMP, ORIGIN, Headers, as_count, n_header_bytes, read_headers
from modelstream.streams.ledger import Ticket

__all__ = ["RecordBatch", "SourceRecord", "split_by_partition"]


@dataclass(frozen=True, slots=True)
class SourceRecord:
    """One record with all that a dead letter tells about it."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: Headers


class RecordBatch:
    """Records of one partition in the order of their offsets: what Faust events carry.

    Parameters
    ----------
    tp : TP
        Topic and partition.
    messages : list of confluent_kafka.Message
        The first records as librdkafka gave them; not empty.
    epoch : int
        The assignment they were fetched under.
    follows : int or None
        Where the batch before it ended; None for the first of its partition in this epoch.
    """

    __slots__ = (
        "_headers",
        "_needed",
        "_offsets",
        "_timestamps_ms",
        "end_offset",
        "epoch",
        "follows",
        "keys",
        "n_bytes",
        "n_rows",
        "ticket",
        "tp",
        "unsent",
        "values",
    )

    def __init__(self, tp: TP, messages: list[Message], epoch: int, follows: int | None = None) -> None:
        self._start(tp, epoch, follows)
        self.add(messages)

    @classmethod
    def of_values(
        cls,
        tp: TP,
        values: list[bytes | None],
        keys: list[bytes | None],
        timestamps_ms: NDArray[np.int64],
        start_offset: int,
    ) -> RecordBatch:
        """Return records that no broker gave: their values, keys and timestamps, and the offset of the first."""
        batch = cls.__new__(cls)
        batch._start(tp, epoch=0, follows=start_offset or None)
        n_rows = len(values)
        batch.values, batch.keys, batch._timestamps_ms = values, keys, [timestamps_ms]
        batch._offsets.append(np.arange(start_offset, start_offset + n_rows))
        batch.end_offset = start_offset + n_rows
        batch.n_rows = batch.unsent = batch._needed = n_rows
        batch.n_bytes = sum(map(len, filter(None, [*values, *keys])))
        return batch

    def _start(self, tp: TP, epoch: int, follows: int | None) -> None:
        self.tp = tp
        self.epoch = epoch
        self.follows = follows
        self.n_rows = 0
        #: Bytes of keys, values and headers: what is held in memory for them.
        self.n_bytes = 0
        #: Values of the records.
        self.values: list[bytes | None] = []
        #: Keys of the records.
        self.keys: list[bytes | None] = []
        self._timestamps_ms: list[NDArray[np.int64]] = []
        self._offsets: list[NDArray[np.int64]] = []
        # Of each record; none where no record has any.
        self._headers: list[Headers | None] = []
        #: Rows that have not been handed to the producer yet.
        self.unsent = 0
        # The same, by the data thread's count: so many rows may still need their original bytes.
        self._needed = 0
        #: Set when an agent takes the batch up.
        self.ticket: Ticket | None = None

    def __len__(self) -> int:
        return self.n_rows

    def add(self, messages: list[Message]) -> None:
        """Append records that follow; before the batch is used.

        Their objects are taken apart at once, a few at a time, while they are in the processor's cache.
        """
        n = len(messages)
        headers = read_headers(messages)
        if self._headers or headers.count(None) < n:
            self._headers = [*(self._headers or [None] * self.n_rows), *headers]
            self.n_bytes += sum(map(n_header_bytes, filter(None, headers)))
        self.values += map(Message.value, messages)
        keys = list(map(Message.key, messages))
        if keys.count(None) < n:
            self.n_bytes += sum(map(len, filter(None, keys)))
        self.keys += keys
        self._timestamps_ms.append(np.fromiter(map(itemgetter(1), map(Message.timestamp, messages)), np.int64, n))
        first, last = messages[0].offset(), messages[-1].offset()
        # Nearly always without a hole, and then nobody needs to ask every record.
        is_run = last - first == n - 1
        self._offsets.append(
            np.arange(first, last + 1) if is_run else np.fromiter(map(Message.offset, messages), np.int64, n)
        )
        self.end_offset: int = last + 1
        self.n_bytes += sum(map(len, messages))
        self.n_rows += n
        self.unsent += n
        self._needed += n

    @property
    def timestamps_ms(self) -> NDArray[np.int64]:
        """Timestamps of the records, in milliseconds since 1970, as their producers or the broker set them."""
        return _as_one(self._timestamps_ms)

    @property
    def has_headers(self) -> bool:
        """Whether any record has headers."""
        return bool(self._headers)

    @property
    def first_timestamps_ms(self) -> NDArray[np.int64]:
        """As `timestamps_ms`, but of a redriven record that of the record it was at first."""
        if not self._headers:
            return self.timestamps_ms
        times = self.timestamps_ms.copy()
        for row, headers in self._redriven():
            first = as_count(headers.get(FIRST_TIMESTAMP))
            if first is not None:
                times[row] = first
        return times

    def default_ids(self, rows: slice = slice(None)) -> list[str]:
        """Return ids for events that carry none: where the record stands in Kafka, or stood before it was redriven."""
        topic, partition = self.tp
        ids = [f"{topic}/{partition}/{offset}" for offset in _as_one(self._offsets)[rows].tolist()]
        first = rows.start or 0
        for row, headers in self._redriven():
            if first <= row < first + len(ids):
                ids[row - first] = (headers[ORIGIN] or b"").decode("utf-8", "replace")
        return ids

    @property
    def headers(self) -> list[Headers | None]:
        """Headers of each record, None where it has none."""
        return self._headers or [None] * self.n_rows

    def priorities(self, header: str) -> NDArray[np.int8]:
        """Return the priority that a header gives each record: a digit, 0 where it is anything else or absent.

        Where a record has several headers of that name, the last one counts.
        """
        priorities = np.zeros(len(self), np.int8)
        for row, headers in enumerate(self.headers):
            if headers:
                value = dict(headers).get(header)
                if value is not None and len(value) == 1 and value.isdigit():
                    priorities[row] = int(value)
        return priorities

    def record(self, index: int) -> SourceRecord:
        """Return one record, for its dead letter."""
        return SourceRecord(
            topic=self.tp.topic,
            partition=self.tp.partition,
            offset=int(_as_one(self._offsets)[index]),
            timestamp_ms=int(self.timestamps_ms[index]),
            key=self.keys[index],
            value=self.values[index],
            headers=self.headers[index] or [],
        )

    def let_go(self, n_rows: int) -> None:
        """Note that so many rows more need their original bytes no longer; with the last one they are dropped."""
        self._needed -= n_rows
        if not self._needed:
            self.values, self.keys, self._headers = [], [], []

    @property
    def is_under_way(self) -> bool:
        """Whether rows of it are still to be worked on, as far as the data thread knows."""
        return self._needed > 0 and self.unsent > 0 and (self.ticket is None or self.ticket.live)

    def _redriven(self) -> Iterator[tuple[int, dict[str, bytes | None]]]:
        """Yield the records that were dead letters once: the row of each, and its headers by name."""
        for row, found in enumerate(self._headers):
            if found and ORIGIN in (by_name := dict(found)):
                yield row, by_name


def _as_one(parts: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    """Return the only part, once all are put together."""
    if len(parts) > 1:
        parts[:] = [np.concatenate(parts)]
    return parts[0]


def split_by_partition(messages: list[Message], topics: Collection[str]) -> dict[TP, list[Message]]:
    """Return the records of a fetch by topic and partition, each in the order of its offsets.

    Parameters
    ----------
    messages : list of Message
        Not empty. librdkafka gives them in runs, as each partition's fetch came in.
    topics : collection of str
        The topics that they may be of. Where that is one, nobody asks each message for it.
    """
    if len(topics) > 1:
        by_topic: dict[str, list[Message]] = {}
        for message in messages:
            by_topic.setdefault(message.topic(), []).append(message)
        return {tp: run for topic, part in by_topic.items() for tp, run in split_by_partition(part, (topic,)).items()}
    [topic] = topics
    split: dict[TP, list[Message]] = {}
    for partition, run in groupby(messages, Message.partition):
        split.setdefault(TP(topic, partition), []).extend(run)
    return split

"""Records that a topic holds of some time, with their original bytes, in the order of their timestamps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from operator import itemgetter

import numpy as np
from confluent_kafka import Message
from numpy.typing import NDArray

from modelstream.streams.headers import Headers, read_headers
from modelstream.streams.replay.time_order import TimeOrder
from modelstream.streams.settings import BrokerSettings
from modelstream.streams.topic_reader import TopicReader, open_reader

__all__ = ["RecordedBatch", "read_recorded"]

#: What may wait in memory for earlier records of other partitions, in bytes of values. One partition at least is read
#: on, so a topic of any size passes through it.
_WAITING_BYTES = 128 * 1024 * 1024
#: Limits of one batch: enough that what is done once a batch costs nothing.
_BATCH_ROWS = 8192
_BATCH_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class RecordedBatch:
    """Records of one topic in the order in which they are to be replayed.

    Parameters
    ----------
    topic : str
        Where they stood.
    partitions : ndarray of int32, shape (n_records,)
        Where they stood.
    offsets : ndarray of int64, shape (n_records,)
        Where they stood.
    timestamps_ms : ndarray of int64, shape (n_records,)
        Their timestamps, in milliseconds since 1970.
    keys, values : list of bytes or None
        Their bytes.
    headers : list of (list of (str, bytes or None)) or None
        Their headers, None where a record has none.
    """

    topic: str
    partitions: NDArray[np.int32]
    offsets: NDArray[np.int64]
    timestamps_ms: NDArray[np.int64]
    keys: list[bytes | None]
    values: list[bytes | None]
    headers: list[Headers | None]

    def __len__(self) -> int:
        return len(self.values)


def read_recorded(
    settings: BrokerSettings,
    topic: str,
    *,
    since_ms: int | None = None,
    until_ms: int | None = None,
    limit: int | None = None,
    on_start: Callable[[int], None] = lambda n_offsets: None,
) -> Iterator[RecordedBatch]:
    """Read what a topic holds now, in the order of the timestamps; records of one partition keep their order.

    Parameters
    ----------
    settings : BrokerSettings
        Where Kafka is.
    topic : str
        The topic; it must exist.
    since_ms, until_ms : int, optional
        In each partition from the first record that is of this time or later, up to the first one that is; milliseconds
        since 1970. By default all.
    limit : int, optional
        Stop after so many records.
    on_start : callable
        Gets the number of offsets between the starts and the ends, once they are known: so many records, or fewer.

    Yields
    ------
    RecordedBatch
        One record or more. A topic of any size needs no more memory than some hundred MB.

    Raises
    ------
    BrokerUnavailable
        The broker does not answer, or refuses.
    """
    n_left = limit
    with open_reader(settings, topic) as reader:
        spans = reader.spans_between(since_ms, until_ms)
        on_start(sum(end - start for start, end in spans.values()))
        reader.start_spans(spans)
        for messages in _in_time_order(reader, list(spans)):
            for part in _parts(messages if n_left is None else messages[:n_left]):
                yield _batch(topic, part)
            if n_left is not None:
                n_left -= len(messages)
                if n_left <= 0:
                    return


def _in_time_order(reader: TopicReader, partitions: list[int]) -> Iterator[list[Message]]:
    order: TimeOrder[Message] = TimeOrder(partitions)
    paused: set[int] = set()
    while order.open_partitions:
        for partition, messages in _by_partition(reader.fetch()).items():
            order.add(partition, _timestamps_ms(messages), messages)
        for partition in set(order.open_partitions) - reader.unfinished:
            order.close(partition)
        if messages := order.take():
            yield messages
        _balance(reader, order, paused)


def _balance(reader: TopicReader, order: TimeOrder[Message], paused: set[int]) -> None:
    """Pause partitions that are far ahead of the others: what they would bring could only wait."""
    limit = _WAITING_BYTES // max(len(order.open_partitions), 1)
    far = {p for p in order.open_partitions if sum(map(len, order.waiting(p))) > limit}
    reader.pause(far - paused)
    reader.resume(paused - far & set(order.open_partitions))
    paused.clear()
    paused.update(far)


def _by_partition(messages: list[Message]) -> dict[int, list[Message]]:
    split: dict[int, list[Message]] = {}
    for message in messages:
        split.setdefault(message.partition(), []).append(message)
    return split


def _parts(messages: list[Message]) -> Iterator[list[Message]]:
    start = n_bytes = 0
    for i, message in enumerate(messages):
        n_bytes += len(message)
        if i + 1 - start >= _BATCH_ROWS or n_bytes >= _BATCH_BYTES:
            yield messages[start : i + 1]
            start, n_bytes = i + 1, 0
    if start < len(messages):
        yield messages[start:]


def _timestamps_ms(messages: list[Message]) -> NDArray[np.int64]:
    return np.fromiter(map(itemgetter(1), map(Message.timestamp, messages)), np.int64, len(messages))


def _batch(topic: str, messages: list[Message]) -> RecordedBatch:
    n = len(messages)
    headers = read_headers(messages)
    return RecordedBatch(
        topic=topic,
        partitions=np.fromiter(map(Message.partition, messages), np.int32, n),
        offsets=np.fromiter(map(Message.offset, messages), np.int64, n),
        timestamps_ms=_timestamps_ms(messages),
        keys=list(map(Message.key, messages)),
        values=list(map(Message.value, messages)),
        headers=headers,
    )

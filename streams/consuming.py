"""Records of a topic, outside any consumer group: from the beginning or from now on, to the end or for ever."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping

import orjson
from confluent_kafka import Message

from modelstream.streams.settings import BrokerSettings
from modelstream.streams.topic_reader import open_reader

__all__ = ["as_key", "as_ndjson", "committed_offsets", "mentions", "read_spans", "read_topic"]


def read_topic(
    settings: BrokerSettings,
    topic: str,
    *,
    from_beginning: bool,
    until_end: bool,
    stop: Callable[[], bool] = lambda: False,
    limit: int | None = None,
    group: str | None = None,
    on_start: Callable[[], None] | None = None,
) -> Iterator[list[Message]]:
    """Read a topic, all partitions that it has now, and yield what each fetch brought.

    Parameters
    ----------
    settings : BrokerSettings
        Where Kafka is.
    topic : str
        The topic; it must exist.
    from_beginning : bool
        Start with the oldest record of each partition, else with those that are written after the start.
    until_end : bool
        Stop where each partition ended at the start, else never.
    stop : callable
        Asked about every 0.1 s; true ends the reading.
    limit : int, optional
        Stop after so many records.
    group : str, optional
        Start where this group stands, in each partition in which it stands anywhere. Its place is committed at the
        start, and after each batch when the next one is asked for. Kafka refuses that while the group has members.
    on_start : callable, optional
        Called once it is settled where reading starts: whatever is written after that will be read.

    Yields
    ------
    list of confluent_kafka.Message
        One or more records, those of a partition in order.

    Raises
    ------
    BrokerUnavailable
        The broker does not answer, or refuses.
    """
    with open_reader(settings, topic, group) as reader:
        reader.start(from_beginning, until_end)
        if on_start is not None:
            on_start()
        n_left = limit
        while not reader.finished and n_left != 0 and not stop():
            batch = reader.fetch()
            if n_left is not None:
                batch = batch[:n_left]
                n_left -= len(batch)
            if batch:
                yield batch
                reader.commit(batch)


def committed_offsets(settings: BrokerSettings, topic: str, group: str) -> dict[int, int]:
    """Return the offset that a group has committed in each partition, those left out in which it has none.

    Raises
    ------
    BrokerUnavailable
        The broker does not answer, or refuses.
    """
    with open_reader(settings, topic, group) as reader:
        return reader.committed()


def read_spans(settings: BrokerSettings, topic: str, spans: Mapping[int, tuple[int, int]]) -> Iterator[list[Message]]:
    """Read stretches of a topic, and yield what each fetch brought.

    Parameters
    ----------
    settings : BrokerSettings
        Where Kafka is.
    topic : str
        The topic; it must exist.
    spans : mapping of int to (int, int)
        For each partition to read, the offset to start at and the one to stop before. Where the topic begins later or
        ends earlier, only what is there is read.

    Yields
    ------
    list of confluent_kafka.Message
        One or more records, those of a partition in order.

    Raises
    ------
    BrokerUnavailable
        The broker does not answer, or refuses.
    """
    with open_reader(settings, topic) as reader:
        reader.start_spans(spans)
        while not reader.finished:
            if batch := reader.fetch():
                yield batch


def mentions(wanted: str) -> Callable[[Message], bool]:
    """Return what says of a record whether it has this key, or this text in its JSON; nothing is decoded for it."""
    key = as_key(wanted)
    try:
        needle = orjson.dumps(wanted)
    except orjson.JSONEncodeError:  # no UTF-8, so it can be a key, but no text in JSON
        return lambda message: message.key() == key
    return lambda message: message.key() == key or needle in (message.value() or b"")


def as_key(wanted: str) -> bytes:
    """Return the key that a word of the command line means: whatever bytes the shell handed over."""
    return wanted.encode("utf-8", "surrogateescape")


def as_ndjson(batch: list[Message]) -> bytes:
    """Return the values of records, each on a line of its own and ended by one.

    What spans lines is written without them; what is no JSON besides, which only a stranger can have written to the
    topic, becomes a text.
    """
    values = [message.value() for message in batch]
    with contextlib.suppress(TypeError):  # a null value
        lines = b"\n".join(values) + b"\n"
        if lines.count(b"\n") == len(values) and b"" not in values:
            return lines
    return b"".join(map(_on_one_line, values))


def _on_one_line(value: bytes | None) -> bytes:
    if value and b"\n" not in value:
        return value + b"\n"
    try:
        decoded = None if value is None else orjson.loads(value)
    except ValueError:
        decoded = (value or b"").decode("utf-8", "replace")
    return orjson.dumps(decoded, option=orjson.OPT_APPEND_NEWLINE)

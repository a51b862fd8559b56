"""A consumer outside any group that reads stretches of a topic, each to its end.

Where a topic ends is known from positions, never from counts: compaction and transactions leave gaps.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from modelstream.models.errors import BrokerUnavailable
from modelstream.streams.cluster import SILENT_LOGGER
from modelstream.streams.settings import BrokerSettings

__all__ = ["TopicReader", "open_reader"]

# Records of one batch at the most.
_BATCH = 10_000
#: How long `stop` may stay unheard.
_POLL_S = 0.1
#: Seconds for one question to the broker.
_REQUEST_TIMEOUT_S = 10.0
#: Seconds without a record after which a broker that does not answer is given up, where an end is waited for.
_SILENCE_S = 15.0
#: Seconds in which an idle partition says where it ends; it needs one empty fetch, so `fetch.wait.max.ms`.
_FIND_END_S = 2.0

_CONFIG = {
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "enable.partition.eof": True,
    # Only for offsets that are gone meanwhile; where to start is always said.
    "auto.offset.reset": "earliest",
    "fetch.wait.max.ms": 100,
    # By default librdkafka pauses for a second when its queue was full.
    "fetch.queue.backoff.ms": 10,
}

# Groups are only named to look up and commit offsets; nobody joins one. Without any, librdkafka does not assign.
_NO_GROUP = "modelstream-consume"

# What passes by itself when the broker is back.
_PASSING = frozenset({KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN, KafkaError._RESOLVE, KafkaError._TIMED_OUT})

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def open_reader(settings: BrokerSettings, topic: str, group: str | None = None) -> Iterator[TopicReader]:
    """Read a topic while the block runs; see `TopicReader`.

    Raises
    ------
    BrokerUnavailable
        The broker does not answer, or refuses; whatever the block asked of the reader.
    """
    reader = TopicReader(settings, topic, group)
    try:
        yield reader
    except KafkaException as error:
        raise BrokerUnavailable(settings.bootstrap, f"cannot read {topic}: {error.args[0].str()}") from None
    finally:
        reader.close()


class TopicReader:
    """A consumer that is told where to start and where to end, in each partition.

    Parameters
    ----------
    settings : BrokerSettings
        Where Kafka is.
    topic : str
        The topic; it must exist.
    group : str, optional
        The consumer group whose place is looked up and committed; nobody joins it.
    """

    def __init__(self, settings: BrokerSettings, topic: str, group: str | None) -> None:
        self._bootstrap = settings.bootstrap
        self._topic = topic
        self._group = group
        config: dict[str, Any] = {**_CONFIG, **settings.librdkafka(), "group.id": group or _NO_GROUP}
        self._consumer = Consumer({**config, "error_cb": self._on_error}, logger=SILENT_LOGGER)
        # The end of each partition that is still to be reached; None for those that have none.
        self._ends: dict[int, int] | None = None
        # Of stretches, what comes next in each partition.
        self._next: dict[int, int] = {}
        self._error: KafkaError | None = None
        self._last_event = time.monotonic()

    @property
    def finished(self) -> bool:
        """Whether every partition has come to its end."""
        return self._ends is not None and not self._ends

    @property
    def unfinished(self) -> set[int]:
        """The partitions that have not come to their end."""
        return set(self._ends or ())

    def pause(self, partitions: Iterable[int]) -> None:
        """Fetch nothing more of these, until `resume`; only of stretches.

        They are let go of: around its own pause librdkafka loses or repeats records (librdkafka#5591, #2190, #4686).
        """
        self._consumer.incremental_unassign([TopicPartition(self._topic, p) for p in partitions])

    def resume(self, partitions: Iterable[int]) -> None:
        """Fetch of these again, from the record on that was not fetched yet."""
        self._consumer.incremental_assign([TopicPartition(self._topic, p, self._next[p]) for p in partitions])

    def start(self, from_beginning: bool, until_end: bool) -> None:
        """Settle where reading starts and ends."""
        limits = {p: self._watermarks(p) for p in self._partitions()}
        ends = {p: high for p, (_, high) in limits.items()}
        if until_end or not from_beginning:
            ends = self._find_ends(ends)
        start = {p: low for p, (low, _) in limits.items()} if from_beginning else ends
        if self._group is not None:
            start = {**start, **self.committed()}
            # Else records of partitions that this run does not come to would be none of the next run's either.
            self._commit(start)
        if until_end:
            self._ends = {p: end for p, end in ends.items() if start[p] < end}
            start = {p: start[p] for p in self._ends}
        self._consumer.assign([TopicPartition(self._topic, p, offset) for p, offset in start.items()])
        self._last_event = time.monotonic()

    def spans_between(self, since_ms: int | None, until_ms: int | None) -> dict[int, tuple[int, int]]:
        """Return for each partition where its records of a time start and end, as offsets; those without any left out.

        Parameters
        ----------
        since_ms, until_ms : int or None
            From the first record that is of this time or later, up to the first one that is; milliseconds since 1970.
            None is all that the partition has now.
        """
        limits = {p: self._watermarks(p) for p in self._partitions()}
        starts = {p: low for p, (low, _) in limits.items()}
        ends = self._find_ends({p: high for p, (_, high) in limits.items()})
        if since_ms is not None:
            starts = self._first_since(since_ms, ends)
        if until_ms is not None:
            ends = self._first_since(until_ms, ends)
        return {p: (start, ends[p]) for p, start in starts.items() if start < ends[p]}

    def _first_since(self, time_ms: int, ends: Mapping[int, int]) -> dict[int, int]:
        asked = [TopicPartition(self._topic, p, time_ms) for p in ends]
        found = self._consumer.offsets_for_times(asked, _REQUEST_TIMEOUT_S)
        for tp in found:
            if tp.error is not None:
                raise KafkaException(tp.error)
        # Negative where there is no such record.
        return {
            tp.partition: min(tp.offset, ends[tp.partition]) if tp.offset >= 0 else ends[tp.partition] for tp in found
        }

    def start_spans(self, spans: Mapping[int, tuple[int, int]]) -> None:
        """Read these stretches."""
        self._ends = {p: end for p, (_, end) in spans.items()}
        self._next = {p: start for p, (start, _) in spans.items()}
        self._consumer.assign([TopicPartition(self._topic, p, start) for p, (start, _) in spans.items()])

    def _partitions(self) -> list[int]:
        topic = self._consumer.list_topics(self._topic, _REQUEST_TIMEOUT_S).topics[self._topic]
        if topic.error is not None:
            raise KafkaException(topic.error)
        return sorted(topic.partitions)

    def _watermarks(self, partition: int) -> tuple[int, int]:
        low, high = self._consumer.get_watermark_offsets(TopicPartition(self._topic, partition), _REQUEST_TIMEOUT_S)
        return low, high

    def committed(self) -> dict[int, int]:
        """Return where the group stands, in each partition in which it stands anywhere."""
        asked = [TopicPartition(self._topic, p) for p in self._partitions()]
        return {tp.partition: tp.offset for tp in self._consumer.committed(asked, _REQUEST_TIMEOUT_S) if tp.offset >= 0}

    def _find_ends(self, highs: Mapping[int, int]) -> dict[int, int]:
        # The first fetch knows where a partition ends. The question for the watermark alone does not do: the embedded
        # broker answers with the start of the last batch.
        ends = dict(highs)
        unknown = set(highs)
        self._consumer.assign([TopicPartition(self._topic, p, high) for p, high in highs.items()])
        deadline = time.monotonic() + _FIND_END_S
        while unknown and time.monotonic() < deadline:
            message = self._consumer.poll(_POLL_S)
            if message is None or (message.error() is not None and not self._is_end(message)):
                continue
            partition, end = message.partition(), message.offset()
            if message.error() is None:
                end = self._consumer.get_watermark_offsets(TopicPartition(self._topic, partition), cached=True)[1]
            if partition in unknown:
                ends[partition] = max(end, ends[partition])
            unknown.discard(partition)
        return ends

    def fetch(self) -> list[Message]:
        """Return the records that are there; none where none comes for a moment."""
        # consume(n, timeout) would wait for all n.
        try:
            first = self._consumer.poll(_POLL_S)
        except SystemError as error:
            # What Ctrl-C raises within a callback ends the call, and the client loses it.
            raise KeyboardInterrupt from error
        if first is None:
            self._check_silence()
            return []
        self._last_event, self._error = time.monotonic(), None
        messages: list[Message] = [first, *self._consumer.consume(_BATCH - 1, 0)]
        at_end: list[Message] = []
        if any(message.error() is not None for message in messages):
            at_end = [message for message in messages if message.error() is not None and self._is_end(message)]
            messages = [message for message in messages if message.error() is None]
        return messages if self._ends is None else self._up_to_the_ends(messages, at_end)

    def _up_to_the_ends(self, messages: list[Message], at_end: list[Message]) -> list[Message]:
        assert self._ends is not None
        ends = self._ends.copy()
        last = dict(zip(map(Message.partition, messages), map(Message.offset, messages), strict=True))
        self._next |= {partition: offset + 1 for partition, offset in last.items()}
        # Whoever stands at a partition's end may have passed the last offsets in a gap, without a record.
        passed = {partition for partition, offset in last.items() if offset + 1 >= ends.get(partition, 0)}
        for partition in passed.union(message.partition() for message in at_end):
            self._end(partition)
        if all(partition in ends and offset < ends[partition] for partition, offset in last.items()):
            return messages
        return [message for message in messages if message.offset() < ends.get(message.partition(), 0)]

    def _is_end(self, message: Message) -> bool:
        """Say whether an event that is no record is the end of its partition; it may tell of an error."""
        error = message.error()
        if error.code() == KafkaError._PARTITION_EOF:
            return True
        if error.code() not in _PASSING:
            raise KafkaException(error)
        self._on_error(error)
        return False

    def _end(self, partition: int) -> None:
        assert self._ends is not None
        if self._ends.pop(partition, None) is not None:
            # What is written there from now on need not come here.
            self._consumer.incremental_unassign([TopicPartition(self._topic, partition)])

    def _check_silence(self) -> None:
        if self._error is None:
            return
        if self._ends is not None and time.monotonic() - self._last_event > _SILENCE_S:
            raise BrokerUnavailable(self._bootstrap, f"no answer for {_SILENCE_S:.0f} s ({self._error.str()})")

    def _on_error(self, error: KafkaError) -> None:
        # That all brokers are down is said as well, and tells nothing more.
        if error.code() == KafkaError._ALL_BROKERS_DOWN:
            return
        if self._error is None:
            logger.warning("broker %s: %s; waiting for it", self._bootstrap, error.str())
        self._error = error

    def commit(self, batch: list[Message]) -> None:
        """Commit that these records have been taken."""
        if self._group is not None:
            last = dict(zip(map(Message.partition, batch), map(Message.offset, batch), strict=True))
            self._commit({partition: offset + 1 for partition, offset in last.items()})

    def _commit(self, offsets: dict[int, int]) -> None:
        try:
            self._consumer.commit(
                offsets=[TopicPartition(self._topic, p, offset) for p, offset in offsets.items()], asynchronous=False
            )
        except KafkaException as error:
            problem = f"cannot commit for group {self._group!r}: {error.args[0].str()}"
            raise BrokerUnavailable(self._bootstrap, problem) from None

    def close(self) -> None:
        """Let go of the broker."""
        self._consumer.close()

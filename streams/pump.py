"""The data plane's way in: a librdkafka consumer that turns fetches into batches of records.

It never joins the group; it is told what to read with `assign`. It is never paused or resumed, because librdkafka
loses or repeats records around that (librdkafka#5591, #2190, #4686): when the window is full, nobody fetches.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Mapping
from time import monotonic, sleep
from typing import Any, NamedTuple

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition
from faust.types import TP

from modelstream.models.errors import BrokerUnavailable
from modelstream.streams.lost_broker import LostBroker
from modelstream.streams.records import RecordBatch, split_by_partition

__all__ = ["Gap", "Pump"]

logger = logging.getLogger(__name__)

# Errors of a partition that do not go away by waiting: the worker ends with a clear message.
_FATAL_CODES = frozenset(
    {
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        # Told again and again, for as long as the record is there: too large to unpack, or broken.
        KafkaError._BAD_COMPRESSION,
        KafkaError._FATAL,
    }
)

# What a broker that is away for a moment, or its leader, gives for an answer.
_PASSING_CODES = frozenset({KafkaError._TIMED_OUT, KafkaError._TRANSPORT, KafkaError.REQUEST_TIMED_OUT})

# Records whose objects are taken apart together. Of more, the first ones are no longer in the processor's cache.
_TAKEN_TOGETHER = 1024

# How long to wait for the broker's word where a partition begins and ends. The data thread waits as well.
_WATERMARKS_TIMEOUT_S = 5.0


class Gap(NamedTuple):
    """Records that were to be read, and are not on the broker any more."""

    tp: TP
    start: int
    end: int
    #: Where the batch before it ended; None where there is none under this assignment, whose epoch is the other.
    follows: int | None
    epoch: int

    @property
    def n_records(self) -> int:
        """How many offsets are passed over."""
        return self.end - self.start


class Pump:
    """Reads the assigned partitions. Used on the data thread only.

    Once closed it does nothing: at the end of a worker a rebalance may still tell it what to let go of.

    Parameters
    ----------
    config : mapping
        librdkafka consumer settings.
    max_records, max_bytes : int
        Most records of one fetch, and most bytes: as nearly as the size of the records before tells.
    gather_s : float
        Seconds from a fetch that took all there was to the next one.
    on_gap : {"earliest", "latest", "fail"}
        Where to go on when the next records to read have been deleted: at the oldest that is there, at the end, or
        nowhere.
    """

    def __init__(
        self, config: Mapping[str, Any], max_records: int, max_bytes: int, gather_s: float, on_gap: str = "earliest"
    ) -> None:
        self._consumer = Consumer(dict(config), logger=logger)
        self._bootstrap = str(config["bootstrap.servers"])
        self._max_records = max_records
        self._max_bytes = max_bytes
        # Of a record, in the latest fetch that brought any.
        self._mean_bytes = 1.0
        self._gather_s = gather_s
        self._rests_until = 0.0
        self._is_closed = False
        self._epoch = -1
        self._topics: set[str] = set()
        self._ends: dict[TP, int] = {}
        self._on_gap = on_gap
        self._positions: dict[TP, int] = {}
        # What was fetched, as long as it may be worked on.
        self._given: list[RecordBatch] = []
        self.lost_broker = LostBroker()
        #: Whether the last fetch left nothing behind.
        self.took_all = True
        #: Gaps that nobody has counted yet.
        self.gaps: deque[Gap] = deque()

    def assign(self, start_offsets: Mapping[TP, int], epoch: int) -> None:
        """Read these partitions from these offsets on, and nothing else."""
        self._epoch = epoch
        self._topics = {tp.topic for tp in start_offsets}
        self._ends = {}
        self._given = []
        self._positions = dict(start_offsets)
        if self._is_closed:
            return
        self._consumer.assign([TopicPartition(tp.topic, tp.partition, at) for tp, at in start_offsets.items()])

    def unassign(self) -> None:
        """Let go of all partitions."""
        if not self._is_closed:
            self._consumer.unassign()

    def fetch(self, timeout_s: float) -> list[RecordBatch]:
        """Return what there is, one batch a partition; none if nothing comes in time.

        Parameters
        ----------
        timeout_s : float
            How long to wait for the first record. While there is something to do with what was fetched before, this
            thread is not kept waiting.

        Raises
        ------
        BrokerUnavailable
            If a partition cannot be read, and waiting would not change that.
        """
        self.took_all = True
        if self._is_closed:
            return []
        # consume(n, timeout) waits for n records or for the whole timeout, so a lone record would be late:
        # wait for one with poll, then take what is there.
        self._given = [batch for batch in self._given if batch.is_under_way]
        if (rest_s := self._rests_until - monotonic()) > 0:
            if self._given:
                return []
            sleep(rest_s)
        first = self._consumer.poll(0 if self._given else timeout_s)
        if first is None:
            # It waits for the answer, and so not while there is something to do.
            for topic in () if self._given else self._topics:
                self.lost_broker.ask(self._consumer, topic)
            return []
        batches: dict[TP, RecordBatch] = {}
        n_records = 0
        wanted = max(self._room(0, 0), 1)
        messages = [first, *self._consumer.consume(wanted - 1, 0)]
        while messages:
            n_records += len(messages)
            self._sort_into(batches, messages)
            n_bytes = sum(batch.n_bytes for batch in batches.values())
            self._mean_bytes = max(n_bytes / n_records, 1.0)
            if len(messages) < wanted:
                break
            wanted = self._room(n_records, n_bytes)
            self.took_all = wanted > 0
            messages = self._consumer.consume(wanted, 0) if wanted else []
        self._rests_until = monotonic() + self._gather_s if self.took_all else 0.0
        if batches:
            self.lost_broker.note_life()
        self._given += batches.values()
        return list(batches.values())

    def _room(self, n_records: int, n_bytes: int) -> int:
        """Return how many records more go into a fetch that has so many, of those that are taken together."""
        fitting = int((self._max_bytes - n_bytes) / self._mean_bytes)
        return max(min(_TAKEN_TOGETHER, self._max_records - n_records, fitting), 0)

    def _sort_into(self, batches: dict[TP, RecordBatch], messages: list[Message]) -> None:
        """Add records to the batches of their partitions."""
        # Every error is true, and none can be compared with None: a KafkaError raises SystemError then.
        errors = list(filter(Message.error, messages))
        if errors:
            messages = [message for message in messages if not message.error()]
        for tp, run in split_by_partition(messages, self._topics).items() if messages else ():
            if tp in batches:
                batches[tp].add(run)
            else:
                batches[tp] = RecordBatch(tp, run, self._epoch, self._ends.get(tp))
            self._ends[tp] = batches[tp].end_offset
        # After the records before them: a gap follows those, which may have been fetched together with it.
        for message in errors:
            self._handle_error(message)

    def close(self) -> None:
        """Let go of the broker."""
        self._is_closed = True
        self._consumer.close()

    def _handle_error(self, message: Message) -> None:
        error = message.error()
        place = f"{message.topic()}[{message.partition()}]"
        if error.code() == KafkaError._AUTO_OFFSET_RESET:
            self._pass_gap(TP(message.topic(), message.partition()), place, message.offset())
            return
        if error.fatal() or error.code() in _FATAL_CODES:
            raise BrokerUnavailable(self._bootstrap, f"cannot read {place}: {error.str()}") from KafkaException(error)
        logger.warning("reading %s: %s", place, error.str())

    def _pass_gap(self, tp: TP, place: str, wanted: int | None) -> None:
        """Go on where the partition begins, or as `on_gap` says, when what was to be read next is not there."""
        at = max(self._positions.get(tp, 0), self._ends.get(tp, 0), wanted or 0)
        here = TopicPartition(tp.topic, tp.partition)
        try:
            low, high = self._consumer.get_watermark_offsets(here, _WATERMARKS_TIMEOUT_S)
        except KafkaException as error:
            said = error.args[0]
            if said.code() not in _PASSING_CODES:
                raise BrokerUnavailable(self._bootstrap, f"cannot read {place}: {said.str()}") from error
            # Read on where nothing is any more: the broker says so again, and then it may answer.
            logger.warning("%s: where it begins is not known yet (%s)", place, said.str())
            self._read_on(here, at)
            return
        if at > high:
            raise BrokerUnavailable(
                self._bootstrap,
                f"cannot read {place} from {at}: it ends at {high}, so records were lost or the topic is another one; "
                "reset the group's offsets with kafka-consumer-groups.sh",
            )
        if at < low and self._on_gap == "fail":
            raise BrokerUnavailable(
                self._bootstrap,
                f"cannot read {place} from {at}: it begins at {low}, so {low - at} records were deleted before they "
                "were read, and source.on_gap is fail",
            )
        to = at if at >= low else low if self._on_gap == "earliest" else high
        if to > at:
            logger.warning("%s: records %d to %d are gone, going on from %d", place, at, low - 1, to)
            self.gaps.append(Gap(tp, at, to, self._ends.get(tp), self._epoch))
        self._positions[tp] = to
        self._read_on(here, to)

    def _read_on(self, here: TopicPartition, offset: int) -> None:
        self._consumer.incremental_unassign([here])
        self._consumer.incremental_assign([TopicPartition(here.topic, here.partition, offset)])

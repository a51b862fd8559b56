"""The data plane: one thread that owns a librdkafka consumer and turns fetches into batches of records.

The consumer never joins the group; it is told what to read with `assign`. It is never paused or resumed, because
librdkafka loses or repeats records around that (librdkafka#5591, #2190, #4686): when the window is full, nobody polls.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition
from faust.types import TP

from modelstream.streams.records import RecordBatch, split_by_partition

__all__ = ["Pump"]

logger = logging.getLogger(__name__)

# How long the thread may be deaf to commands: a stop or a new assignment waits at most this long.
_POLL_TIMEOUT_S = 0.1

# Errors of a partition that do not go away by waiting: the worker ends with a clear message.
_FATAL_CODES = frozenset(
    {
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError._AUTO_OFFSET_RESET,
        KafkaError._FATAL,
    }
)


class Pump(threading.Thread):
    """Reads the assigned partitions and hands over batches, at most a window of them at a time.

    Parameters
    ----------
    config : mapping
        librdkafka consumer settings.
    max_records : int
        Most records of one fetch.
    window_batches, window_bytes : int
        What may be between the fetch and the producer; beyond that nothing is read.
    deliver : callable
        Takes the batches of one fetch; called on this thread, must not block.
    fail : callable
        Takes the error that ended this thread; called on this thread.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        *,
        max_records: int,
        window_batches: int,
        window_bytes: int,
        deliver: Callable[[list[RecordBatch]], None],
        fail: Callable[[BaseException], None],
    ) -> None:
        super().__init__(name="modelstream-pump", daemon=True)
        self._consumer = Consumer(dict(config), logger=logger)
        self._max_records = max_records
        self._window_batches = window_batches
        self._window_bytes = window_bytes
        self._deliver = deliver
        self._fail = fail
        self._commands: deque[tuple[Callable[[], None], Future[None]]] = deque()
        self._epoch = -1
        self._polling = False
        self._closing = False
        # Guards the two counts below; also tells the thread that there is room or a command.
        self._changed = threading.Condition()
        self._in_window = 0
        self._in_window_bytes = 0

    def assign(self, start_offsets: Mapping[TP, int], epoch: int) -> Future[None]:
        """Read these partitions from these offsets on, and nothing else; the window starts empty."""

        def command() -> None:
            with self._changed:
                self._epoch, self._in_window, self._in_window_bytes = epoch, 0, 0
            self._consumer.assign([TopicPartition(tp.topic, tp.partition, at) for tp, at in start_offsets.items()])
            self._polling = bool(start_offsets)

        return self._post(command)

    def stop_polling(self) -> None:
        """Read nothing more until the next `assign`. Takes effect before the next fetch."""
        self._polling = False

    def unassign(self) -> Future[None]:
        """Let go of all partitions."""

        def command() -> None:
            self._polling = False
            self._consumer.unassign()

        return self._post(command)

    def release(self, batch: RecordBatch) -> None:
        """Make room: this batch has been handed to the producer, or was dropped."""
        with self._changed:
            if batch.epoch == self._epoch:
                self._in_window -= 1
                self._in_window_bytes -= batch.n_bytes
                self._changed.notify()

    def close(self) -> None:
        """Ask the thread to end; `join` waits for it."""
        with self._changed:
            self._closing = True
            self._changed.notify()

    def _post(self, command: Callable[[], None]) -> Future[None]:
        done: Future[None] = Future()
        with self._changed:
            self._commands.append((command, done))
            self._changed.notify()
        return done

    def run(self) -> None:
        """Serve commands and fetch, until closed."""
        try:
            while not self._closing:
                self._run_commands()
                if self._polling and self._has_room():
                    self._fetch()
                else:
                    self._wait()
        except BaseException as error:
            self._fail(error)
        finally:
            self._consumer.close()

    def _run_commands(self) -> None:
        while self._commands:
            command, done = self._commands.popleft()
            try:
                command()
            except BaseException as error:
                done.set_exception(error)
            else:
                done.set_result(None)

    def _has_room(self) -> bool:
        return self._in_window < self._window_batches and self._in_window_bytes < self._window_bytes

    def _wait(self) -> None:
        with self._changed:
            if not self._commands and not self._closing and not (self._polling and self._has_room()):
                self._changed.wait(_POLL_TIMEOUT_S)

    def _fetch(self) -> None:
        # consume(n, timeout) waits for n records or for the whole timeout, so a lone record would be late:
        # wait for one with poll, then take what is there.
        first = self._consumer.poll(_POLL_TIMEOUT_S)
        if first is None:
            return
        messages = self._consumer.consume(self._max_records - 1, 0)
        messages.insert(0, first)
        if any(message.error() is not None for message in messages):
            messages = [message for message in messages if not self._is_error(message)]
        batches = [RecordBatch(TP(*place), run, self._epoch) for place, run in split_by_partition(messages).items()]
        with self._changed:
            self._in_window += len(batches)
            self._in_window_bytes += sum(batch.n_bytes for batch in batches)
        self._deliver(batches)

    def _is_error(self, message: Message) -> bool:
        error = message.error()
        if error is None:
            return False
        if error.fatal() or error.code() in _FATAL_CODES:
            raise KafkaException(error)
        logger.warning("reading %s[%s]: %s", message.topic(), message.partition(), error.str())
        return True

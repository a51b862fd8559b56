"""What comes out of a pipeline during a replay: as little as the figures need, noted as it comes, at the least cost."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
from confluent_kafka import TIMESTAMP_LOG_APPEND_TIME, Message
from numpy.typing import NDArray

from modelstream.models.errors import BrokerUnavailable, ModelStreamError
from modelstream.streams.consuming import read_topic
from modelstream.streams.headers import PREFIX, as_count, read_headers
from modelstream.streams.replay.generator import INTENDED_HEADER
from modelstream.streams.replay.matching import hash_predictions
from modelstream.streams.settings import BrokerSettings
from modelstream.streams.wording import event_number, letter_reason

__all__ = ["Answers", "LetterReader", "Letters"]

#: For a consumer to find where its topic ends.
_START_TIMEOUT_S = 30.0


class Answers:
    """The predictions, in the order in which they came; 24 bytes each.

    Attributes
    ----------
    n : int
        How many there are.
    """

    def __init__(self) -> None:
        self.n = 0
        self._hashes: list[NDArray[np.uint64]] = []
        self._stamps: list[NDArray[np.int64]] = []
        self._came_us: list[int] = []

    def add(self, messages: Sequence[Message]) -> None:
        """Note records that have just come."""
        self._came_us.append(time.time_ns() // 1000)
        try:
            self._hashes.append(hash_predictions(map(Message.value, messages)))
        except AttributeError:  # a null value, which only others on the topic can have written
            self._hashes.append(hash_predictions(message.value() or b"" for message in messages))
        stamps = [stamp for message in messages for stamp in message.timestamp()]
        self._stamps.append(np.array(stamps, np.int64).reshape(-1, 2))
        self.n += len(messages)

    def latest(self, n: int) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
        """Return hashes of the event ids of about so many that came last, and when they came."""
        n_parts = n_rows = 0
        while n_rows < n and n_parts < len(self._hashes):
            n_parts += 1
            n_rows += len(self._hashes[-n_parts])
        parts = self._hashes[len(self._hashes) - n_parts :]
        came_us = np.repeat(np.array(self._came_us[len(self._came_us) - n_parts :], np.int64), list(map(len, parts)))
        return np.concatenate([np.empty(0, np.uint64), *parts])[-n:], came_us[-n:]

    def hashes(self) -> NDArray[np.uint64]:
        """Return the hashes of the event ids of all."""
        return np.concatenate([np.empty(0, np.uint64), *self._hashes])

    def came_us(self) -> NDArray[np.int64]:
        """Return when each came, in microseconds since 1970, by the clock of this process."""
        return np.repeat(np.array(self._came_us, np.int64), [len(part) for part in self._hashes])

    def appended_us(self) -> NDArray[np.int64] | None:
        """Return when the broker appended each, in microseconds, cut to milliseconds; None if it does not stamp."""
        stamps = np.concatenate([np.empty((0, 2), np.int64), *self._stamps])
        if not len(stamps) or (stamps[:, 0] != TIMESTAMP_LOG_APPEND_TIME).any():
            return None
        appended: NDArray[np.int64] = stamps[:, 1] * 1000
        return appended


class Letters:
    """The dead letters of a replay's events.

    Parameters
    ----------
    position_of : callable
        Returns the position of the event that stood in a partition at an offset, None where nobody knows.
    """

    def __init__(self, position_of: Callable[[int, int], int | None] = lambda partition, offset: None) -> None:
        self._position_of = position_of
        #: Where the events stood that have one.
        self._places: set[tuple[bytes | None, ...]] = set()
        self._is_first: list[bool] = []
        self._intended_us: list[int] = []
        self._stamps_ms: list[int] = []
        #: Why, with how many there are of each; and which event the first one is of, with what it says.
        self.reasons: Counter[str] = Counter()
        self.first = ""

    def add(self, messages: Sequence[Message]) -> None:
        """Note records; those that no generator has sent are others'."""
        for message, headers in zip(messages, read_headers(messages), strict=True):
            said = dict(headers or ())
            intended = as_count(said.get(INTENDED_HEADER))
            place = tuple(said.get(f"{PREFIX}{name}") for name in ("topic", "partition", "offset"))
            if intended is not None:
                self._is_first.append(place not in self._places)
                self._places.add(place)
                self._intended_us.append(intended)
                self._stamps_ms.append(message.timestamp()[1])
                stage, reason, detail = (
                    (said.get(f"{PREFIX}{name}") or b"").decode("utf-8", "replace")
                    for name in ("stage", "reason", "detail")
                )
                why = letter_reason(stage, reason)
                self.reasons[why] += 1
                self.first = self.first or f"{self._name(place)}, {why}: {detail}"

    def _name(self, place: tuple[bytes | None, ...]) -> str:
        topic, partition, offset = place
        position = self._position_of(as_count(partition) or 0, as_count(offset) or 0)
        if position is not None:
            return event_number(position)
        return "/".join((part or b"?").decode("utf-8", "replace") for part in (topic, partition, offset))

    @property
    def n(self) -> int:
        """How many there are, those included that a worker has written again after a failure."""
        return len(self._stamps_ms)

    def answered(self, intended_us: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return for each event's first letter an event that was due when its own was, and when it was put there.

        Parameters
        ----------
        intended_us : ndarray of int64, shape (n_events,)
            When each event was due; never falling.

        Returns
        -------
        positions, at_us : ndarray of int64, shape (n_letters,)
            Positions of events, and microseconds since 1970, cut to milliseconds.
        """
        is_first = np.array(self._is_first, np.bool_)
        due_us = np.array(self._intended_us, np.int64)[is_first]
        at_us = np.array(self._stamps_ms, np.int64)[is_first] * 1000
        positions = np.searchsorted(intended_us, due_us)
        known = positions < len(intended_us)
        known[known] = intended_us[positions[known]] == due_us[known]
        return positions[known], at_us[known]


class LetterReader(threading.Thread):
    """Reads dead letters beside the predictions, which are far more as a rule.

    Parameters
    ----------
    settings : BrokerSettings
        Where Kafka is.
    topic : str
        The dead-letter topic; what is on it already is left alone.
    letters : Letters
        Gets them.

    Attributes
    ----------
    error : ModelStreamError or None
        What ended it before it was told to end.
    """

    def __init__(self, settings: BrokerSettings, topic: str, letters: Letters) -> None:
        super().__init__(name="modelstream-replay-letters", daemon=True)
        self._settings, self._topic, self._letters = settings, topic, letters
        self._started, self._ended = threading.Event(), threading.Event()
        self.error: ModelStreamError | None = None

    def run(self) -> None:
        """Read until the end."""
        try:
            for messages in read_topic(
                self._settings, self._topic, from_beginning=False, until_end=False, stop=self._ended.is_set,
                on_start=self._started.set,
            ):  # fmt: skip
                self._letters.add(messages)
        except ModelStreamError as error:
            self.error = error
        finally:
            self._started.set()

    def wait_until_started(self) -> None:
        """Wait until whatever is written from now on will be read, or it has failed.

        Raises
        ------
        ModelStreamError
            It has failed, or the broker takes too long.
        """
        if not self._started.wait(_START_TIMEOUT_S):
            raise BrokerUnavailable(
                self._settings.bootstrap, f"no answer about {self._topic} for {_START_TIMEOUT_S:g} s"
            )
        if self.error is not None:
            raise self.error

    def end(self) -> None:
        """End, and wait for it."""
        self._ended.set()
        self.join()

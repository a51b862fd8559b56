"""Dead letters as their topic holds them: which there are, which were redriven, and their records.

A letter that was redriven stays where it is. A *marker* behind it says so: a record without key and value in the
letter's partition, with the headers ``modelstream.redriven`` (where the letter stands) and ``modelstream.topic``,
``.partition``, ``.offset`` and ``.timestamp_ms`` (where its record stood).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from confluent_kafka import Message

from modelstream.streams.consuming import read_spans, read_topic
from modelstream.streams.headers import Headers, as_count, header_text, own_headers, read_headers, split_own
from modelstream.streams.settings import BrokerSettings

__all__ = ["Letter", "LetterFilter", "Place", "RecordPlace", "fetch_letters", "is_marker", "marker", "read_letters"]

# A key serves to recognise a letter here; its record has all of it.
_KEPT_KEY_BYTES = 256


class Place(NamedTuple):
    """Where a letter stands in the dead-letter topic."""

    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.partition}/{self.offset}"


class RecordPlace(NamedTuple):
    """Where a record stood when it failed. The timestamp tells it from one of a topic made anew under this name."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int


@dataclass(frozen=True, slots=True)
class Letter:
    """What is known of a dead letter without its value.

    Parameters
    ----------
    place : Place
        Where it stands.
    written_ms : int
        When it was written, in milliseconds since 1970.
    n_bytes : int
        Size of its key, value and headers.
    key : bytes or None
        The event's key, of a long one the beginning.
    reason, stage, detail : str or None
        Why the event failed; None where something else wrote the record.
    attempts : int
        How often it failed.
    source : RecordPlace or None
        Where the record stood that failed; None where something else wrote the letter.
    origin : tuple of (str, int, int)
        Topic, partition and offset where the event stood first: what letters are ordered by.
    incomplete : str or None
        What of the record is not in the letter, so that it cannot be redriven.
    redriven : bool
        Whether a marker says that it was sent back.
    """

    place: Place
    written_ms: int
    n_bytes: int
    key: bytes | None
    reason: str | None
    stage: str | None
    detail: str | None
    attempts: int
    source: RecordPlace | None
    origin: tuple[str, int, int]
    incomplete: str | None = None
    redriven: bool = False


@dataclass(frozen=True, slots=True)
class LetterFilter:
    """Which dead letters are meant; what is empty or None is no condition.

    Parameters
    ----------
    reasons, stages : collection of str
        One of these.
    since_ms, until_ms : int, optional
        Written at or after, and before; milliseconds since 1970.
    key : bytes, optional
        The event's key.

    Examples
    --------
    >>> LetterFilter(stages=("delay",))("missing_field", "delay", 0, b"k"), LetterFilter(since_ms=5)("x", "y", 4, None)
    (True, False)
    """

    reasons: Sequence[str] = ()
    stages: Sequence[str] = ()
    since_ms: int | None = None
    until_ms: int | None = None
    key: bytes | None = None

    def __call__(self, reason: str | None, stage: str | None, written_ms: int, key: bytes | None) -> bool:
        """Say whether a letter is meant."""
        return (
            (not self.reasons or reason in self.reasons)
            and (not self.stages or stage in self.stages)
            and (self.since_ms is None or written_ms >= self.since_ms)
            and (self.until_ms is None or written_ms < self.until_ms)
            and (self.key is None or key == self.key)
        )


@dataclass(slots=True)
class _Found:
    letters: list[Letter] = field(default_factory=list)
    redriven: set[Place] = field(default_factory=set)
    #: A worker that was killed may write the letter of a record twice; one marker stands for both.
    redriven_sources: set[RecordPlace] = field(default_factory=set)

    def settled(self, letter: Letter) -> bool:
        return letter.place in self.redriven or (letter.source is not None and letter.source in self.redriven_sources)


def read_letters(
    settings: BrokerSettings,
    topic: str,
    wanted: LetterFilter | None = None,
    *,
    redriven: bool = False,
    is_meant: Callable[[Message], bool] = lambda record: True,
    on_progress: Callable[[int], None] = lambda n_records: None,
) -> list[Letter]:
    """Return the letters of a dead-letter topic, in the order of their origin: source topic, partition, offset.

    Parameters
    ----------
    settings : BrokerSettings
        Where Kafka is.
    topic : str
        The dead-letter topic; it must exist.
    wanted : LetterFilter, optional
        Which letters; by default all.
    redriven : bool
        Return those too that were redriven already.
    is_meant : callable
        Says of a letter's record whether it is wanted, besides.
    on_progress : callable
        Gets the number of records read so far.

    Raises
    ------
    BrokerUnavailable
        The broker does not answer, or refuses.
    """
    wanted = wanted or LetterFilter()
    found = _Found()
    n_read = 0
    for batch in read_topic(settings, topic, from_beginning=True, until_end=True):
        for message, headers in zip(batch, read_headers(batch), strict=True):
            _take(message, headers or [], wanted, is_meant, found)
        n_read += len(batch)
        on_progress(n_read)
    letters = [replace(letter, redriven=True) if found.settled(letter) else letter for letter in found.letters]
    if not redriven:
        letters = [letter for letter in letters if not letter.redriven]
    return sorted(letters, key=lambda letter: (letter.origin, letter.place))


def _take(
    message: Message, headers: Headers, wanted: LetterFilter, is_meant: Callable[[Message], bool], found: _Found
) -> None:
    own, _ = split_own(headers)
    if _is_marker(own):
        partition, _, offset = own["redriven"].partition(b"/")
        found.redriven.add(Place(as_count(partition) or 0, as_count(offset) or 0))
        if (source := _source(own)) is not None:
            found.redriven_sources.add(source)
        return
    reason, stage = header_text(own.get("reason")), header_text(own.get("stage"))
    if wanted(reason, stage, message.timestamp()[1], message.key()) and is_meant(message):
        found.letters.append(_letter(message, own, reason, stage))


def _letter(message: Message, own: dict[str, bytes], reason: str | None, stage: str | None) -> Letter:
    key, source = message.key(), _source(own)
    stood = ("", message.partition(), message.offset()) if source is None else source[:3]
    return Letter(
        place=Place(message.partition(), message.offset()),
        written_ms=message.timestamp()[1],
        n_bytes=len(message) + len(key or b""),
        key=key and key[:_KEPT_KEY_BYTES],
        reason=reason,
        stage=stage,
        detail=header_text(own.get("detail")),
        attempts=as_count(own.get("attempts")) or 1,
        source=source,
        origin=_origin(own.get("origin")) or stood,
        incomplete=_incomplete(own),
    )


def _source(own: dict[str, bytes]) -> RecordPlace | None:
    topic = own.get("topic")
    partition, offset = as_count(own.get("partition")), as_count(own.get("offset"))
    if topic is None or partition is None or offset is None:
        return None
    # Kafka has -1 where there is no timestamp.
    return RecordPlace(header_text(topic) or "", partition, offset, as_count(own.get("timestamp_ms")) or 0)


def _origin(value: bytes | None) -> tuple[str, int, int] | None:
    topic, _, rest = (value or b"").partition(b"/")  # no topic's name has a slash
    partition, offset = map(as_count, (rest.partition(b"/")[0], rest.partition(b"/")[2]))
    return None if partition is None or offset is None else (header_text(topic) or "", partition, offset)


def _incomplete(own: dict[str, bytes]) -> str | None:
    if "truncated_from_bytes" in own:
        return f"of {header_text(own['truncated_from_bytes'])} bytes of the value only the beginning was kept"
    if "key_truncated_from_bytes" in own:
        return f"of {header_text(own['key_truncated_from_bytes'])} bytes of the key only the beginning was kept"
    if "dropped_headers" in own:
        return "the record's headers were not kept"
    return None


def is_marker(message: Message) -> bool:
    """Return whether a record of a dead-letter topic is no letter, but says that one was redriven."""
    [headers] = read_headers([message])
    return _is_marker(split_own(headers or ())[0])


def _is_marker(own: dict[str, bytes]) -> bool:
    return "redriven" in own and "reason" not in own


def marker(letter: Letter) -> Headers:
    """Return the headers of the record that says that a letter was redriven."""
    said: dict[str, str | int | None] = {"redriven": str(letter.place)}
    if letter.source is not None:
        said |= letter.source._asdict()
    return own_headers(said)


def fetch_letters(settings: BrokerSettings, topic: str, places: Sequence[Place]) -> dict[Place, Message]:
    """Return the records of letters, without those that are not there, or no more.

    Parameters
    ----------
    settings : BrokerSettings
        Where Kafka is.
    topic : str
        The dead-letter topic; it must exist and have these partitions.
    places : sequence of Place
        Where they stand. All between the first and the last of a partition is read; only these are kept.

    Raises
    ------
    BrokerUnavailable
        The broker does not answer, or refuses.
    """
    spans: dict[int, tuple[int, int]] = {}
    for partition, offset in places:
        first, end = spans.get(partition, (offset, offset + 1))
        spans[partition] = (min(first, offset), max(end, offset + 1))
    asked = set(places)
    return {place: message for place, message in _placed(read_spans(settings, topic, spans)) if place in asked}


def _placed(batches: Iterator[list[Message]]) -> Iterator[tuple[Place, Message]]:
    for batch in batches:
        for message in batch:
            yield Place(message.partition(), message.offset()), message

"""How predictions came about: those of one key, event or id, with their flight records; and why there is none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from confluent_kafka import Message

from modelstream.streams.consuming import as_key, committed_offsets, mentions, read_topic
from modelstream.streams.flight_record import FLIGHT_PREFIX
from modelstream.streams.settings import BrokerSettings

__all__ = ["Explanation", "explanations", "where_event_stands"]


@dataclass(frozen=True, slots=True)
class Explanation:
    """One prediction and how it came about.

    Parameters
    ----------
    topic : str
        Where it stands, with `partition` and `offset`.
    partition, offset, timestamp_ms : int
        The timestamp is the prediction's, in milliseconds since 1970.
    prediction : mapping
        The prediction record.
    stages : mapping of str to mapping
        By step id, the stage's flight record; see `FlightRecorder`. Empty where none was kept.
    """

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    prediction: Mapping[str, Any]
    stages: Mapping[str, Mapping[str, Any]]

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {name: getattr(self, name) for name in self.__slots__}

    def lines(self) -> Iterator[str]:
        """Yield it as text for a person."""
        prediction = self.prediction
        yield f"prediction {prediction['id']} at {self.topic}[{self.partition}] offset {self.offset}"
        said = {name: _as_text(prediction.get(name)) for name in ("event_id", "key", "event_time")}
        yield f"  event {said['event_id']}, key {said['key']}, event time {said['event_time']}"
        for model, answer in prediction["predictions"].items():
            fields = ", ".join(f"{name} {_as_text(value)}" for name, value in answer.items() if name != "version")
            yield f"  {model}@{answer.get('version', '')}: {fields}"
        for step_id, record in self.stages.items():
            yield f"  stage {step_id}: {_say(record)}"
        if not self.stages:
            yield "  no flight record; one is kept with sink.flight_record: true"


def _as_text(value: object) -> str:
    """Return a value as the record has it, which is JSON; text without its quotation marks."""
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def _say(record: Mapping[str, Any]) -> str:
    cache = f"; cache: {record['cache']}" if record.get("cache") else ""
    models = ", ".join(f"{name}@{version}" for name, version in record["models"].items())
    return (
        f"batch {record['batch']} of {record['size']} rows, closed: {record['close_reason']}; "
        f"oldest event {record['age_us'] / 1000:.1f} ms old, of that {record['queue_us'] / 1000:.1f} ms in the queue; "
        f"{models} took {record['service_us'] / 1000:.1f} ms{cache}"
    )


def explanations(batch: Sequence[Message], wanted: str) -> Iterator[Explanation]:
    """Yield the predictions of a batch that are of one key or event, or have one id.

    Parameters
    ----------
    batch : sequence of Message
        Records of the prediction topic.
    wanted : str
        A record key, an event id, or a prediction's id.
    """
    key = as_key(wanted)
    # Quick to find, and nothing else is decoded.
    is_meant = mentions(wanted)
    for message in batch:
        value = message.value()
        if value is None or not is_meant(message):
            continue
        prediction = orjson.loads(value)
        if message.key() == key or wanted in (prediction["id"], prediction["event_id"]):
            yield Explanation(
                message.topic(),
                message.partition(),
                message.offset(),
                message.timestamp()[1],
                prediction,
                _stages(message.headers() or []),
            )


def where_event_stands(settings: BrokerSettings, topic: str, group: str, wanted: str) -> str:
    """Return what becomes, or became, of an event that has neither a prediction nor a dead letter; one line.

    Parameters
    ----------
    settings : BrokerSettings
        Where Kafka is.
    topic, group : str
        The source topic, and the group of the workers.
    wanted : str
        A record key, or an event id.

    Raises
    ------
    BrokerUnavailable
        The broker does not answer, or refuses.
    """
    is_meant, last = mentions(wanted), None
    for batch in read_topic(settings, topic, from_beginning=True, until_end=True):
        for message in batch:
            if is_meant(message):
                last = message
    if last is None:
        return f"nor has {topic} such an event"
    place = f"its event is at {topic}[{last.partition()}] offset {last.offset()}"
    committed = committed_offsets(settings, topic, group).get(last.partition())
    if committed is None or last.offset() >= committed:
        to = "nothing yet" if committed is None else f"up to {committed}"
        return f"{place}, and the workers of group {group} have not come to it: they have committed {to} there"
    return f"{place}, and the workers have passed it: a filter or a rule took it out, or its answer is kept no more"


def _stages(headers: Sequence[tuple[str, bytes | None]]) -> dict[str, Any]:
    return {
        name.removeprefix(FLIGHT_PREFIX): orjson.loads(value)
        for name, value in headers
        if name.startswith(FLIGHT_PREFIX) and value
    }

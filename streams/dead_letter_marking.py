"""Dead letters marked as done, and not sent back: their events were produced anew, or are of no more use."""

from __future__ import annotations

from collections.abc import Sequence

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from modelstream.models.errors import BrokerUnavailable
from modelstream.streams.cluster import SILENT_LOGGER
from modelstream.streams.dead_letter_reading import Letter, marker
from modelstream.streams.settings import BrokerSettings

__all__ = ["mark_done"]

_TIMEOUT_S = 30.0
_CONFIG = {"enable.idempotence": True, "message.timeout.ms": int(_TIMEOUT_S * 1000)}
#: How long one wait for room in the producer's queue lasts.
_ROOM_S = 0.1


def mark_done(settings: BrokerSettings, topic: str, letters: Sequence[Letter]) -> None:
    """Write the marker of each letter, as a redrive would, and wait until Kafka has them.

    Parameters
    ----------
    settings : BrokerSettings
        Where Kafka is.
    topic : str
        The dead-letter topic.
    letters : sequence of Letter
        Letters that stand there.

    Raises
    ------
    BrokerUnavailable
        Kafka did not take a marker.
    """
    failures: list[KafkaError] = []

    def on_delivery(error: KafkaError | None, _: Message) -> None:
        if error is not None:
            failures.append(error)

    producer = Producer({**_CONFIG, **settings.librdkafka()}, logger=SILENT_LOGGER)
    try:
        for letter in letters:
            mark = {"partition": letter.place.partition, "headers": marker(letter), "on_delivery": on_delivery}
            while not failures:
                try:
                    producer.produce(topic, **mark)
                    break
                except BufferError:  # it ends by itself: what waits too long has failed
                    producer.poll(_ROOM_S)
    except KafkaException as error:
        failures.append(error.args[0])
    if producer.flush(_TIMEOUT_S) or failures:
        why = failures[0].str() if failures else "no answer in time"
        raise BrokerUnavailable(settings.bootstrap, f"not every letter was marked in {topic}: {why}")

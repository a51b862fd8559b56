"""Whether the broker answers, asked once a second over the control plane, and what it says of our topics.

None of the clients tells when it lost the broker and when it was back: they retry, and write hundreds of lines about
it. Here both are one line each.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Iterable, Mapping
from time import monotonic
from typing import TYPE_CHECKING, Any

from aiokafka.client import ConnectionGroup
from aiokafka.conn import CloseReason
from aiokafka.errors import (
    KafkaConnectionError,
    KafkaError,
    KafkaTimeoutError,
    NodeNotReadyError,
    UnknownTopicOrPartitionError,
)
from aiokafka.protocol.metadata import MetadataRequest
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka import KafkaError as KafkaCode
from faust.types import TP

from modelstream.streams.cluster import SILENT_LOGGER

if TYPE_CHECKING:
    from aiokafka import AIOKafkaConsumer

__all__ = ["BrokerStatus", "ask_for_partitions", "has_record", "take_group_error"]

logger = logging.getLogger(__name__)

# A broker that is there answers in milliseconds; one with a long pause of its garbage collector in a second.
_ANSWER_TIMEOUT_S = 2.0

# For a consumer of its own to connect and read one record.
_RECORD_TIMEOUT_S = 5.0

_NO_TOPIC = UnknownTopicOrPartitionError.errno


class BrokerStatus:
    """Whether the broker answers; logs when that changes.

    Parameters
    ----------
    bootstrap : str
        Its address, for messages.
    """

    def __init__(self, bootstrap: str) -> None:
        self._bootstrap = bootstrap
        self._lost_at: float | None = None
        #: Since when every question was answered; None where the last one was not, or none has been.
        self.answers_since: float | None = None
        self._reason = ""

    @property
    def is_away(self) -> bool:
        """Whether the last question got no answer."""
        return self._lost_at is not None

    @property
    def problem(self) -> str | None:
        """What is wrong, or None."""
        if self._lost_at is None:
            return None
        return f"broker {self._bootstrap} has not answered for {monotonic() - self._lost_at:.0f} s: {self._reason}"

    def note_silence(self, reason: str) -> None:
        """Note that a question got no answer."""
        # aiokafka begins with the name of its class.
        self._reason = reason = reason.rpartition("Error: ")[2]
        self.answers_since = None
        if self._lost_at is None:
            self._lost_at = monotonic()
            logger.warning(
                "broker %s does not answer: %s; waiting for it", self._bootstrap, reason, extra={"broker_is_away": True}
            )

    def note_answer(self) -> None:
        """Note that a question was answered."""
        if self.answers_since is None:
            self.answers_since = monotonic()
        if self._lost_at is not None:
            away_s = monotonic() - self._lost_at
            logger.info(
                "broker %s answers again, after %.0f s", self._bootstrap, away_s, extra={"broker_is_away": False}
            )
            self._lost_at = None


async def take_group_error(consumer: AIOKafkaConsumer) -> KafkaError | None:
    """Return what the group's coordinator refused this member, which aiokafka tells only who asks, and then waits.

    Called on aiokafka's thread.
    """
    try:
        consumer._coordinator.check_errors()
    except KafkaError as error:
        return error
    return None


async def ask_for_partitions(consumer: AIOKafkaConsumer, topics: Iterable[str]) -> dict[str, int | None]:
    """Return how many partitions each topic has, None where there is no such topic. Called on aiokafka's thread.

    Where there are more than aiokafka knows of, it looks again, and the group shares them out.

    Raises
    ------
    KafkaError, OSError
        If no broker answers.
    """
    client = consumer._client
    request = MetadataRequest(sorted(topics), allow_auto_topic_creation=False)
    nodes = [broker.nodeId for broker in client.cluster.brokers()]
    problem: Exception = KafkaError("no broker is known")
    for node in random.sample(nodes, len(nodes)):
        try:
            response = await asyncio.wait_for(client.send(node, request), _ANSWER_TIMEOUT_S)
        except TimeoutError:
            problem = KafkaTimeoutError(f"no answer within {_ANSWER_TIMEOUT_S:.0f} s")
            # After an outage TCP would try this connection again only after as long as the outage took.
            connection = client._conns.pop((node, ConnectionGroup.DEFAULT), None)
            if connection is not None:
                connection.close(reason=CloseReason.CONNECTION_TIMEOUT)
        except NodeNotReadyError:
            problem = KafkaConnectionError("no connection")
        except (KafkaError, OSError) as error:
            problem = error
        else:
            counts = {name: None if error == _NO_TOPIC else len(found) for error, name, *_, found in response.topics}
            if any(
                (counts[topic] or 0) > len(client.cluster.partitions_for_topic(topic) or ())
                for topic in consumer._subscription.topics & counts.keys()
            ):
                client.force_metadata_update()
            return counts
    raise problem


def has_record(config: Mapping[str, Any], tp: TP, offset: int) -> bool | None:
    """Whether a partition has a record to read at an offset or after it; None where nobody says in time.

    Where a partition ends is not enough to know: transactions leave marks behind the last record, which take offsets
    and are never read.
    """
    consumer = Consumer({**config, "enable.partition.eof": True}, logger=SILENT_LOGGER)
    try:
        consumer.assign([TopicPartition(tp.topic, tp.partition, offset)])
        message = consumer.poll(_RECORD_TIMEOUT_S)
        if message is None:
            return None
        error = message.error()
        if error is None:
            return True
        return False if error.code() == KafkaCode._PARTITION_EOF else None
    finally:
        consumer.close()

"""What the data plane asks of librdkafka: the settings of the consumer that fetches and of the producer."""

from __future__ import annotations

import uuid
from typing import Any

from modelstream.streams.settings import BrokerSettings, EngineLimits

__all__ = ["consumer_config", "producer_config", "transactional_config"]

# librdkafka's own limit is 2 GB; less than what a bomb could make of the memory of a small container.
_MAX_RECEIVED_BYTES = 1_000_000_000

# How long a request of the fetching consumer and of the producer may take. At librdkafka's 60 s, which is also how long
# an output may wait for its confirmation, a connection that dies without a word takes the worker with it.
_SOCKET_TIMEOUT_MS = 15_000


def consumer_config(settings: BrokerSettings, group: str, limits: EngineLimits) -> dict[str, Any]:
    """Return the settings of the consumer that fetches what the group's coordinator assigns to the other one."""
    return {
        **settings.librdkafka(),
        # Never joined nor committed to by this client: aiokafka does that.
        "group.id": group,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        # Where a partition has no committed offset, the pump is told where to start. Records that were deleted before
        # they were read are its matter as well: librdkafka would pass over them without a word.
        "auto.offset.reset": "error",
        "fetch.wait.max.ms": limits.fetch_wait_max_ms,
        "socket.timeout.ms": _SOCKET_TIMEOUT_MS,
        # Also how large a compressed batch may become; at the default of 100 MB a larger one is never read.
        "receive.message.max.bytes": _MAX_RECEIVED_BYTES,
        # The default of 1 s is how long a partition rests after its queue was full.
        "fetch.queue.backoff.ms": 10,
        # A tenth of a second's worth at full speed. Each takes some 300 bytes more than its value, which the limit on
        # bytes does not count.
        "queued.min.messages": 4 * limits.fetch_max_records,
        "queued.max.messages.kbytes": limits.max_bytes_in_flight // 1024,
    }


def producer_config(settings: BrokerSettings, limits: EngineLimits) -> dict[str, Any]:
    """Return the settings of the producer of predictions and dead letters."""
    return {
        **settings.librdkafka(),
        "enable.idempotence": True,
        "acks": "all",
        "linger.ms": limits.linger_ms,
        # As Java's clients: a key's events, predictions and labels meet in partitions of the same number.
        "partitioner": "murmur2_random",
        "message.timeout.ms": int(limits.delivery_timeout_s * 1000),
        "socket.timeout.ms": _SOCKET_TIMEOUT_MS,
        "queue.buffering.max.messages": limits.max_unsent_records,
        "message.max.bytes": limits.max_output_bytes + 100_000,
    }


def transactional_config(
    settings: BrokerSettings, group: str, limits: EngineLimits, transaction_timeout_s: float
) -> dict[str, Any]:
    """Return the settings of a producer of transactions, under a name of its own.

    Parameters
    ----------
    settings : BrokerSettings
        Where Kafka is.
    group : str
        The consumer group, which that name begins with.
    limits : EngineLimits
        How much is held at once.
    transaction_timeout_s : float
        After which time Kafka aborts a transaction.
    """
    config, timeout_ms = producer_config(settings, limits), int(transaction_timeout_s * 1000)
    return {
        **config,
        # One for each process: Kafka tells by the group's generation who may commit (KIP-447).
        "transactional.id": f"{group}-{uuid.uuid4().hex}",
        "transaction.timeout.ms": timeout_ms,
        # librdkafka refuses longer ones. A record that comes too late is read again.
        "message.timeout.ms": min(config["message.timeout.ms"], timeout_ms),
        "socket.timeout.ms": min(config["socket.timeout.ms"], timeout_ms - 1000),
    }

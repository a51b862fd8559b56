"""What a transaction tells Kafka of the worker that commits its offsets: its group, generation and member id.

Kafka refuses the offsets of a worker that its group has gone on without (KIP-447), so one transactional producer a
worker is enough. librdkafka takes these three only in a serialised form of its own, which it makes for consumers that
have joined by it. Ours join by aiokafka, so the form is made here.
"""

from __future__ import annotations

import struct

from confluent_kafka import Consumer, libversion

from modelstream.models.errors import ConfigError
from modelstream.streams.cluster import SILENT_LOGGER

__all__ = ["group_metadata", "require_known_layout"]

_PREFIX = b"CGMDv2:"
_NOT_A_MEMBER = -1


def group_metadata(group: str, generation: int, member_id: str, instance_id: str | None = None) -> bytes:
    r"""Return a membership in librdkafka's form, for ``Producer.send_offsets_to_transaction``.

    Parameters
    ----------
    group : str
        The consumer group.
    generation : int
        The group's generation that this member has its partitions of.
    member_id : str
        The name that the group has given it.
    instance_id : str, optional
        The name of a static member.

    Examples
    --------
    >>> group_metadata("flights", 7, "m-1").removeprefix(b"CGMDv2:" + struct.pack("=i", 7))
    b'flights\x00m-1\x00\x01'

    References
    ----------
    rd_kafka_consumer_group_metadata_write in librdkafka's src/rdkafka_cgrp.c.
    """
    texts = b"".join(text.encode() + b"\0" for text in (group, member_id))
    instance = b"\1" if instance_id is None else b"\0" + instance_id.encode() + b"\0"
    return _PREFIX + struct.pack("=i", generation) + texts + instance


def require_known_layout() -> None:
    """Compare the form with librdkafka's own.

    Raises
    ------
    ConfigError
        They differ: offsets would be committed in another member's name, or in nobody's.
    """
    for instance_id in (None, "instance"):
        config = {"group.id": "group"} | ({"group.instance.id": instance_id} if instance_id else {})
        # It connects to nothing.
        consumer = Consumer({**config, "log_level": 0}, logger=SILENT_LOGGER)
        try:
            found = consumer.consumer_group_metadata()
        finally:
            consumer.close()
        if found != group_metadata("group", _NOT_A_MEMBER, "", instance_id):
            raise ConfigError(
                "delivery",
                f"exactly_once does not know how librdkafka {libversion()[0]} writes a group's metadata; install "
                "confluent-kafka 2.16, or choose at_least_once",
            )

"""What librdkafka is asked for, to the last setting: most of them are only noticed when a broker is in trouble."""

from __future__ import annotations

from typing import Any

import pytest

from modelstream.streams.client_settings import consumer_config, producer_config, transactional_config
from modelstream.streams.settings import BrokerSettings, EngineLimits

BROKER = BrokerSettings("kafka:9092", security_protocol="SASL_PLAINTEXT", username="user", password="secret")
LIMITS = EngineLimits(
    fetch_max_records=700,
    fetch_wait_max_ms=110,
    max_rows_in_flight=1300,
    max_bytes_in_flight=17 * 1024,
    max_unsent_records=1900,
    max_output_bytes=23_000,
    delivery_timeout_s=29.5,
    transaction_timeout_s=31,
    linger_ms=37,
)
PRODUCER: dict[str, Any] = {
    **BROKER.librdkafka(),
    "enable.idempotence": True,
    "acks": "all",
    "linger.ms": 37,
    "partitioner": "murmur2_random",
    "message.timeout.ms": 29_500,
    "socket.timeout.ms": 15_000,
    "queue.buffering.max.messages": 1900,
    "message.max.bytes": 123_000,
}


def test_what_the_fetching_consumer_is_told() -> None:
    assert consumer_config(BROKER, "group", LIMITS) == {
        **BROKER.librdkafka(),
        "group.id": "group",
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "error",
        "fetch.wait.max.ms": 110,
        "socket.timeout.ms": 15_000,
        "receive.message.max.bytes": 1_000_000_000,
        "fetch.queue.backoff.ms": 10,
        "queued.min.messages": 2800,
        "queued.max.messages.kbytes": 17,
    }


def test_what_the_producer_is_told() -> None:
    assert producer_config(BROKER, LIMITS) == PRODUCER


@pytest.mark.parametrize(
    ("timeout_s", "shortest"),
    [
        (12.5, {"transaction.timeout.ms": 12_500, "message.timeout.ms": 12_500, "socket.timeout.ms": 11_500}),
        (60, {"transaction.timeout.ms": 60_000, "message.timeout.ms": 29_500, "socket.timeout.ms": 15_000}),
    ],
)
def test_what_a_producer_of_transactions_is_told(timeout_s: float, shortest: dict[str, int]) -> None:
    first, second = (transactional_config(BROKER, "group", LIMITS, timeout_s) for _ in range(2))
    names = [config.pop("transactional.id") for config in (first, second)]
    assert first == second == {**PRODUCER, **shortest}
    assert all(name.startswith("group-") for name in names)
    assert names[0] != names[1]

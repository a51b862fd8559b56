"""Producing and confirming, on Apache Kafka."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from support.kafka_tools import read_all
from support.nameless_broker import NamelessBroker
from support.streams import wait_for

from modelstream.models.errors import BrokerUnavailable
from modelstream.streams.delivery import Delivery, Output
from modelstream.streams.ledger import Ledger, Ticket

pytestmark = pytest.mark.kafka


def delivery_to(bootstrap: str, **config: Any) -> Delivery:
    settings = {"bootstrap.servers": bootstrap, "enable.idempotence": True, "linger.ms": 5}
    return Delivery({**settings, **{key.replace("_", "."): value for key, value in config.items()}})


def open_tickets(*sizes: int) -> list[Ticket]:
    ledger: Ledger[str] = Ledger()
    ledger.assign({"p": 0})
    return [ledger.open("p", 10 * (i + 1), size, follows=10 * i or None) for i, size in enumerate(sizes)]


def output(topic: str, values: list[bytes], ticket: Ticket, **options: Any) -> Output:
    return Output(topic, [b"k"] * len(values), values, [(ticket, len(values))], **options)


def test_rows_are_confirmed_once_and_only_after_they_are_on_kafka(
    kafka: Any, make_topics: Callable[..., list[str]]
) -> None:
    [topic] = make_topics(kafka, "out")
    delivery = delivery_to(kafka.bootstrap)
    first, second = open_tickets(2, 1)
    delivery.produce(output(topic, [b"1", b"2"], first))
    delivery.produce(output(topic, [b"3"], second, headers=[[("reason", b"none")]]))
    assert delivery.confirm(10) == [(first, 2), (second, 1)]
    records = read_all(kafka.bootstrap, topic)
    assert [record.value for record in records] == [b"1", b"2", b"3"]
    assert records[2].headers == (("reason", b"none"),)
    assert delivery.confirm(10) == []


def test_rows_of_a_partition_that_was_given_up_are_not_produced(
    kafka: Any, make_topics: Callable[..., list[str]]
) -> None:
    [topic] = make_topics(kafka, "out")
    delivery = delivery_to(kafka.bootstrap)
    ledger: Ledger[str] = Ledger()
    ledger.assign({"p": 0})
    ticket = ledger.open("p", 1, 1)
    ledger.abandon()
    delivery.produce(output(topic, [b"late"], ticket))
    assert delivery.confirm(10) == []
    assert read_all(kafka.bootstrap, topic) == []


def test_nothing_is_confirmed_while_the_broker_does_not_answer() -> None:
    [ticket] = open_tickets(1)
    delivery = delivery_to("127.0.0.1:1", message_timeout_ms=60_000)
    delivery.produce(output("out", [b"1"], ticket))
    assert delivery.confirm(0.1) == []
    assert delivery.confirm(0.1) == []


def test_a_client_that_has_forgotten_its_broker_is_replaced() -> None:
    # Without that setting it takes an unlucky order of librdkafka's threads.
    settings = {"metadata.recovery.strategy": "none", "topic.metadata.refresh.interval.ms": 200}
    first, lost, again = open_tickets(1, 1, 1)
    with NamelessBroker("out") as broker:
        delivery = Delivery({"bootstrap.servers": f"127.0.0.1:{broker.port}", **settings})
        delivery.produce(output("out", [b"1"], first))
        assert delivery.confirm(10) == [(first, 1)]
        broker.is_named = False
        wait_for(lambda: broker.n_nameless and not broker.n_open, "the client to let go of its broker")
        broker.is_named = True
        delivery.produce(output("out", [b"2"], lost))
        assert delivery.confirm(2) == [], "librdkafka#5301 is mended: renew() may go"
        delivery.renew()
        delivery.produce(output("out", [b"2"], again))
        assert delivery.confirm(10) == [(again, 1)]


def test_a_full_queue_is_waited_for(kafka: Any, make_topics: Callable[..., list[str]]) -> None:
    [topic] = make_topics(kafka, "out")
    delivery = delivery_to(kafka.bootstrap, queue_buffering_max_messages=10)
    [ticket] = open_tickets(500)
    keys, values = [b"key %d" % i for i in range(500)], [b"%d" % i for i in range(500)]
    delivery.produce(Output(topic, keys, values, [(ticket, 500)]))
    assert delivery.confirm(10) == [(ticket, 500)]
    assert [(record.key, record.value) for record in read_all(kafka.bootstrap, topic)] == list(
        zip(keys, values, strict=True)
    )


def test_who_stops_does_not_confirm_what_found_no_room(kafka: Any, make_topics: Callable[..., list[str]]) -> None:
    [topic] = make_topics(kafka, "out")
    delivery = delivery_to(kafka.bootstrap, queue_buffering_max_messages=10)
    [ticket] = open_tickets(500)
    delivery.stop()
    delivery.produce(output(topic, [b"x"] * 500, ticket))
    assert delivery.confirm(10) == []


def test_what_is_on_kafka_takes_no_memory(kafka: Any, make_topics: Callable[..., list[str]]) -> None:
    [topic] = make_topics(kafka, "out")
    # A queue that is full would be looked at as well.
    delivery = delivery_to(kafka.bootstrap, queue_buffering_max_messages=10_000_000)
    n_rows = 5000

    def n_kept_after_another() -> int:
        [ticket] = open_tickets(n_rows)
        delivery.produce(output(topic, [b"x"] * n_rows, ticket))
        return len(delivery._producer)

    n_kept_after_another()
    n_kept_after_another()
    # The last ones may be on their way still.
    wait_for(lambda: n_kept_after_another() <= n_rows, "others to be freed", every_s=0.2)


def test_a_refused_record_is_an_error_and_confirms_nothing(kafka: Any, make_topics: Callable[..., list[str]]) -> None:
    [narrow] = make_topics(kafka, "narrow", max_message_bytes="100")
    delivery = delivery_to(kafka.bootstrap)
    good, bad = open_tickets(1, 1)
    delivery.produce(output(narrow, [b"small"], good))
    delivery.produce(output(narrow, [b"x" * 1000], bad))
    for _ in range(2):  # and it stays so
        with pytest.raises(BrokerUnavailable, match=f"cannot produce to {narrow}: .*too large"):
            delivery.confirm(10)
    with pytest.raises(BrokerUnavailable):
        delivery.produce(output(narrow, [b"small"], good))

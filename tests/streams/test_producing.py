"""Producing: everything is on Kafka, or an error says how much is not."""

from __future__ import annotations

import itertools
import struct
import time
from collections import defaultdict

import pytest
from support.kafka_tools import create_topic, read_all

from modelstream.models.errors import BrokerUnavailable, DecodeError
from modelstream.streams import producing
from modelstream.streams.embedded import free_port
from modelstream.streams.producing import DeliveryFailed, produce_records
from modelstream.streams.settings import BrokerSettings

pytestmark = pytest.mark.kafka


@pytest.fixture
def settings(kafka):
    return BrokerSettings(kafka.bootstrap)


def numbered(n_records, n_keys=7):
    return [(b"key-%d" % (i % n_keys), b"value-%d" % i) for i in range(n_records)]


def test_every_record_arrives_in_the_order_of_its_key(kafka, make_topics, settings):
    (topic,) = make_topics(kafka, "events", partitions=3)
    records = numbered(20_000)

    before_ms = time.time() * 1000
    assert produce_records(settings, topic, iter(records)) == 20_000
    after_ms = time.time() * 1000

    received = read_all(kafka.bootstrap, topic)
    by_key = defaultdict(list)
    for record in received:
        by_key[record.key].append(record.value)
    assert by_key == {key: [value for k, value in records if k == key] for key, _ in records[:7]}
    assert len({record.partition for record in received}) > 1
    assert all(before_ms - 1 <= record.timestamp_ms <= after_ms for record in received)
    assert not any(record.headers for record in received)


def murmur2(data):
    """Return the hash of Kafka's own clients, from its definition (seed 0x9747b28c, made positive)."""
    m, mask = 0x5BD1E995, 0xFFFFFFFF
    h = 0x9747B28C ^ len(data)
    whole = len(data) // 4 * 4
    for (word,) in struct.iter_unpack("<I", data[:whole]):
        k = word * m & mask
        k = (k ^ k >> 24) * m & mask
        h = (h * m & mask) ^ k
    if data[whole:]:
        h = (h ^ int.from_bytes(data[whole:], "little")) * m & mask
    h = (h ^ h >> 13) * m & mask
    return (h ^ h >> 15) & 0x7FFFFFFF


def test_a_key_has_the_partition_that_java_clients_give_it(kafka, make_topics, settings):
    assert murmur2(b"foobar") == -790332482 & 0x7FFFFFFF  # from Kafka's own tests
    (topic,) = make_topics(kafka, "events", partitions=5)
    produce_records(settings, topic, [(b"N%d" % i, b"x") for i in range(500)])
    received = read_all(kafka.bootstrap, topic)
    assert len(received) == 500
    assert all(record.partition == murmur2(record.key) % 5 for record in received)


def test_records_without_a_key_and_without_a_value_arrive(kafka, make_topics, settings):
    (topic,) = make_topics(kafka, "events")
    assert produce_records(settings, topic, [(None, b"a"), (b"", b"")]) == 2
    assert [(record.key, record.value) for record in read_all(kafka.bootstrap, topic)] == [(None, b"a"), (b"", b"")]
    assert produce_records(settings, topic, []) == 0


def test_progress_counts_what_kafka_has(kafka, make_topics, settings):
    (topic,) = make_topics(kafka, "events")
    seen = []
    produce_records(settings, topic, numbered(50_000), seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == 50_000


def test_more_records_than_may_wait(kafka, make_topics, settings, monkeypatch):
    monkeypatch.setitem(producing._CONFIG, "queue.buffering.max.messages", 50)
    (topic,) = make_topics(kafka, "events")
    assert produce_records(settings, topic, numbered(2_000)) == 2_000
    assert [record.value for record in read_all(kafka.bootstrap, topic)] == [value for _, value in numbered(2_000)]


def test_a_rate_holds_records_back(kafka, make_topics, settings):
    (topic,) = make_topics(kafka, "events")
    handed_over = []

    def records():
        for record in numbered(40):
            handed_over.append(time.monotonic())
            yield record

    assert produce_records(settings, topic, records(), rate=100) == 40
    # A loaded machine may make it slower, never faster. The generator is asked for a record one ahead.
    late = [at - handed_over[0] for at in handed_over[1:]]
    assert all(at_s >= (i - 1) / 100 for i, at_s in enumerate(late, 1))
    assert len(read_all(kafka.bootstrap, topic)) == 40


def test_a_refused_record_is_counted_and_the_others_arrive(kafka, make_topics, settings):
    (topic,) = make_topics(kafka, "events", max_message_bytes="2000000")
    records = numbered(1000)
    records[10] = records[500] = (b"large", b"x" * 3_000_000)

    with pytest.raises(DeliveryFailed, match=rf"^2 of 1,000 records were not delivered to {topic}: .*too large") as e:
        produce_records(settings, topic, records)

    assert e.value.n_failed == 2
    assert sorted(r.value for r in read_all(kafka.bootstrap, topic)) == sorted(
        v for _, v in numbered(1000) if v not in (b"value-10", b"value-500")
    )


def test_a_record_larger_than_the_queue_does_not_hang(kafka, make_topics, settings, monkeypatch):
    monkeypatch.setitem(producing._CONFIG, "queue.buffering.max.kbytes", 1024)
    (topic,) = make_topics(kafka, "events")
    with pytest.raises(DeliveryFailed, match="a record of 2,000,000 bytes"):
        produce_records(settings, topic, [(None, b"x"), (None, b"x" * 2_000_000)])


@pytest.mark.parametrize("error", [DecodeError("events.ndjson:11: broken"), KeyboardInterrupt()])
def test_what_was_sent_before_the_input_broke_is_on_kafka(kafka, make_topics, settings, error):
    (topic,) = make_topics(kafka, "events")
    seen = []

    def records():
        yield from numbered(10)
        raise error

    with pytest.raises(type(error)):
        produce_records(settings, topic, records(), seen.append)
    assert seen[-1] == 10
    assert len(read_all(kafka.bootstrap, topic)) == 10


def test_a_broker_that_is_not_there(monkeypatch):
    monkeypatch.setitem(producing._CONFIG, "message.timeout.ms", 1000)
    nowhere = f"127.0.0.1:{free_port()}"
    seen = []
    with pytest.raises(
        BrokerUnavailable, match=rf"^broker {nowhere}: [\d,]+ of [\d,]+ records were not delivered to t: "
    ) as e:
        # Endless: it is the error that ends it.
        produce_records(BrokerSettings(nowhere), "t", ((None, b"x") for _ in itertools.count()), seen.append)
    assert "refused" in str(e.value)
    assert seen[-1] == 0


def test_errors_that_wait_are_no_records_that_wait():
    # librdkafka's queue holds both, and a progress of -2 records was shown once.
    seen = []
    sender = producing._Sender(BrokerSettings(f"127.0.0.1:{free_port()}"), "t", seen.append, None)
    deadline = time.monotonic() + 20
    while not len(sender._producer):
        assert time.monotonic() < deadline, "no error within 20 s"
        time.sleep(0.01)
    sender._report(at_once=True)
    assert seen == [0]


def test_a_broker_that_dies_under_way(start_kafka, monkeypatch):
    monkeypatch.setitem(producing._CONFIG, "message.timeout.ms", 2000)
    kafka = start_kafka()
    create_topic(kafka.bootstrap, "events")
    seen = []

    def records():
        for i in itertools.count():
            if i == 20_000:
                kafka.kill()
            yield None, b"value-%d" % i

    with pytest.raises(BrokerUnavailable, match="records were not delivered"):
        produce_records(BrokerSettings(kafka.bootstrap), "events", records(), seen.append)
    confirmed = seen[-1]
    kafka.restart()
    values = {record.value for record in read_all(kafka.bootstrap, "events")}
    assert len(values) >= confirmed

"""Reading a topic: from where, and to which end, whatever gaps it has."""

from __future__ import annotations

from collections import defaultdict

import orjson
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from support.kafka_tools import DEADLINE_S, Outgoing, admin_client, committed_offsets, create_topic, produce_all

from modelstream.models.errors import BrokerUnavailable
from modelstream.streams import topic_reader
from modelstream.streams.consuming import as_ndjson, read_topic
from modelstream.streams.embedded import free_port
from modelstream.streams.settings import BrokerSettings


@pytest.fixture(
    params=[pytest.param("kafka", marks=pytest.mark.kafka), pytest.param("embedded_broker", marks=pytest.mark.embedded)]
)
def broker(request):
    return request.getfixturevalue(request.param)


def read_to_end(broker, topic, **options):
    batches = read_topic(BrokerSettings(broker.bootstrap), topic, from_beginning=True, until_end=True, **options)
    return [message for batch in batches for message in batch]


def values(messages):
    return [message.value() for message in messages]


def numbered(n_records, partitions=1, start=0):
    return [Outgoing(b"%d" % i, partition=i % partitions) for i in range(start, start + n_records)]


def test_all_of_all_partitions_is_read_in_order(broker, make_topics):
    (topic,) = make_topics(broker, "t", partitions=4)
    produce_all(broker.bootstrap, topic, numbered(30_000, partitions=3))
    by_partition = defaultdict(list)
    for message in read_to_end(broker, topic):
        by_partition[message.partition()].append(int(message.value()))
    assert by_partition == {p: list(range(p, 30_000, 3)) for p in range(3)}


def test_an_empty_topic_is_at_its_end(broker, make_topics):
    (topic,) = make_topics(broker, "t", partitions=3)
    assert read_to_end(broker, topic) == []


def test_the_end_is_where_it_was_at_the_start(broker, make_topics):
    (topic,) = make_topics(broker, "t", partitions=2)
    produce_all(broker.bootstrap, topic, numbered(100, partitions=2))
    # To one of the partitions, so that the other one comes to its end first.
    more = [Outgoing(b"%d" % i, partition=1) for i in range(100, 20_000)]

    messages = read_to_end(broker, topic, on_start=lambda: produce_all(broker.bootstrap, topic, more))

    assert sorted(map(int, values(messages))) == list(range(100))


def test_from_now_on_nothing_old_is_read_and_everything_new_is(broker, make_topics):
    (topic,) = make_topics(broker, "t", partitions=2)
    produce_all(broker.bootstrap, topic, numbered(1000, partitions=2))
    read: list[int] = []
    batches = read_topic(
        BrokerSettings(broker.bootstrap),
        topic,
        from_beginning=False,
        until_end=False,
        stop=lambda: len(read) >= 500,
        on_start=lambda: produce_all(broker.bootstrap, topic, numbered(500, partitions=2, start=1000)),
    )
    for batch in batches:
        read += map(int, values(batch))
    assert sorted(read) == list(range(1000, 1500))


def test_from_now_to_the_end_is_nothing(broker, make_topics):
    (topic,) = make_topics(broker, "t")
    produce_all(broker.bootstrap, topic, numbered(10))
    assert list(read_topic(BrokerSettings(broker.bootstrap), topic, from_beginning=False, until_end=True)) == []


def test_a_limit_ends_within_a_batch(broker, make_topics):
    (topic,) = make_topics(broker, "t")
    produce_all(broker.bootstrap, topic, numbered(100))
    assert values(read_to_end(broker, topic, limit=7)) == [b"%d" % i for i in range(7)]
    assert len(read_to_end(broker, topic, limit=1000)) == 100


def test_stop_ends_an_endless_reading(broker, make_topics):
    (topic,) = make_topics(broker, "t")
    asked = []

    def stop():
        asked.append(True)
        return len(asked) == 3

    settings = BrokerSettings(broker.bootstrap)
    assert list(read_topic(settings, topic, from_beginning=True, until_end=False, stop=stop)) == []


@pytest.mark.kafka
def test_transactions_leave_gaps_and_are_read_once_committed(kafka, make_topics):
    (topic,) = make_topics(kafka, "t")
    producer = Producer({"bootstrap.servers": kafka.bootstrap, "transactional.id": topic, "log_level": 0})
    producer.init_transactions(DEADLINE_S)
    for value, finish in (
        (b"first", producer.commit_transaction),
        (b"aborted", producer.abort_transaction),
        (b"second", producer.commit_transaction),
        (b"aborted too", producer.abort_transaction),
        (b"open", None),
    ):
        producer.begin_transaction()
        producer.produce(topic, value)
        producer.flush(DEADLINE_S)
        if finish is not None:
            finish(DEADLINE_S)
    # The end is a marker, and after it a transaction that nobody may read yet.
    assert values(read_to_end(kafka, topic)) == [b"first", b"second"]
    producer.commit_transaction(DEADLINE_S)
    assert values(read_to_end(kafka, topic)) == [b"first", b"second", b"open"]


@pytest.mark.kafka
def test_deleted_records_are_passed_over(kafka, make_topics):
    (topic,) = make_topics(kafka, "t", partitions=2)
    produce_all(kafka.bootstrap, topic, numbered(20, partitions=2))
    gone = [TopicPartition(topic, 0, 10), TopicPartition(topic, 1, 4)]  # the first one is empty then, from offset 10 on
    admin = admin_client(kafka.bootstrap)
    for future in admin.delete_records(gone).values():
        future.result(DEADLINE_S)
    assert [message.offset() for message in read_to_end(kafka, topic)] == [4, 5, 6, 7, 8, 9]


@pytest.mark.kafka
def test_a_group_goes_on_where_it_stood(kafka, make_topics):
    (topic,) = make_topics(kafka, "t", partitions=3)
    produce_all(kafka.bootstrap, topic, numbered(300, partitions=3))
    first = values(read_to_end(kafka, topic, group=topic, limit=7))
    # Partitions that the first reading did not come to are still due.
    assert len(committed_offsets(kafka.bootstrap, topic, topic)) == 3
    produce_all(kafka.bootstrap, topic, numbered(3, partitions=3, start=300))
    options = {"from_beginning": False, "until_end": True, "group": topic}
    second = [v for batch in read_topic(BrokerSettings(kafka.bootstrap), topic, **options) for v in values(batch)]
    assert len(first) == 7
    assert sorted(map(int, first + second)) == list(range(303))
    assert list(read_topic(BrokerSettings(kafka.bootstrap), topic, **options)) == []
    assert committed_offsets(kafka.bootstrap, topic, topic) == {0: 101, 1: 101, 2: 101}


@pytest.mark.kafka
def test_a_batch_that_was_not_taken_is_not_committed(kafka, make_topics):
    (topic,) = make_topics(kafka, "t")
    produce_all(kafka.bootstrap, topic, numbered(10))
    settings = BrokerSettings(kafka.bootstrap)
    for _ in read_topic(settings, topic, from_beginning=True, until_end=True, group=topic):
        break
    assert committed_offsets(kafka.bootstrap, topic, topic) == {0: 0}


@pytest.mark.kafka
def test_a_group_with_members_is_left_alone(kafka, make_topics):
    (topic,) = make_topics(kafka, "t")
    member = Consumer({"bootstrap.servers": kafka.bootstrap, "group.id": topic, "log_level": 0})
    member.subscribe([topic])
    while not member.assignment():
        member.poll(0.1)
    try:
        with pytest.raises(BrokerUnavailable, match=f"cannot commit for group '{topic}': "):
            read_to_end(kafka, topic, group=topic)
    finally:
        member.close()


@pytest.mark.kafka
def test_a_missing_topic_is_an_error_and_is_not_made(kafka):
    with pytest.raises(BrokerUnavailable, match=r"cannot read no-such-topic: .*[Uu]nknown topic"):
        read_to_end(kafka, "no-such-topic")
    assert "no-such-topic" not in admin_client(kafka.bootstrap).list_topics(timeout=DEADLINE_S).topics


@pytest.mark.kafka
def test_a_broker_that_dies_under_way(start_kafka, monkeypatch):
    monkeypatch.setattr(topic_reader, "_SILENCE_S", 1.0)
    # What the consumer has fetched already is less than there is.
    monkeypatch.setitem(topic_reader._CONFIG, "queued.max.messages.kbytes", 100)
    monkeypatch.setitem(topic_reader._CONFIG, "fetch.message.max.bytes", 10_000)
    kafka = start_kafka()
    create_topic(kafka.bootstrap, "t")
    produce_all(kafka.bootstrap, "t", [b"x" * 1000] * 5000)
    with pytest.raises(BrokerUnavailable, match=f"^broker {kafka.bootstrap}: no answer for 1 s"):
        read_to_end(kafka, "t", on_start=kafka.kill)


def test_a_broker_that_is_not_there(monkeypatch):
    monkeypatch.setattr(topic_reader, "_REQUEST_TIMEOUT_S", 1.0)
    settings = BrokerSettings(f"127.0.0.1:{free_port()}")
    with pytest.raises(BrokerUnavailable, match=f"^broker {settings.bootstrap}: cannot read t: "):
        list(read_topic(settings, "t", from_beginning=True, until_end=True))


@pytest.mark.kafka
def test_every_record_is_one_line(kafka, make_topics):
    (topic,) = make_topics(kafka, "t")
    plain = [b'{"a":1}', b'{"b":"\xc3\xbc"}']
    produce_all(kafka.bootstrap, topic, plain)
    assert as_ndjson(read_to_end(kafka, topic)) == b'{"a":1}\n{"b":"\xc3\xbc"}\n'

    strange = [b'{\n  "a": 1\n}', None, b"", b"no\njson \xff", b"\n"]
    produce_all(kafka.bootstrap, topic, [Outgoing(value) for value in strange])
    lines = as_ndjson(read_to_end(kafka, topic)).split(b"\n")
    assert lines.pop() == b""
    assert [orjson.loads(line) for line in lines] == [{"a": 1}, {"b": "ü"}, {"a": 1}, None, "", "no\njson \ufffd", "\n"]

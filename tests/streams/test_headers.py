"""Headers of records: read without harm, and the engine's told apart from the record's own."""

from __future__ import annotations

import ctypes
from pathlib import Path

import confluent_kafka
import pytest
from confluent_kafka import Message
from hypothesis import given
from hypothesis import strategies as st
from support.kafka_tools import Outgoing, produce_all

from modelstream.streams.consuming import read_topic
from modelstream.streams.headers import OWN, PREFIX, as_count, own_headers, read_headers, split_own
from modelstream.streams.settings import BrokerSettings

names = st.one_of(st.text(max_size=8), st.sampled_from(sorted(OWN)).map(lambda name: PREFIX + name))


@given(st.lists(st.tuples(names, st.none() | st.binary(max_size=8))))
def test_every_header_is_the_engines_or_the_records(headers: list[tuple[str, bytes | None]]) -> None:
    own, others = split_own(headers)
    engine = [(name, value) for name, value in headers if name.removeprefix(PREFIX) in OWN and name.startswith(PREFIX)]
    assert others == [header for header in headers if header not in engine]
    assert own == {name.removeprefix(PREFIX): value or b"" for name, value in engine}


@given(st.binary(max_size=30))
def test_a_count_is_a_whole_number_that_fits_into_an_int64(value: bytes) -> None:
    count = as_count(value)
    assert count is None or (0 <= count < 2**63 and int(value) == count)


def test_what_is_written_is_read_back() -> None:
    own, others = split_own([("a", b"1"), *own_headers({"attempts": 3, "origin": None, "detail": "\ud800 é"})])
    assert own == {"attempts": b"3", "detail": "\\ud800 é".encode()}
    assert others == [("a", b"1")]


def test_headers_of_records_that_have_none_are_none() -> None:
    messages = [Message(value=b"a"), Message(value=b"b", headers=[("x", None)]), Message(value=b"c")]
    assert read_headers(messages) == [None, [("x", None)], None]


@pytest.mark.kafka
def test_a_header_name_that_is_no_utf8_harms_neither_its_record_nor_others(kafka, make_topics) -> None:
    (topic,) = make_topics(kafka, "events")
    headers = [("trace", b"1")]
    produce_all(kafka.bootstrap, topic, [Outgoing(b"before", headers=headers)])
    produce_with_raw_header(kafka.bootstrap, topic, b"bad", b"\xff\xfe", b"1")
    produce_all(kafka.bootstrap, topic, [Outgoing(b"after", headers=headers)])
    settings = BrokerSettings(kafka.bootstrap)
    messages = [m for b in read_topic(settings, topic, from_beginning=True, until_end=True) for m in b]
    assert [message.value() for message in messages] == [b"before", b"bad", b"after"]
    expected = [headers, [("modelstream.dropped_headers", b"all")], headers]
    assert read_headers(messages) == expected
    # Asked twice, since confluent-kafka's own second answer crashes whoever looks at it.
    assert read_headers(messages) == expected


def produce_with_raw_header(bootstrap: str, topic: str, value: bytes, name: bytes, header: bytes) -> None:
    """Produce a record through librdkafka's own interface: clients that write text only cannot write such a name."""
    library = next(Path(confluent_kafka.__file__).parents[1].glob("confluent_kafka.libs/librdkafka*.so*"))
    kafka = ctypes.CDLL(str(library))
    for function in ("rd_kafka_conf_new", "rd_kafka_new"):
        getattr(kafka, function).restype = ctypes.c_void_p
    conf = ctypes.c_void_p(kafka.rd_kafka_conf_new())
    error = ctypes.create_string_buffer(256)
    kafka.rd_kafka_conf_set(conf, b"bootstrap.servers", bootstrap.encode(), error, ctypes.c_size_t(256))
    producer = ctypes.c_void_p(kafka.rd_kafka_new(0, conf, error, ctypes.c_size_t(256)))
    # As rdkafka.h numbers what follows: 1 topic, 4 value, 7 flags (2: copy), 9 a header, 0 the end.
    sized = [value, ctypes.c_size_t(len(value)), 7, 2, 9, name, header, ctypes.c_ssize_t(len(header))]
    arguments = [1, topic.encode(), 4, *sized, 0]
    assert kafka.rd_kafka_producev(producer, *arguments) == 0
    assert kafka.rd_kafka_flush(producer, 30_000) == 0
    kafka.rd_kafka_destroy(producer)

"""Dead letters read back as JSON objects."""

from __future__ import annotations

import orjson
import pytest
from support.kafka_tools import Outgoing, produce_all

from modelstream.streams.consuming import read_topic
from modelstream.streams.dead_letter_json import describe_dead_letter
from modelstream.streams.settings import BrokerSettings

pytestmark = pytest.mark.kafka

HEADERS = [
    ("trace", b"abc"),
    ("trace", b"\xff"),
    ("modelstream.reason", b"missing_field"),
    ("modelstream.stage", b"features"),
    ("modelstream.detail", "field 'größe' is missing".encode()),
    ("modelstream.attempts", b"1"),
    ("modelstream.topic", b"flights.events"),
    ("modelstream.partition", b"3"),
    ("modelstream.offset", b"17"),
    ("modelstream.timestamp_ms", b"1357035300000"),
]


@pytest.fixture
def described(kafka, make_topics):
    def produce_and_describe(record):
        (topic,) = make_topics(kafka, "dead")
        produce_all(kafka.bootstrap, topic, [record])
        settings = BrokerSettings(kafka.bootstrap)
        ((message,),) = read_topic(settings, topic, from_beginning=True, until_end=True)
        described = describe_dead_letter(message)
        assert described.pop("written_ms") == message.timestamp()[1]
        assert described.pop("letter") == "0/0"
        assert orjson.loads(orjson.dumps(described)) == described
        return described

    return produce_and_describe


def test_a_dead_letter_says_why_and_what_it_was(described):
    assert described(Outgoing(b'{"a":1}', b"N1", headers=HEADERS)) == {
        "reason": "missing_field",
        "stage": "features",
        "detail": "field 'größe' is missing",
        "exception": None,
        "attempts": 1,
        "topic": "flights.events",
        "partition": 3,
        "offset": 17,
        "timestamp_ms": 1_357_035_300_000,
        "key": "N1",
        "value": '{"a":1}',
        "headers": [{"name": "trace", "value": "abc"}, {"name": "trace", "value_base64": "/w=="}],
    }


def test_bytes_that_are_no_text_are_base64(described):
    letter = described(Outgoing(b"\xff\xfe", b"\x80", headers=HEADERS))
    assert (letter["value_base64"], letter["key_base64"]) == ("//4=", "gA==")
    assert not {"value", "key"} & letter.keys()


def test_no_key_and_no_value_are_null(described):
    letter = described(Outgoing(None, headers=HEADERS))
    assert (letter["value"], letter["key"]) == (None, None)


def test_of_a_dead_letter_that_died_again_the_last_reason_counts(described):
    again = [("modelstream.reason", b"undecodable"), ("modelstream.exception", b"ValueError")]
    letter = described(Outgoing(b"{", headers=HEADERS + again))
    assert (letter["reason"], letter["exception"], letter["offset"]) == ("undecodable", "ValueError", 17)
    assert [header["name"] for header in letter["headers"]] == ["trace", "trace"]


def test_a_truncated_value_says_so(described):
    more = [("modelstream.truncated_from_bytes", b"2000000"), ("modelstream.sha256", b"ab" * 32)]
    letter = described(Outgoing(b"xx", headers=HEADERS + more))
    assert (letter["truncated_from_bytes"], letter["sha256"]) == (2_000_000, "ab" * 32)


def test_a_letter_of_a_redriven_event_says_where_it_was_before(described):
    more = [("modelstream.origin", b"flights.events/3/5"), ("modelstream.redriven_from", b"dead/1/9")]
    letter = described(Outgoing(b"{", headers=HEADERS + more))
    assert (letter["origin"], letter["redriven_from"]) == ("flights.events/3/5", "dead/1/9")


def test_a_record_of_a_stranger_has_nothing_to_say(described):
    letter = described(Outgoing(b"x", headers=[("modelstream.attempts", b"many")]))
    assert (letter["value"], letter["reason"], letter["attempts"], letter["offset"]) == ("x", None, None, None)

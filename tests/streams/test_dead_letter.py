"""What a dead letter says of its record, how often it was tried, and that Kafka can always take it."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from confluent_kafka import Message
from faust.types import TP

from modelstream.operators.batch import EventBatch, Fault
from modelstream.streams.dead_letter import dead_letters
from modelstream.streams.headers import Headers, split_own
from modelstream.streams.records import RecordBatch

#: What a topic takes by default, and what a worker's producer does.
LARGEST_BYTES = 1_048_588


def letter_of(
    value: bytes | None, key: bytes | None = b"k", headers: Headers | None = None, detail: str = "field 'x' is missing"
) -> tuple[Any, Any, dict[str, bytes], Headers]:
    """Return key, value, what the engine says, and the record's own headers."""
    message = Message(topic="t", partition=1, offset=9, key=key, value=value, headers=headers, timestamp=(1, 77))
    records = RecordBatch(TP("t", 1), [message], epoch=0)
    batch = EventBatch.of_events([{}], source=records)
    batch.reject(0, Fault("score", "missing_field", detail, "KeyError"))
    rejected = batch.settle().rejected
    assert rejected is not None
    output = dead_letters("dead", rejected)
    assert output.headers is not None
    n_bytes = len(output.keys[0] or b"") + len(output.values[0] or b"")  # type: ignore[arg-type]
    n_bytes += sum(len(name.encode()) + len(cell or b"") + 10 for name, cell in output.headers[0])
    assert n_bytes < LARGEST_BYTES
    return output.keys[0], output.values[0], *split_own(output.headers[0])


def test_a_letter_has_the_record_and_why_it_was_rejected() -> None:
    trace: Headers = [("trace", b"\xff"), ("trace", None)]
    key, value, said, headers = letter_of(b"{}", b"k", trace)
    assert (key, value, headers) == (b"k", b"{}", trace)
    assert said == {
        "reason": b"missing_field",
        "stage": b"score",
        "detail": b"field 'x' is missing",
        "attempts": b"1",
        "topic": b"t",
        "partition": b"1",
        "offset": b"9",
        "timestamp_ms": b"77",
        "exception": b"KeyError",
    }


def test_an_event_that_fails_again_has_one_attempt_more_and_keeps_its_origin() -> None:
    redriven: Headers = [
        ("trace", b"1"),
        ("modelstream.attempts", b"2"),
        ("modelstream.origin", b"t/1/3"),
        ("modelstream.redriven_from", b"dead/0/4"),
        ("modelstream.timestamp_ms", b"55"),
    ]
    _, _, said, headers = letter_of(b"{}", headers=redriven)
    assert headers == [("trace", b"1")]  # what the engine said before does not pile up
    assert (said["attempts"], said["origin"], said["redriven_from"]) == (b"3", b"t/1/3", b"dead/0/4")
    assert (said["offset"], said["timestamp_ms"]) == (b"9", b"55")


@pytest.mark.parametrize("attempts", [b"", b"x", b"-1", b"9" * 5000, "٣".encode(), None])
def test_attempts_that_are_no_number_count_as_none(attempts: bytes | None) -> None:
    assert letter_of(b"{}", headers=[("modelstream.attempts", attempts)])[2]["attempts"] == b"1"


def test_a_large_value_leaves_its_beginning_and_its_hash() -> None:
    value = b"x" * 900_001
    _, kept, said, _ = letter_of(value)
    assert kept == value[: 64 * 1024]
    assert said["truncated_from_bytes"] == b"900001"
    assert said["sha256"] == hashlib.sha256(value).hexdigest().encode()
    assert letter_of(value[1:])[1] == value[1:]


def test_a_value_that_fits_only_without_its_headers_is_cut_before_they_are() -> None:
    headers: Headers = [(f"header-{i}", b"x" * 100) for i in range(1000)]
    _, kept, said, others = letter_of(b"x" * 890_000, b"k" * 64_000, headers)
    assert (len(kept), others) == (64 * 1024, headers)
    assert said["truncated_from_bytes"] == b"890000"


@pytest.mark.parametrize("value", [None, b"", b"{}", b"x" * 800_000])
def test_headers_that_fill_a_letter_are_dropped_and_that_is_said(value: bytes | None) -> None:
    _, _, said, others = letter_of(value, headers=[("large", b"x" * 600_000), ("larger", b"x" * 400_000)])
    assert (said["dropped_headers"], others) == (b"2", [])


def test_a_key_that_fills_a_letter_is_cut() -> None:
    key, _, said, _ = letter_of(b"x" * 800_000, b"k" * 960_000, [("trace", b"1")])
    assert len(key) == 64 * 1024
    assert said["key_truncated_from_bytes"] == b"960000"


def test_a_detail_is_one_line_whatever_the_exception_said() -> None:
    said = letter_of(b"{}", detail="\ud800" * 10_000)[2]
    assert len(said["detail"]) == 500 * len("\\ud800")


def test_headers_that_could_not_be_read_are_said_to_be_dropped() -> None:
    _, _, said, others = letter_of(b"{}", headers=[("modelstream.dropped_headers", b"all")])
    assert (said["dropped_headers"], others) == (b"all", [])

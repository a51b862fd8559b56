"""Fetched records by partition: every record once, in the order of its partition."""

from __future__ import annotations

from itertools import groupby

import numpy as np
from confluent_kafka import Message
from faust.types import TP
from hypothesis import given
from hypothesis import strategies as st

from modelstream.streams.ledger import Ledger
from modelstream.streams.records import RecordBatch, split_by_partition


def message(topic: str, partition: int, offset: int, value: bytes | None = b"v") -> Message:
    return Message(topic=topic, partition=partition, offset=offset, key=b"k%d" % offset, value=value, timestamp=(1, 7))


@given(st.lists(st.tuples(st.sampled_from(["a", "b"]), st.integers(0, 3)), min_size=1, max_size=60))
def test_every_record_is_in_its_partition_in_the_order_it_came(places: list[tuple[str, int]]) -> None:
    messages = [message(topic, partition, offset) for offset, (topic, partition) in enumerate(places)]
    split = split_by_partition(messages, {topic for topic, _ in places})
    expected: dict[TP, list[int]] = {}
    for offset, place in enumerate(places):
        expected.setdefault(TP(*place), []).append(offset)
    assert {tp: [m.offset() for m in run] for tp, run in split.items()} == expected


@given(st.lists(st.integers(0, 3), min_size=1, max_size=60))
def test_one_topic_is_not_asked_for(partitions: list[int]) -> None:
    messages = [message("ignored", partition, offset) for offset, partition in enumerate(partitions)]
    split = split_by_partition(messages, {"t"})
    assert set(split) == {TP("t", partition) for partition in partitions}
    assert sum(map(len, split.values())) == len(partitions)
    assert len(list(groupby(partitions))) >= len(split)


def test_a_batch_ends_after_its_last_record_and_knows_its_records() -> None:
    batch = RecordBatch(TP("t", 2), [message("t", 2, 10), message("t", 2, 13, None)], epoch=1)
    assert (len(batch), batch.end_offset, batch.n_bytes) == (2, 14, 1 + 6)  # a value, and two keys
    assert batch.values == [b"v", None]
    assert batch.default_ids() == ["t/2/10", "t/2/13"]
    assert batch.timestamps_ms.tolist() == [7, 7]
    record = batch.record(1)
    assert (record.offset, record.key, record.value, record.headers) == (13, b"k13", None, [])


def test_bytes_are_those_of_keys_values_and_headers() -> None:
    batch = RecordBatch(
        TP("t", 2), [message("t", 2, 10), *with_headers([("trace", b"12345"), ("none", None)])], epoch=1
    )
    assert batch.n_bytes == (3 + 1) + 2 + (5 + 5) + 4
    alone = Message(topic="t", partition=2, offset=11, key=None, value=b"1234", timestamp=(1, 7))
    assert RecordBatch(TP("t", 2), [alone], epoch=1).n_bytes == 4
    times = np.zeros(2, np.int64)
    assert RecordBatch.of_values(TP("t", 2), [b"123", None], [None, b"k"], times, 0).n_bytes == 4


def test_a_redriven_record_has_the_id_and_the_time_of_the_record_it_was_at_first() -> None:
    redriven = [("modelstream.origin", b"t/2/3"), ("modelstream.timestamp_ms", b"5"), ("trace", b"x")]
    other = [("trace", b"\xff"), ("modelstream.timestamp_ms", b"6")]
    batch = RecordBatch(TP("t", 2), [message("t", 2, 10), *with_headers(redriven, other)], epoch=1)
    assert batch.default_ids() == ["t/2/10", "t/2/3", "t/2/21"]
    assert batch.default_ids(slice(1, 2)) == ["t/2/3"]
    assert batch.first_timestamps_ms.tolist() == [7, 5, 7]
    assert batch.timestamps_ms.tolist() == [7, 7, 7]


def test_whatever_a_header_holds_is_no_reason_to_fail() -> None:
    strange = [("modelstream.origin", b"\xff"), ("modelstream.timestamp_ms", b"9" * 30)]
    batch = RecordBatch(TP("t", 2), with_headers(strange, [("modelstream.origin", None)]), epoch=1)
    assert batch.default_ids() == ["\ufffd", ""]
    assert batch.first_timestamps_ms.tolist() == [7, 7]


def test_a_batch_is_under_way_until_its_rows_are_handed_over_sent_or_anothers() -> None:
    ledger: Ledger[TP] = Ledger()
    ledger.assign({TP("t", 2): 10})
    batches = [RecordBatch(TP("t", 2), [message("t", 2, at), message("t", 2, at + 1)], 1) for at in (10, 12, 14)]
    assert all(batch.is_under_way for batch in batches), "nobody has taken them up yet"
    for batch in batches:
        follows = None if batch is batches[0] else batch.end_offset - 2
        batch.ticket = ledger.open(batch.tp, batch.end_offset, 2, follows=follows)
    handed_over, sent, anothers = batches
    handed_over.let_go(1)
    assert handed_over.is_under_way
    handed_over.let_go(1)
    sent.unsent = 0
    assert [batch.is_under_way for batch in batches] == [False, False, True]
    ledger.drop([TP("t", 2)])
    assert not anothers.is_under_way


def with_headers(*headers: list[tuple[str, bytes | None]]) -> list[Message]:
    return [
        Message(topic="t", partition=2, offset=20 + i, key=b"k", value=b"v", timestamp=(1, 7), headers=of_one)
        for i, of_one in enumerate(headers)
    ]

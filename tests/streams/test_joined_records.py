"""Records of several partitions as one sequence: nothing is told otherwise than by the batches themselves."""

from __future__ import annotations

from confluent_kafka import Message
from faust.types import TP
from hypothesis import given
from hypothesis import strategies as st

from modelstream.streams.joined_records import JoinedRecords
from modelstream.streams.records import RecordBatch


def batch_of(partition: int, n_rows: int) -> RecordBatch:
    messages = [
        Message(
            topic="t", partition=partition, offset=10 + i, key=b"%d-%d" % (partition, i), value=b"v%d" % i,
            timestamp=(1, 100 * partition + i),
            headers=None if i % 2 == 0 else [("tier", b"%d" % i), ("modelstream.origin", b"u/%d/%d" % (partition, i))],
        )
        for i in range(n_rows)
    ]  # fmt: skip
    return RecordBatch(TP("t", partition), messages, epoch=1)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.data())
def test_rows_are_those_of_the_batches_in_their_order(sizes: list[int], data: st.DataObject) -> None:
    batches = [batch_of(partition, n_rows) for partition, n_rows in enumerate(sizes)]
    joined = JoinedRecords(batches)
    places = [(batch, row) for batch in batches for row in range(len(batch))]
    assert len(joined) == len(places)
    assert joined.values == [batch.values[row] for batch, row in places]
    assert joined.keys == [batch.keys[row] for batch, row in places]
    assert joined.timestamps_ms.tolist() == [int(batch.timestamps_ms[row]) for batch, row in places]
    assert joined.first_timestamps_ms.tolist() == [int(batch.first_timestamps_ms[row]) for batch, row in places]
    assert joined.priorities("tier").tolist() == [row % 10 if row % 2 else 0 for _, row in places]

    start = data.draw(st.integers(0, len(places) - 1))
    rows = slice(start, data.draw(st.integers(start + 1, len(places))))
    assert joined.default_ids(rows) == [batch.default_ids()[row] for batch, row in places[rows]]
    lineage = joined.lineage(rows)
    told = zip(lineage.source_index.tolist(), lineage.record_index.tolist(), strict=True)
    assert [(lineage.sources[source], record) for source, record in told] == places[rows]
    assert all(n_rows for _, n_rows in lineage.count_by_source())
    assert len(lineage.count_by_source()) == len(lineage.sources)

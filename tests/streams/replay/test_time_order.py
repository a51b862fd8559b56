"""Partitions merged by time: one order, whatever came when."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from modelstream.streams.replay.time_order import TimeOrder

#: For each partition the times of its records, in its order.
PARTITIONS = st.lists(st.lists(st.integers(0, 20), max_size=12), min_size=1, max_size=4)


def merged(partitions, arrivals):
    """Merge records ``(partition, position)`` that come in pieces: of which partition, how many."""
    order = TimeOrder(range(len(partitions)))
    came = [0] * len(partitions)
    out = []
    for partition, n in [*arrivals, *((p, len(times)) for p, times in enumerate(partitions))]:
        start, end = came[partition], min(came[partition] + n, len(partitions[partition]))
        if start < end:
            records = [(partition, i) for i in range(start, end)]
            order.add(partition, np.array(partitions[partition][start:end]), records)
        came[partition] = end
        if end == len(partitions[partition]):
            order.close(partition)
        out += order.take()
    assert not any(map(order.waiting, range(len(partitions))))
    return out


@given(PARTITIONS, st.data())
def test_the_order_is_that_of_times_then_partitions_and_keeps_each_partitions_own(partitions, data):
    piece = st.tuples(st.integers(0, len(partitions) - 1), st.integers(1, 12))
    found = merged(partitions, data.draw(st.lists(piece, max_size=12)))
    rising = [np.maximum.accumulate(times).tolist() if times else [] for times in partitions]
    due = [(time, p, i) for p, times in enumerate(rising) for i, time in enumerate(times)]
    assert found == [(p, i) for _, p, i in sorted(due)]


def test_what_nothing_can_go_before_is_given_at_once():
    order = TimeOrder([0, 1])
    order.add(0, np.array([1, 2, 9]), ["a", "b", "z"])
    assert order.take() == []
    order.add(1, np.array([2]), ["c"])
    assert order.take() == ["a", "b", "c"]
    assert order.waiting(0) == ["z"]
    order.close(1)
    assert order.take() == ["z"]

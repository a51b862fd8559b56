from __future__ import annotations

import pytest
from support.batches import EPOCH_S, Source, rows_of

from modelstream.operators.batch import EventBatch
from modelstream.operators.row_queue import RowQueue, Taken


def take(queue: RowQueue, max_rows: int, max_bytes: int | None = None) -> list[tuple[str, int, int]]:
    return rows_of(EventBatch.concat(queue.take(max_rows, max_bytes).parts))


def fill(queue: RowQueue, *batches: EventBatch) -> None:
    for second, batch in enumerate(batches):
        queue.add(batch, now_s=float(second), wall_s=EPOCH_S + second)


def test_a_batch_that_fits_is_passed_on_untouched() -> None:
    queue, batch = RowQueue(), Source("a").batch(5)
    fill(queue, batch)
    assert queue.take(5, None).parts == [batch]
    assert queue.take(5, None) == Taken()


def test_batches_are_merged_and_split_in_their_order() -> None:
    queue, a, b = RowQueue(), Source("a"), Source("b")
    fill(queue, a.batch(3), b.batch(3), a.batch(3))
    assert take(queue, 4) == [("a", 0, 0), ("a", 1, 0), ("a", 2, 0), ("b", 0, 0)]
    assert take(queue, 4) == [("b", 1, 0), ("b", 2, 0), ("a", 3, 0), ("a", 4, 0)]
    assert queue.n_rows == 1
    assert take(queue, 4) == [("a", 5, 0)]


def test_a_batch_without_rows_is_as_if_it_were_not_there() -> None:
    queue, a = RowQueue(), Source("a")
    fill(queue, a.batch(0), a.batch(1, sizes=[7]))
    assert (queue.n_rows, queue.n_bytes) == (1, 7)
    assert len(queue.take(9, 9).parts) == 1


def test_bytes_end_a_batch_before_the_row_that_does_not_fit() -> None:
    queue, a = RowQueue(), Source("a")
    fill(queue, a.batch(4, sizes=[4, 5, 2, 10]), a.batch(3, sizes=[11, 0, 10]))
    assert take(queue, 99, 10) == [("a", 0, 0), ("a", 1, 0)]
    assert queue.n_bytes == 33
    assert take(queue, 99, 10) == [("a", 2, 0)]
    assert take(queue, 99, 10) == [("a", 3, 0)]
    assert take(queue, 99, 10) == [("a", 4, 0)], "a row above the limit goes alone"
    assert take(queue, 99, 10) == [("a", 5, 0), ("a", 6, 0)]
    assert queue.n_bytes == 0


def test_what_has_no_known_size_does_not_go_with_a_row_that_is_too_large() -> None:
    queue, a, b = RowQueue(), Source("a"), Source("b")
    fill(queue, a.batch(1, sizes=[11]), b.batch(2))
    assert take(queue, 99, 10) == [("a", 0, 0)]
    assert take(queue, 99, 10) == [("b", 0, 0), ("b", 1, 0)]


def test_a_batch_is_not_cut_where_there_are_enough_rows_without_it() -> None:
    queue, a = RowQueue(), Source("a")
    fill(queue, a.batch(3), a.batch(4), a.batch(2))
    assert [len(part) for part in queue.take(5, None, enough=4).parts] == [3, 2]
    assert [len(part) for part in queue.take(3, None, enough=2).parts] == [2]
    assert [len(part) for part in queue.take(9, None, enough=1).parts] == [2]


def test_higher_priorities_go_first_and_each_stays_in_order() -> None:
    queue, a, b = RowQueue(), Source("a"), Source("b")
    fill(queue, a.batch(4, priorities=[0, 9, 0, 9]), b.batch(2))
    assert take(queue, 99) == [("a", 1, 9), ("a", 3, 9), ("a", 0, 0), ("a", 2, 0), ("b", 0, 0), ("b", 1, 0)]


def test_rows_of_one_priority_are_not_copied() -> None:
    queue, batch = RowQueue(), Source("a").batch(2, priorities=[3, 3])
    fill(queue, batch)
    assert queue.take(2, None).parts == [batch]


def test_the_longest_wait_of_the_lanes_below_gets_an_eighth() -> None:
    queue, a, b, c = RowQueue(), Source("a"), Source("b"), Source("c")
    fill(queue, c.batch(3, priorities=[0] * 3), b.batch(30, priorities=[5] * 30), a.batch(90, priorities=[9] * 90))
    assert take(queue, 16)[:3] == [("c", 0, 0), ("c", 1, 0), ("a", 0, 9)]
    assert take(queue, 16)[:3] == [("c", 2, 0), ("b", 0, 5), ("a", 14, 9)]
    assert take(queue, 16)[:3] == [("b", 1, 5), ("b", 2, 5), ("a", 28, 9)]


def test_the_share_of_small_batches_is_kept_on_the_average() -> None:
    queue, a, b = RowQueue(), Source("a"), Source("b")
    fill(queue, b.batch(10, priorities=[0] * 10), a.batch(99, priorities=[1] * 99))
    taken = [take(queue, 1)[0][0] for _ in range(32)]
    assert "".join(taken) == "aaaaaaab" * 4


def test_large_rows_below_get_an_eighth_of_the_bytes_and_not_the_batch() -> None:
    queue, a, b = RowQueue(), Source("a"), Source("b")
    fill(queue, b.batch(16, priorities=[0] * 16, sizes=[10] * 16), a.batch(90, priorities=[1] * 90, sizes=[1] * 90))
    rows = take(queue, 40, 80)
    assert [name for name, _, _ in rows].count("b") == 1
    assert len(rows) == 40


def test_ages_are_counted_on_the_monotonic_clock_from_the_record_on() -> None:
    queue, a = RowQueue(), Source("a")
    produced_s = [EPOCH_S - 1, EPOCH_S - 3, EPOCH_S - 2, EPOCH_S + 50]
    queue.add(a.batch(4, produced_s=produced_s), now_s=100.0, wall_s=EPOCH_S)
    assert [queue.born_s(n) for n in (1, 2, 3, 4)] == [99.0, 97.0, 97.0, 97.0]
    taken = queue.take(2, None)
    assert (taken.added_s, taken.born_s) == (100.0, 97.0)
    assert queue.take(1, None).born_s == 98.0
    assert queue.take(1, None).born_s == 100.0, "a record from the future is as old as its wait"


@pytest.mark.parametrize("times", [[-1, -1], [0, -1], None])
def test_records_without_a_time_are_as_old_as_their_wait(times: list[int] | None) -> None:
    queue, a = RowQueue(), Source("a")
    queue.add(a.batch(2, produced_s=None if times is None else [t / 1000 for t in times]), 100.0, EPOCH_S)
    assert queue.born_s(2) == 100.0


def test_a_record_without_a_time_does_not_hide_those_with_one() -> None:
    queue, a = RowQueue(), Source("a")
    queue.add(a.batch(3, produced_s=[-0.001, EPOCH_S - 5, EPOCH_S - 4]), 100.0, EPOCH_S)
    assert queue.born_s(3) == 95.0


def test_dropped_rows_are_gone_from_batches_that_hold_others_too() -> None:
    queue, a, b, c = RowQueue(), Source("a"), Source("b"), Source("c")
    mixed = EventBatch.concat([a.batch(2, sizes=[1, 2]), b.batch(2, sizes=[4, 8]), a.batch(2, sizes=[16, 32])])
    fill(queue, mixed, a.batch(3, sizes=[64] * 3), c.batch(1, sizes=[128]))
    assert take(queue, 1) == [("a", 0, 0)]
    a.live = False
    assert queue.drop(lambda source: source.live) == 6
    assert (queue.n_rows, queue.n_bytes) == (3, 140)
    assert take(queue, 99) == [("b", 0, 0), ("b", 1, 0), ("c", 0, 0)]
    assert queue.drop(lambda source: source.live) == 0


@pytest.mark.parametrize("n_taken", range(7))
@pytest.mark.parametrize("gone", ["a", "b"])
@pytest.mark.parametrize("order", ["aab", "aba", "baa", "abb", "bab", "bba"])
def test_what_is_dropped_of_a_batch_of_two_sources_is_of_what_still_waits(order: str, gone: str, n_taken: int) -> None:
    queue, sources = RowQueue(), {name: Source(name) for name in "ab"}
    merged = EventBatch.concat([sources[name].batch(2, sizes=[3, 5]) for name in order])
    due = rows_of(merged)[n_taken:]
    sizes = [3, 5, 3, 5, 3, 5][n_taken:]
    fill(queue, merged)
    if n_taken:
        queue.take(n_taken, None)
    left = [row for row in due if row[0] != gone]
    assert queue.drop(lambda source: source.name != gone) == len(due) - len(left)
    assert queue.n_rows == len(left)
    assert queue.n_bytes == sum(size for row, size in zip(due, sizes, strict=True) if row[0] != gone)
    assert [row for part in queue.take(99, None).parts for row in rows_of(part)] == left

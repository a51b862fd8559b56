"""The ledger: committed offsets never pass an unfinished row; `test_ledger_machine` looks for interleavings."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelstream.streams.ledger import Ledger


def test_overtaking_batches_wait_for_the_first() -> None:
    ledger: Ledger[str] = Ledger()
    ledger.assign({"p": 0})
    first, second, third = (ledger.open("p", end, 10, follows=end - 10 or None) for end in (10, 20, 30))
    ledger.finish(second, 10)
    ledger.finish(third, 10)
    assert ledger.committable("p") is None
    ledger.finish(first, 9)
    assert ledger.committable("p") is None
    ledger.finish(first, 1)
    assert ledger.committable("p") == 30


def test_a_failed_commit_is_tried_again() -> None:
    ledger: Ledger[str] = Ledger()
    ledger.assign({"p": 0})
    ledger.finish(ledger.open("p", 10, 1), 1)
    assert ledger.committable("p") == 10
    assert ledger.committable("p") == 10  # asking does not take it away
    ledger.confirm("p", 10)
    assert ledger.committable("p") is None


def test_a_confirmation_of_an_older_offset_does_not_hide_a_newer_one() -> None:
    ledger: Ledger[str] = Ledger()
    ledger.assign({"p": 0})
    ledger.finish(ledger.open("p", 10, 1), 1)
    ledger.finish(ledger.open("p", 20, 1, follows=10), 1)
    ledger.confirm("p", 10)
    assert ledger.committable("p") == 20


def test_finishing_more_rows_than_were_read_is_an_error() -> None:
    ledger: Ledger[str] = Ledger()
    ledger.assign({"p": None})
    ticket = ledger.open("p", 10, 2)
    with pytest.raises(ValueError, match="more rows finished than were read"):
        ledger.finish(ticket, 3)


def test_confirmations_that_come_in_the_wrong_order_commit_nothing_twice() -> None:
    ledger: Ledger[str] = Ledger()
    ledger.assign({"p": 0})
    ledger.finish(ledger.open("p", 20, 1), 1)
    ledger.confirm("p", 20)
    ledger.confirm("p", 10)
    assert ledger.committable("p") is None


@pytest.mark.parametrize("n_rows", [0, -1])
def test_a_batch_without_rows_would_never_be_finished(n_rows: int) -> None:
    ledger: Ledger[str] = Ledger()
    ledger.assign({"p": 0})
    with pytest.raises(ValueError, match="at least one row"):
        ledger.open("p", 10, n_rows)


def test_rows_cannot_be_unfinished_again() -> None:
    ledger: Ledger[str] = Ledger()
    ledger.assign({"p": 0})
    ticket = ledger.open("p", 10, 2)
    with pytest.raises(ValueError, match="-1 rows finished"):
        ledger.finish(ticket, -1)


def test_batches_must_be_opened_in_order() -> None:
    ledger: Ledger[str] = Ledger()
    ledger.assign({"p": 5})
    with pytest.raises(ValueError, match="opened after"):
        ledger.open("p", 5, 1)
    ledger.open("p", 10, 1)
    with pytest.raises(ValueError, match="opened after"):
        ledger.open("p", 9, 1, follows=10)


def test_a_batch_left_out_is_an_error_and_not_a_loss() -> None:
    ledger: Ledger[str] = Ledger()
    ledger.assign({"p": 5})
    ledger.open("p", 10, 5)
    with pytest.raises(ValueError, match="follows 20 is opened after one up to 10"):
        ledger.open("p", 30, 10, follows=20)
    ledger.open("p", 40, 3, follows=10)  # a gap within a batch, as compaction leaves, is none


def test_a_commit_confirmed_late_does_not_move_the_group_back() -> None:
    ledger: Ledger[str] = Ledger()
    ledger.assign({"p": 100})
    ledger.confirm("p", 150)
    assert ledger.committable("p") is None
    ledger.finish(ledger.open("p", 120, 1), 1)
    assert ledger.committable("p") is None


@given(sizes=st.lists(st.integers(1, 5), min_size=1, max_size=8), data=st.data())
def test_rows_finished_in_any_order_commit_the_contiguous_prefix(sizes: list[int], data: st.DataObject) -> None:
    ledger: Ledger[str] = Ledger()
    ledger.assign({"p": None})
    ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]
    before = [None, *ends[:-1]]
    tickets = [ledger.open("p", end, size, follows=b) for end, size, b in zip(ends, sizes, before, strict=True)]
    rows = data.draw(st.permutations([i for i, size in enumerate(sizes) for _ in range(size)]))
    left = list(sizes)
    for row in rows:
        ledger.finish(tickets[row], 1)
        left[row] -= 1
        finished = next((i for i, n in enumerate(left) if n), len(left))
        assert ledger.committable("p") == (ends[finished - 1] if finished else None)
    assert ledger.is_idle


def test_a_gap_is_committed_once_all_before_it_is_opened_and_finished() -> None:
    ledger: Ledger[str] = Ledger()
    ledger.assign({"p": 5, "q": 5})
    ledger.pass_over("q", 50, follows=None)
    assert ledger.committable("q") == 50
    ledger.finish(ledger.open("p", 10, 1), 1)
    ledger.pass_over("p", 90, follows=20)  # of a batch that was fetched and is not opened yet
    assert ledger.committable("p") == 10
    second = ledger.open("p", 20, 2, follows=10)
    assert ledger.committable("p") == 10
    ledger.finish(second, 2)
    assert ledger.committable("p") == 90
    third = ledger.open("p", 95, 1, follows=20)
    assert ledger.committable("p") == 90
    ledger.finish(third, 1)
    assert ledger.committable("p") == 95


def test_a_gap_behind_batches_that_were_given_up_is_not_committed() -> None:
    ledger: Ledger[str] = Ledger()
    ledger.assign({"p": 5})
    batch = ledger.open("p", 10, 1)
    ledger.pass_over("p", 90, follows=10)
    ledger.abandon()
    ledger.finish(batch, 1)
    ledger.pass_over("p", 90, follows=10)
    assert ledger.committable("p") is None

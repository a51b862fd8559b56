"""The ledger: committed offsets never pass an unfinished row, whatever the interleaving."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule

from modelstream.streams.ledger import Ledger, Ticket

PARTITIONS = ["p0", "p1", "p2"]


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


class LedgerMachine(RuleBasedStateMachine):
    """Any interleaving of open, finish, commit, failed commit, rebalance and late finishes."""

    tickets = Bundle("tickets")

    def __init__(self) -> None:
        super().__init__()
        self.ledger: Ledger[str] = Ledger()
        self.next_offset = dict.fromkeys(PARTITIONS, 0)
        self.broker = dict.fromkeys(PARTITIONS, 0)  # what the group has committed
        self.unfinished: dict[str, dict[int, int]] = {}  # partition -> first offset of a batch -> rows to finish
        self.generation = 0
        self.gave_up = False

    @initialize()
    def start(self) -> None:
        self.rebalance(set(PARTITIONS))

    @rule(owned=st.sets(st.sampled_from(PARTITIONS)))
    def rebalance(self, owned: set[str]) -> None:
        self.generation += 1
        self.gave_up = False
        self.opened_to: dict[str, int] = {}
        self.ledger.assign({partition: self.broker[partition] for partition in owned})
        for partition in owned:  # reading starts at the committed offset again
            self.next_offset[partition] = self.broker[partition]
        self.unfinished = {partition: {} for partition in owned}

    @rule(target=tickets, partition=st.sampled_from(PARTITIONS), n_rows=st.integers(1, 4))
    def open(self, partition: str, n_rows: int) -> object:
        if partition not in self.ledger.partitions or self.gave_up:
            return multiple()
        start = self.next_offset[partition]
        self.next_offset[partition] = start + n_rows
        self.unfinished[partition][start] = n_rows
        follows, self.opened_to[partition] = self.opened_to.get(partition), start + n_rows
        return self.generation, partition, start, self.ledger.open(partition, start + n_rows, n_rows, follows=follows)

    @rule(item=consumes(tickets))
    def finish(self, item: tuple[int, str, int, Ticket]) -> None:
        generation, partition, start, ticket = item
        self.ledger.finish(ticket, ticket.unfinished)  # possibly long after its partition was taken away
        if generation == self.generation:
            del self.unfinished[partition][start]  # with it go the rows that `finish_one_row` left

    @rule(item=tickets)
    def finish_one_row(self, item: tuple[int, str, int, Ticket]) -> None:
        generation, partition, start, ticket = item
        if ticket.unfinished > 1:
            self.ledger.finish(ticket, 1)
            if generation == self.generation:
                self.unfinished[partition][start] -= 1

    @rule(partition=st.sampled_from(PARTITIONS), succeeds=st.booleans())
    def commit(self, partition: str, succeeds: bool) -> None:
        offset = self.ledger.committable(partition)
        if offset is not None and succeeds:
            assert offset > self.broker[partition]
            self.broker[partition] = offset
            self.ledger.confirm(partition, offset)

    @rule()
    def give_up(self) -> None:
        self.ledger.abandon()
        self.generation += 1  # rows that finish from now on are nobody's
        self.gave_up = True
        assert self.ledger.is_idle
        for partition in self.ledger.partitions:
            with pytest.raises(ValueError, match="given up"):
                self.ledger.open(partition, self.next_offset[partition] + 1, 1)

    @invariant()
    def no_offset_passes_an_unfinished_row(self) -> None:
        for partition, batches in self.unfinished.items():
            committable = self.ledger.committable(partition)
            lowest = min(batches, default=self.next_offset[partition])
            assert (committable or 0) <= lowest
            assert self.broker[partition] <= lowest

    @invariant()
    def all_that_is_finished_can_be_committed(self) -> None:
        if not self.gave_up:
            for partition, batches in self.unfinished.items():
                committable = self.ledger.committable(partition)
                lowest = min(batches, default=self.next_offset[partition])
                assert (self.broker[partition] if committable is None else committable) == lowest


TestLedgerMachine = LedgerMachine.TestCase
TestLedgerMachine.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)

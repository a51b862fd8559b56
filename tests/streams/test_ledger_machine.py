"""The ledger under any interleaving: what the group has committed never passes a row that nobody has finished.

The machine plays the broker and the worker around a real `Ledger`. Several partitions are opened in batches with holes,
as compaction and transaction markers leave them; rows are finished in part and out of order, some long after their
partition went away; commits of several partitions are sent, taken by the broker, refused or confirmed, each at a
moment of its own; partitions are revoked, given up and assigned again in between.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from modelstream.streams.ledger import Ledger, Ticket

PARTITIONS = ["p0", "p1", "p2"]
HOW = [*["nothing"] * 6, "assign", "assign", "revoke", "abandon"]


@dataclass
class Batch:
    """A batch that was taken up, and how many of its rows are still on their way."""

    partition: str
    start: int
    end: int
    ticket: Ticket
    unfinished: int


@dataclass
class Reading:
    """One assignment of a partition, from the worker's side."""

    committed: int | None
    next_offset: int
    opened_to: int | None = None
    batches: list[Batch] = field(default_factory=list)

    @property
    def lowest_unfinished(self) -> int:
        """Where the first row starts that is not finished; the end of what was read where all are."""
        return next((batch.start for batch in self.batches if batch.unfinished), self.next_offset)

    @property
    def finished_to(self) -> int | None:
        """End of the batches that are finished from the first one on; None where the first is not."""
        ends = [batch.end for batch in self.batches if batch.end <= self.lowest_unfinished]
        return ends[-1] if ends else None


class LedgerMachine(RuleBasedStateMachine):
    """The broker and the worker around a ledger."""

    def __init__(self) -> None:
        super().__init__()
        self.ledger: Ledger[str] = Ledger()
        self.broker: dict[str, int] = {}  # what the group has committed
        self.owed: dict[str, set[int]] = {p: set() for p in PARTITIONS}  # offsets with a record that was taken up
        self.done: dict[str, set[int]] = {p: set() for p in PARTITIONS}  # of these, finished by anybody, ever
        self.under_way: list[Batch] = []  # not finished, those of assignments that are over among them
        self.unanswered: list[dict[str, int]] = []  # commits that the broker has, and the worker does not know of
        self.readings: dict[str, Reading] = {}
        self.gave_up = False

    @initialize(owned=st.sets(st.sampled_from(PARTITIONS), min_size=1))
    def start(self, owned: set[str]) -> None:
        self.assign(owned)

    # -- the group

    # Seldom, so that much comes together within one assignment.
    @rule(
        how=st.sampled_from([*["nothing"] * 6, "assign", "assign", "revoke", "abandon"]),
        some=st.sets(st.sampled_from(PARTITIONS)),
    )
    def rebalance(self, how: str, some: set[str]) -> None:
        if how == "revoke":
            self.revoke(some)
        elif how == "abandon":
            self.abandon()
        elif how == "assign" or self.gave_up or not self.readings:
            self.assign(some or set(PARTITIONS))

    def assign(self, owned: set[str]) -> None:
        self.gave_up = False
        self.ledger.assign({p: self.broker.get(p) for p in owned})
        self.readings = {p: Reading(self.broker.get(p), self.broker.get(p, 0)) for p in owned}
        assert self.ledger.partitions == owned

    def revoke(self, lost: set[str]) -> None:
        self.ledger.drop(lost)
        for partition in lost:
            self.readings.pop(partition, None)
            assert self.ledger.committable(partition) is None
            with pytest.raises(KeyError):
                self.ledger.open(partition, 1_000_000, 1)

    def abandon(self) -> None:
        n_open = sum(bool(b.ticket.live) for r in self.readings.values() for b in r.batches if b.unfinished)
        assert self.ledger.abandon() >= n_open
        self.gave_up = True
        assert self.ledger.is_idle
        for partition in self.ledger.partitions:
            with pytest.raises(ValueError, match="given up"):
                self.ledger.open(partition, 1_000_000, 1, follows=self.readings[partition].opened_to)

    # -- the worker's rows

    @precondition(lambda self: self.readings and not self.gave_up)
    @rule(data=st.data(), sizes=st.lists(st.integers(1, 4), min_size=1, max_size=3), hole=st.integers(0, 2))
    def open(self, data: st.DataObject, sizes: list[int], hole: int) -> None:
        partition = data.draw(st.sampled_from(sorted(self.readings)))
        reading = self.readings[partition]
        for n_rows in sizes:
            start = reading.next_offset
            end = start + n_rows + hole  # then a hole, without a record
            follows, reading.opened_to, reading.next_offset = reading.opened_to, end, end
            ticket = self.ledger.open(partition, end, n_rows, follows=follows)
            self.owed[partition] |= set(range(start, start + n_rows))
            batch = Batch(partition, start, end, ticket, n_rows)
            reading.batches.append(batch)
            self.under_way.append(batch)

    @precondition(lambda self: self.readings and not self.gave_up)
    @rule(data=st.data(), skipped=st.integers(1, 3))
    def leave_a_batch_out(self, data: st.DataObject, skipped: int) -> None:
        partition = data.draw(st.sampled_from(sorted(self.readings)))
        reading = self.readings[partition]
        with pytest.raises(ValueError, match="is opened after"):
            self.ledger.open(partition, reading.next_offset + skipped + 1, 1, follows=reading.next_offset + skipped)

    @precondition(lambda self: self.under_way)
    @rule(data=st.data())
    def finish_some_rows(self, data: st.DataObject) -> None:
        batch = data.draw(st.sampled_from(self.under_way))
        self.finish(batch, data.draw(st.integers(1, batch.unfinished)))

    @precondition(lambda self: self.under_way)
    @rule(where=st.sampled_from([0, 0, -1]))
    def finish_a_batch(self, where: int) -> None:
        self.finish(self.under_way[where], self.under_way[where].unfinished)

    def finish(self, batch: Batch, n_rows: int) -> None:
        self.ledger.finish(batch.ticket, n_rows)
        batch.unfinished -= n_rows
        if batch.unfinished == 0:
            self.done[batch.partition] |= set(range(batch.start, batch.end))
            self.under_way.remove(batch)

    # -- commits

    @rule(fate=st.sampled_from(["confirmed", "refused", "answered later", "answered later"]))
    def commit(self, fate: str) -> None:
        proposed = {p: self.ledger.committable(p) for p in self.ledger.partitions}
        offsets = {p: offset for p, offset in proposed.items() if offset is not None}
        if fate == "refused" or not offsets:
            return
        for partition, offset in offsets.items():
            assert offset >= self.broker.get(partition, 0), f"{partition} goes back to {offset}"
        self.broker.update(offsets)
        self.unanswered.append(offsets)
        if fate == "confirmed":
            self.confirm(self.unanswered.pop())

    @precondition(lambda self: self.unanswered)
    @rule(where=st.sampled_from([0, -1]))
    def late_answer(self, where: int) -> None:
        # Possibly after a later one, or in the next assignment; some never come.
        self.confirm(self.unanswered.pop(where))

    def confirm(self, offsets: dict[str, int]) -> None:
        for partition, offset in offsets.items():
            self.ledger.confirm(partition, offset)
            if partition in self.readings:
                reading = self.readings[partition]
                reading.committed = max(offset, -1 if reading.committed is None else reading.committed)

    # -- what must hold, always

    @invariant()
    def nothing_unfinished_is_committed(self) -> None:
        for partition, committed in self.broker.items():
            unfinished = {offset for offset in self.owed[partition] if offset < committed} - self.done[partition]
            assert not unfinished, f"{partition}: {committed} is committed, {sorted(unfinished)} are not finished"

    @invariant()
    def nothing_unfinished_is_committable(self) -> None:
        for partition, reading in self.readings.items():
            offset = self.ledger.committable(partition)
            if offset is not None:
                assert offset <= reading.lowest_unfinished

    @invariant()
    def nothing_goes_backwards(self) -> None:
        for partition, reading in self.readings.items():
            offset = self.ledger.committable(partition)
            if offset is not None and reading.committed is not None:
                assert offset > reading.committed

    @invariant()
    def all_that_is_finished_is_committable_until_the_broker_confirms(self) -> None:
        if self.gave_up:
            return
        for partition, reading in self.readings.items():
            due = reading.finished_to
            if due is not None and reading.committed is not None and due <= reading.committed:
                due = None
            assert self.ledger.committable(partition) == due

    @invariant()
    def the_counts_are_right(self) -> None:
        if not self.gave_up:
            open_tickets = sum(
                batch.end > (reading.finished_to or 0)
                for reading in self.readings.values()
                for batch in reading.batches
            )
            assert self.ledger.open_tickets == open_tickets
            assert self.ledger.is_idle == (open_tickets == 0)


TestLedgerMachine = LedgerMachine.TestCase
TestLedgerMachine.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)

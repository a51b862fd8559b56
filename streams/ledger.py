"""The ledger: which rows of which partition are finished, and so how far the consumer group may commit.

Every batch of records taken up for processing gets a *ticket* in its partition's queue. A row is finished when the
broker has confirmed its prediction or its dead letter, or when a business rule filtered it. What may be committed is
the end of the longest run of finished tickets at the head of the queue: an offset never passes a row that is still
on its way, however the later ones overtook it.

One owner: the worker's event loop. Nothing here waits, locks or knows Kafka.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterable
from typing import Generic, TypeVar

__all__ = ["Ledger", "Ticket"]

PartitionT = TypeVar("PartitionT", bound=Hashable)


class Ticket:
    """One batch of records of one partition, and how many of its rows are not finished yet.

    Parameters
    ----------
    partition : _Partition
        The queue that it stands in.
    end_offset : int
        Offset after the last record of the batch: what is committed once it is finished.
    n_rows : int
        Rows of the batch, at least one.
    """

    __slots__ = ("end_offset", "live", "partition", "unfinished")

    def __init__(self, partition: _Partition, end_offset: int, n_rows: int) -> None:
        self.partition = partition
        self.end_offset = end_offset
        self.unfinished = n_rows
        #: False once the partition was given up: its rows belong to another worker now, nothing is due here.
        self.live = True

    def __repr__(self) -> str:
        return f"Ticket(end_offset={self.end_offset}, unfinished={self.unfinished}, live={self.live})"


class _Partition:
    """The queue of one partition's open tickets, and how far it has come."""

    __slots__ = ("committable", "committed", "finished_rows", "gap", "given_up", "open", "opened_to")

    def __init__(self, start_offset: int | None) -> None:
        self.open: deque[Ticket] = deque()
        self.committable = start_offset
        self.committed = start_offset
        self.given_up = False
        self.finished_rows = 0
        #: End of the last batch that was opened.
        self.opened_to: int | None = None
        #: The last gap that was passed over: the end of the batch before it, and where it ends itself.
        self.gap: tuple[int | None, int] | None = None

    def advance(self) -> None:
        while self.open and self.open[0].unfinished == 0:
            self.committable = self.open.popleft().end_offset
        # Not before all that was read before the gap has been opened, and is finished.
        if self.gap is not None and not self.open and not self.given_up and self.gap[0] == self.opened_to:
            self.committable = self.gap[1]

    def give_up(self) -> int:
        self.given_up = True
        n_tickets = len(self.open)
        while self.open:
            self.open.popleft().live = False
        return n_tickets


class Ledger(Generic[PartitionT]):
    """Tickets of every assigned partition, and the offsets that may be committed.

    Examples
    --------
    >>> ledger = Ledger()
    >>> ledger.assign({"p0": 100})
    >>> first, second = ledger.open("p0", 110, n_rows=10), ledger.open("p0", 120, n_rows=10, follows=110)
    >>> ledger.finish(second, 10)
    >>> ledger.committable("p0")                            # the first batch is still open
    >>> ledger.finish(first, 10)
    >>> ledger.committable("p0")
    120
    >>> ledger.confirm("p0", 120)                           # the broker has it
    >>> ledger.committable("p0"), ledger.is_idle
    (None, True)
    """

    def __init__(self) -> None:
        self._partitions: dict[PartitionT, _Partition] = {}

    def assign(self, start_offsets: dict[PartitionT, int | None]) -> None:
        """Start afresh with these partitions; tickets that are still open are given up.

        Parameters
        ----------
        start_offsets : dict
            For each partition the offset that reading starts at; None where the group has not committed yet.
        """
        self.abandon()
        self._partitions = {partition: _Partition(offset) for partition, offset in start_offsets.items()}

    def abandon(self) -> int:
        """Give up every open ticket, and open no more until the next `assign`. Return how many there were.

        What was finished before them may still be committed. What would come after them may not, since it would be
        committed past them.
        """
        return sum(state.give_up() for state in self._partitions.values())

    def drop(self, partitions: Iterable[PartitionT]) -> None:
        """Forget partitions that another worker owns now."""
        for partition in partitions:
            state = self._partitions.pop(partition, None)
            if state is not None:
                state.give_up()

    def open(self, partition: PartitionT, end_offset: int, n_rows: int, *, follows: int | None = None) -> Ticket:
        """Book a batch that is taken up now. Batches of a partition are opened in their order, none left out.

        Parameters
        ----------
        partition : hashable
            The partition.
        end_offset : int
            Offset after the batch's last record.
        n_rows : int
            Rows of the batch, at least one.
        follows : int, optional
            Where the batch read before it ended; None for the first one since `assign`.

        Raises
        ------
        KeyError
            If the partition is not assigned.
        ValueError
            If the batch does not come right after the one opened before it, or after one that was given up: rows
            would be committed that nobody has seen. Or if it has no rows: it would never be finished.
        """
        state = self._partitions[partition]
        if state.given_up:
            raise ValueError(f"{partition}: a batch up to {end_offset} is opened after others were given up")
        if follows != state.opened_to:
            raise ValueError(f"{partition}: a batch that follows {follows} is opened after one up to {state.opened_to}")
        last = state.committable if follows is None else follows
        if last is not None and end_offset <= last:
            raise ValueError(f"{partition}: a batch up to {end_offset} is opened after one up to {last}")
        if n_rows < 1:
            raise ValueError(f"{partition}: a batch has at least one row, not {n_rows}")
        state.opened_to = end_offset
        ticket = Ticket(state, end_offset, n_rows)
        state.open.append(ticket)
        return ticket

    def pass_over(self, partition: PartitionT, end_offset: int, *, follows: int | None) -> None:
        """Book a gap: records that are not there any more. It may be committed like a batch that is finished.

        Else a worker that is started again would meet the gap again; and where it goes on at the end, as it is then, it
        would pass over records that have come since.

        Parameters
        ----------
        partition : hashable
            The partition; one that is not assigned is passed over.
        end_offset : int
            Where reading goes on.
        follows : int, optional
            Where the batch read before it ended; None where there is none since `assign`.
        """
        state = self._partitions.get(partition)
        if state is not None:
            state.gap = (follows, end_offset)
            state.advance()

    def finish(self, ticket: Ticket, n_rows: int) -> None:
        """Book rows whose prediction or dead letter the broker confirmed, or that were filtered.

        Raises
        ------
        ValueError
            If more rows are finished than the batch had: a row was produced twice. Or fewer than none.
        """
        if n_rows < 0:
            raise ValueError(f"{ticket!r}: {n_rows} rows finished")
        ticket.unfinished -= n_rows
        ticket.partition.finished_rows += n_rows
        if ticket.unfinished < 0:
            raise ValueError(f"{ticket!r}: more rows finished than were read")
        if ticket.unfinished == 0 and ticket.live:
            ticket.partition.advance()

    def committable(self, partition: PartitionT) -> int | None:
        """Return the offset to commit; None where that would not move the group forward.

        It stays the same until `confirm`: a commit that failed is simply tried again.
        """
        state = self._partitions.get(partition)
        if state is None or state.committable is None:
            return None
        # A commit from before the assignment may be confirmed late: the group never goes back.
        return state.committable if state.committed is None or state.committable > state.committed else None

    def confirm(self, partition: PartitionT, offset: int) -> None:
        """Note that the broker has the committed offset. A partition given up meanwhile is passed over."""
        state = self._partitions.get(partition)
        if state is not None and (state.committed is None or offset > state.committed):
            state.committed = offset

    def finished_rows(self, partition: PartitionT) -> int:
        """How many rows of a partition were finished since it was assigned; 0 where it is not."""
        state = self._partitions.get(partition)
        return 0 if state is None else state.finished_rows

    def is_open(self, partition: PartitionT) -> bool:
        """Whether a batch of this partition is under way."""
        state = self._partitions.get(partition)
        return state is not None and bool(state.open)

    @property
    def partitions(self) -> set[PartitionT]:
        """The assigned partitions."""
        return set(self._partitions)

    @property
    def is_idle(self) -> bool:
        """Whether no batch is under way."""
        return not any(state.open for state in self._partitions.values())

    @property
    def open_tickets(self) -> int:
        """How many batches are under way."""
        return sum(len(state.open) for state in self._partitions.values())

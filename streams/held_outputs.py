"""Outputs in the order of their tickets, so that a transaction can end anywhere: with whole batches, none left out.

Rows of several batches are computed together, and rows of one batch at different times, so at any moment there are
outputs of batches that are not through. Were they in a transaction, it could not be committed: the batch would be read
again and they would come twice. So a batch's outputs are held until it is through and all before it in its partition.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from modelstream.streams.delivery import Output
from modelstream.streams.ledger import Ticket

__all__ = ["HeldOutputs"]

_V = TypeVar("_V")


@dataclass(slots=True)
class _Batch:
    """A batch that was begun: its outputs so far, and how many of its rows have neither an output nor need one."""

    ticket: Ticket
    n_rows: int
    missing: int
    outputs: list[Output] = field(default_factory=list)


class HeldOutputs:
    """The outputs of the batches that are under way.

    Used under one lock, or on one thread.

    Examples
    --------
    >>> from modelstream.streams.ledger import Ledger
    >>> ledger = Ledger()
    >>> ledger.assign({"p0": 0})
    >>> first, second = ledger.open("p0", 2, n_rows=2), ledger.open("p0", 3, n_rows=1, follows=2)
    >>> held = HeldOutputs()
    >>> held.begin(first), held.begin(second)
    (None, None)
    >>> held.add(Output("out", [None], [b"third"], [(second, 1)]))
    >>> held.take()                                         # it stands behind two rows that are not through
    ([], [])
    >>> held.add(Output("out", [None, None], [b"first", b"second"], [(first, 2)]))
    >>> outputs, rows = held.take()
    >>> [value for output in outputs for value in output.values], [n for _, n in rows]
    ([b'first', b'second', b'third'], [2, 1])
    """

    def __init__(self) -> None:
        self._batches: dict[Ticket, _Batch] = {}
        #: Those that are not through, by partition.
        self._queues: dict[Hashable, deque[_Batch]] = {}
        #: How many records are held.
        self.n_records = 0

    def begin(self, ticket: Ticket) -> None:
        """Note a batch that is worked on from now on. Batches of a partition are begun in their order."""
        batch = self._batches[ticket] = _Batch(ticket, ticket.unfinished, ticket.unfinished)
        self._queues.setdefault(ticket.partition, deque()).append(batch)

    def add(self, output: Output) -> None:
        """Hold an output until the batches of all its rows are through; one without records says that rows need none.

        Rows of batches that were not begun, or given up, are left out.

        Raises
        ------
        ValueError
            If a batch gets more outputs than it has rows.
        """
        for ticket, part in _by_ticket(output):
            batch = self._batches.get(ticket)
            if batch is None:
                continue
            batch.missing -= part.owed[0][1]
            if batch.missing < 0:
                raise ValueError(f"{ticket!r}: more outputs than rows")
            if part.values:
                batch.outputs.append(part)
                self.n_records += len(part.values)

    def take(self) -> tuple[list[Output], list[tuple[Ticket, int]]]:
        """Return the outputs that are due, and the rows that are settled by them, or needed none."""
        outputs: list[Output] = []
        rows: list[tuple[Ticket, int]] = []
        for queue in self._queues.values():
            while queue and not queue[0].missing:
                batch = queue.popleft()
                del self._batches[batch.ticket]
                self.n_records -= sum(len(output.values) for output in batch.outputs)
                # A batch whose partition was given up meanwhile is another worker's business.
                if batch.ticket.live:
                    outputs += batch.outputs
                    rows.append((batch.ticket, batch.n_rows))
        return outputs, rows

    def clear(self) -> None:
        """Give up what is held."""
        self._batches.clear()
        self._queues.clear()
        self.n_records = 0


def _by_ticket(output: Output) -> list[tuple[Ticket, Output]]:
    if len(output.owed) == 1 or not output.values:
        return [(ticket, replace(output, owed=[(ticket, n_rows)])) for ticket, n_rows in output.owed]
    assert output.lineage is not None
    ticket_of_row = output.lineage.source_index
    parts = []
    for index, (ticket, n_rows) in zip(np.unique(ticket_of_row), output.owed, strict=True):
        rows = np.flatnonzero(ticket_of_row == index)
        parts.append(
            (
                ticket,
                replace(
                    output,
                    keys=_select(output.keys, rows),
                    values=_select(output.values, rows),
                    headers=None if output.headers is None else _select(output.headers, rows),
                    owed=[(ticket, n_rows)],
                    lineage=None,
                ),
            )
        )
    return parts


def _select(values: Sequence[_V], rows: NDArray[Any]) -> Sequence[_V]:
    # Batches that are put together stand one after the other, nearly always.
    if rows[-1] - rows[0] + 1 == len(rows):
        return values[rows[0] : rows[-1] + 1]
    return [values[row] for row in rows.tolist()]

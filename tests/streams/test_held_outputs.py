"""Holding outputs back: whatever comes in whatever order, what is let out is whole batches, none left out."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelstream.operators.batch import Lineage
from modelstream.streams.delivery import Output
from modelstream.streams.held_outputs import HeldOutputs
from modelstream.streams.ledger import Ledger, Ticket


def open_tickets(sizes: dict[str, list[int]]) -> tuple[Ledger[str], dict[str, list[Ticket]]]:
    ledger: Ledger[str] = Ledger()
    ledger.assign(dict.fromkeys(sizes, 0))
    tickets: dict[str, list[Ticket]] = defaultdict(list)
    for partition, counts in sizes.items():
        end = 0
        for count in counts:
            tickets[partition].append(ledger.open(partition, end + count, count, follows=end or None))
            end += count
    return ledger, tickets


def output_of(rows: list[tuple[Ticket, bytes]], *, with_headers: bool = False) -> Output:
    """Return the output of some rows, of whichever tickets, as a stage would."""
    tickets = list(dict.fromkeys(ticket for ticket, _ in rows))
    index = np.array([tickets.index(ticket) for ticket, _ in rows], np.int32)
    return Output(
        "out",
        keys=[value[:1] for _, value in rows],
        values=[value for _, value in rows],
        owed=[(ticket, int((index == i).sum())) for i, ticket in enumerate(tickets)],
        headers=[[("row", value)] for _, value in rows] if with_headers else None,
        lineage=Lineage(tuple(tickets), index, np.zeros(len(rows), np.int32)),
    )


@given(
    sizes=st.fixed_dictionaries({name: st.lists(st.integers(1, 5), min_size=1, max_size=4) for name in "ab"}),
    data=st.data(),
)
def test_what_is_let_out_is_the_longest_run_of_whole_batches(sizes: dict[str, list[int]], data: st.DataObject) -> None:
    ledger, tickets = open_tickets(sizes)
    held = HeldOutputs()
    rows = [
        (ticket, f"{partition}{i}.{row}".encode())
        for partition, opened in tickets.items()
        for i, ticket in enumerate(opened)
        for row in range(ticket.unfinished)
    ]
    for opened in tickets.values():
        for ticket in opened:
            held.begin(ticket)
    rows = data.draw(st.permutations(rows))
    with_headers = data.draw(st.booleans())
    given_out: set[bytes] = set()
    came: set[bytes] = set()
    while rows:
        n_rows = data.draw(st.integers(1, len(rows)))
        part, rows = rows[:n_rows], rows[n_rows:]
        came |= {value for _, value in part}
        held.add(output_of(part, with_headers=with_headers))
        outputs, settled = held.take()
        for output in outputs:
            assert [key for key in output.keys] == [value[:1] for value in output.values]
            if with_headers:
                assert output.headers == [[("row", value)] for value in output.values]
            assert not given_out & set(output.values)
            given_out |= set(output.values)
        # The ledger says how far these rows lead; what is out must be just what stands before that.
        for ticket, count in settled:
            ledger.finish(ticket, count)
        for partition, opened in tickets.items():
            committable = ledger.committable(partition) or 0
            whole = {
                f"{partition}{i}.{row}".encode()
                for i, ticket in enumerate(opened)
                if ticket.end_offset <= committable
                for row in range(sizes[partition][i])
            }
            assert {value for value in given_out if value.startswith(partition.encode())} == whole
            # And nothing is held longer than it must be.
            following = next((i for i, ticket in enumerate(opened) if ticket.end_offset > committable), None)
            if following is not None:
                assert any(
                    f"{partition}{following}.{row}".encode() not in came for row in range(sizes[partition][following])
                )
        assert held.n_records == len(came) - len(given_out)
    assert ledger.is_idle


def test_rows_that_need_no_output_count() -> None:
    _, tickets = open_tickets({"a": [3]})
    [ticket] = tickets["a"]
    held = HeldOutputs()
    held.begin(ticket)
    held.add(output_of([(ticket, b"1")]))
    assert held.take() == ([], [])
    held.add(Output("out", [], [], [(ticket, 2)]))
    outputs, rows = held.take()
    assert [list(output.values) for output in outputs] == [[b"1"]]
    assert rows == [(ticket, 3)]


def test_batches_of_a_partition_that_was_given_up_do_not_come_out() -> None:
    ledger, tickets = open_tickets({"a": [1], "b": [1]})
    [given_up], [kept] = tickets["a"], tickets["b"]
    held = HeldOutputs()
    held.begin(given_up)
    held.begin(kept)
    ledger.drop(["a"])
    held.add(output_of([(given_up, b"a"), (kept, b"b")]))
    outputs, rows = held.take()
    assert [list(output.values) for output in outputs] == [[b"b"]]
    assert rows == [(kept, 1)]
    assert held.n_records == 0


def test_after_clear_what_was_begun_before_is_left_out() -> None:
    _, tickets = open_tickets({"a": [2]})
    [ticket] = tickets["a"]
    held = HeldOutputs()
    held.begin(ticket)
    held.add(output_of([(ticket, b"1")]))
    held.clear()
    held.add(output_of([(ticket, b"2")]))
    assert held.take() == ([], [])
    assert held.n_records == 0


def test_more_outputs_than_rows_is_an_error() -> None:
    _, tickets = open_tickets({"a": [1]})
    [ticket] = tickets["a"]
    held = HeldOutputs()
    held.begin(ticket)
    with pytest.raises(ValueError, match="more outputs than rows"):
        held.add(output_of([(ticket, b"1"), (ticket, b"2")]))

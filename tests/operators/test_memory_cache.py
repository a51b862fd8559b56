from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelstream.models.contract import Column
from modelstream.operators.memory_cache import MemoryCache

SAMPLE: list[Column] = [np.empty(0, np.float32), [], np.empty((0, 2), np.int64)]


class Clock:
    """A clock that goes when it is told to."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def name(i: int) -> bytes:
    # Trailing zero bytes are part of a digest.
    return i.to_bytes(8, "big") + bytes(8)


def answers(rows: list[int]) -> list[Column]:
    numbers = np.array(rows, np.int64)
    return [numbers.astype(np.float32) / 3, [f"<{row}>" for row in rows], np.stack([numbers, -numbers], axis=1)]


def plain(columns: list[Column]) -> list[Any]:
    return [column if isinstance(column, list) else (column.dtype, column.tolist()) for column in columns]


def known(memory: MemoryCache, rows: list[int]) -> list[int]:
    slots = memory.find([name(row) for row in rows])
    found = [row for row, slot in zip(rows, slots.tolist(), strict=True) if slot >= 0]
    assert plain(memory.read(slots[slots >= 0])) == plain(answers(found))
    return found


def add(memory: MemoryCache, rows: list[int]) -> None:
    memory.add([name(row) for row in rows], answers(rows))


def test_answers_come_back_as_they_were() -> None:
    memory = MemoryCache(SAMPLE, 10, 60)
    assert known(memory, [1, 2]) == []
    add(memory, [3, 1, 2])
    assert known(memory, [2, 7, 3, 2]) == [2, 3, 2]
    assert len(memory) == 3


def test_what_is_read_is_a_copy() -> None:
    memory = MemoryCache(SAMPLE, 2, 60)
    add(memory, [1])
    first = memory.read(memory.find([name(1)]))
    add(memory, [2])
    add(memory, [3, 4])
    assert plain(first) == plain(answers([1]))


def test_rows_that_nobody_asks_for_go_first() -> None:
    memory = MemoryCache(SAMPLE, 4, 60)
    add(memory, [1, 2, 3, 4])
    assert known(memory, [2, 4]) == [2, 4]
    add(memory, [5, 6])
    assert known(memory, [1, 2, 3, 4, 5, 6]) == [2, 4, 5, 6]


def test_a_stream_of_new_rows_does_not_wash_out_those_that_come_again() -> None:
    memory = MemoryCache(SAMPLE, 100, 60)
    hot = list(range(50))
    add(memory, hot)
    for start in range(1000, 5000, 20):
        assert known(memory, hot) == hot
        add(memory, list(range(start, start + 20)))


def test_more_rows_than_fit() -> None:
    memory = MemoryCache(SAMPLE, 3, 60)
    add(memory, [1, 2])
    add(memory, [3, 4, 5, 6, 7])
    assert known(memory, [1, 2, 3, 4, 5, 6, 7]) == [5, 6, 7]


def test_no_rows_at_all() -> None:
    memory = MemoryCache(SAMPLE, 0, 60)
    add(memory, [1])
    assert known(memory, [1]) == []


def test_answers_last_for_about_as_long_as_asked() -> None:
    clock = Clock()
    memory = MemoryCache(SAMPLE, 1000, 100, clock, np.random.default_rng(1))
    rows = list(range(1000))
    add(memory, rows)
    clock.now_s = 89.9
    assert known(memory, rows) == rows
    clock.now_s = 100
    assert 400 < len(known(memory, rows)) < 600
    clock.now_s = 110.1
    assert known(memory, rows) == []
    # And what is too old is kept anew.
    add(memory, rows[:10])
    assert known(memory, rows) == rows[:10]


@pytest.mark.parametrize("max_rows", [1, 2, 5, 300])
@given(
    steps=st.lists(
        st.tuples(st.sampled_from(["find", "add", "wait"]), st.lists(st.integers(0, 20), max_size=8, unique=True)),
        max_size=30,
    )
)
def test_it_never_gives_another_rows_answer_nor_grows(max_rows: int, steps: list[tuple[str, list[int]]]) -> None:
    clock = Clock()
    memory = MemoryCache(SAMPLE, max_rows, 10, clock)
    added: set[int] = set()
    for step, rows in steps:
        if step == "wait":
            clock.now_s += 4
        elif step == "add":
            add(memory, rows)
            added |= set(rows)
            kept = rows[-max_rows:]
            assert known(memory, kept) == kept
        else:
            assert set(known(memory, rows)) <= added
        assert len(memory) <= max_rows

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from modelstream.operators.batch import Fault
from modelstream.operators.paths import Unfit
from modelstream.operators.rows import convert_rows


def halve_all(rows: Sequence[int]) -> list[float]:
    if any(row % 2 for row in rows):
        raise ValueError
    return [row / 2 for row in rows]


def halve_one(row: int) -> float:
    if row % 2:
        raise Unfit("wrong_type", f"{row} is odd")
    return row / 2


@given(st.lists(st.integers(0, 9) | st.just(2), max_size=200))
def test_every_row_is_converted_or_at_fault(rows: list[int]) -> None:
    faults: dict[int, Fault] = {}
    assert convert_rows(rows, halve_all, halve_one, -1.0, "step", faults) == [
        -1 if row % 2 else row / 2 for row in rows
    ]
    odd = {i: Fault("step", "wrong_type", f"{row} is odd") for i, row in enumerate(rows) if row % 2}
    assert faults == odd


def test_the_first_fault_of_a_row_counts() -> None:
    first = Fault("step", "missing_field", "first")
    faults = {0: first}
    convert_rows([1], halve_all, halve_one, -1.0, "step", faults)
    assert faults == {0: first}


def test_rows_far_from_a_bad_one_are_not_converted_singly() -> None:
    singly = []

    def convert_one(row: int) -> float:
        singly.append(row)
        return halve_one(row)

    convert_rows([1, *[2] * 1000], halve_all, convert_one, -1.0, "step", {})
    assert len(singly) < 100

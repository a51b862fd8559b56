from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from modelstream.operators.batch import Column
from modelstream.operators.row_bytes import RowLayout

NUMBERS = st.sampled_from(["<f4", "<f8", "<i4", "<i8", "|b1", ">f4"])


@st.composite
def columns_of_rows(draw: st.DrawFn) -> tuple[list[Column], int]:
    n_rows = draw(st.integers(0, 6))
    columns: list[Column] = []
    for kind in draw(st.lists(st.sampled_from(["number", "vector", "text", "texts"]), max_size=5)):
        if kind == "text":
            columns.append(draw(st.lists(st.text(), min_size=n_rows, max_size=n_rows)))
        elif kind == "texts":
            cells = draw(st.lists(st.lists(st.text(), min_size=2, max_size=2), min_size=n_rows, max_size=n_rows))
            columns.append(np.array(cells, object).reshape(n_rows, 2))
        else:
            shape = (n_rows,) if kind == "number" else (n_rows, draw(st.integers(0, 3)))
            columns.append(draw(hnp.arrays(draw(NUMBERS), shape)))
    return columns, n_rows


def row_of(columns: list[Column], row: int) -> list[Any]:
    return [
        column[row] if isinstance(column, list) else column[row].tolist() if column.dtype == object
        else column[row].tobytes()
        for column in columns
    ]  # fmt: skip


LISTS = st.lists(
    st.lists(st.integers(0, 3), min_size=1, max_size=4) | st.lists(st.sampled_from(["", "a", "b", "ab"]), min_size=1),
    min_size=2,
    max_size=6,
)


@given(LISTS, st.booleans(), st.lists(st.text(max_size=2), min_size=6, max_size=6))
def test_rows_of_any_length_differ_just_where_their_bytes_do(
    rows: list[list[Any]], numbers: bool, texts: list[str]
) -> None:
    rows = [[str(value) for value in row] if not numbers else [len(str(value)) for value in row] for row in rows]
    arrays: Any = [np.array(row, np.float32 if numbers else object) for row in rows]
    columns: list[Column] = [arrays, texts[: len(rows)], np.zeros(len(rows)), list(reversed(arrays))]
    packed = RowLayout.of(columns).pack(columns, len(rows))
    meant = list(zip(map(str, rows), texts, map(str, reversed(rows)), strict=False))
    assert [one == packed[0] for one in packed] == [one == meant[0] for one in meant]


@given(columns_of_rows())
def test_rows_come_back_bit_for_bit(given: tuple[list[Column], int]) -> None:
    columns, n_rows = given
    layout = RowLayout.of(columns)
    returned = layout.unpack(layout.pack(columns, n_rows))
    assert len(returned) == len(columns)
    assert [row_of(returned, i) for i in range(n_rows)] == [row_of(columns, i) for i in range(n_rows)]
    if n_rows:
        assert RowLayout.of(returned) == layout


@given(columns_of_rows())
def test_equal_bytes_are_equal_rows(given: tuple[list[Column], int]) -> None:
    columns, n_rows = given
    packed = RowLayout.of(columns).pack(columns, n_rows, prefix=b"p")
    for i in range(n_rows):
        for j in range(i):
            assert (packed[i] == packed[j]) == (row_of(columns, i) == row_of(columns, j))


def test_texts_do_not_run_into_each_other() -> None:
    columns: list[Column] = [["ab", "a", "", "\ud800"], ["c", "bc", "abc", ""]]
    layout = RowLayout.of(columns)
    packed = layout.pack(columns, 4)
    assert len(set(packed)) == 4
    assert layout.unpack(packed) == columns


def test_what_comes_back_may_be_changed() -> None:
    layout = RowLayout.of([np.zeros(2, np.float32)])
    (column,) = layout.unpack(layout.pack([np.array([1, 2], np.float32)], 2))
    column[0] = 5
    assert list(column) == [5, 2]


def test_layouts_tell_types_and_widths_apart() -> None:
    alike: list[Column] = [
        np.zeros(1, np.int32), np.zeros(1, np.float32), np.zeros((1, 1), np.float32), np.zeros((1, 2), np.int16), [""],
    ]  # fmt: skip
    assert len({RowLayout.of([column]) for column in alike}) == len(alike)


@pytest.mark.parametrize("column", [[1], [None], [b"a"], np.array([1], object)])
def test_text_that_is_none_is_refused(column: Any) -> None:
    with pytest.raises(TypeError):
        RowLayout.of([column]).pack([column], 1)

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from modelstream.operators.answer_parts import AnswerParts, UniqueRows


@given(st.lists(st.sampled_from([b"a", b"b", b"c", b"d"]), max_size=12))
def test_each_row_is_there_once(digests: list[bytes]) -> None:
    unique = UniqueRows(digests)
    assert len(unique) == len(set(digests))
    assert list(dict.fromkeys(digests)) == unique.digests
    repeats = unique.repeats()
    if unique.inverse is None or unique.rows is None:
        assert repeats is None
        assert unique.digests == digests
        return
    assert [unique.digests[i] for i in unique.inverse.tolist()] == digests
    assert [digests[i] for i in unique.rows.tolist()] == unique.digests
    assert repeats is not None
    assert repeats.tolist() == [digest in digests[:i] for i, digest in enumerate(digests)]


@given(st.permutations(range(9)), st.integers(0, 9), st.integers(0, 9), st.lists(st.integers(0, 8), max_size=5))
def test_parts_in_any_order_are_put_together(order: list[int], cut: int, other: int, wanted: list[int]) -> None:
    first, second = sorted((cut, other))
    parts = AnswerParts(9)
    for rows in (order[:first], order[first:second], order[second:]):
        parts.add(np.array(rows, np.intp), [np.array(rows) / 2, [str(row) for row in rows]])
    numbers, texts = parts.take(None)
    assert np.asarray(numbers).tolist() == [row / 2 for row in range(9)]
    assert texts == [str(row) for row in range(9)]
    numbers, texts = parts.take(np.array(wanted, np.intp))
    assert np.asarray(numbers).tolist() == [row / 2 for row in wanted]
    assert texts == [str(row) for row in wanted]

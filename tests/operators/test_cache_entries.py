from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from modelstream.models.contract import Column
from modelstream.operators.cache_entries import AnswerCodec, Answers, row_digests, store_keys

ANSWERS: Answers = [
    {"value": np.array([1.5, -0.0, np.inf], np.float64)},
    {"label": ["late", "", "é"], "score": np.array([0.1, 0.2, 0.3], np.float32)},
    {"vector": np.arange(6, dtype=np.float32).reshape(3, 2), "label": np.array([1, 2, 2**62])},
]


def test_keys_tell_types_signs_and_shapes_apart() -> None:
    alike: list[list[Column]] = [
        [np.zeros(1, np.float32)], [np.zeros(1, np.int32)], [np.zeros((1, 1), np.float32)], [-np.zeros(1, np.float32)],
        [np.zeros((1, 2), np.float32)], [np.zeros(1, np.float32)] * 2, [np.zeros(1)], [[""]], [["", ""][:1]] * 2,
    ]  # fmt: skip
    keys = [row_digests(b"", columns, 1)[0] for columns in alike] + row_digests(b"another model", alike[0], 1)
    assert len(set(keys)) == len(keys)
    assert all(len(key) == 16 for key in keys)


def test_a_key_depends_on_its_row_alone() -> None:
    columns: list[Column] = [np.array([1.0, 2.0, 3.0]), ["a", "b", "c"]]
    last = [column[2:] for column in columns]
    assert row_digests(b"m", columns, 3)[2:] == row_digests(b"m", last, 1)


def test_answers_come_back_as_they_were() -> None:
    codec = AnswerCodec(ANSWERS)
    values = codec.encode(codec.columns(ANSWERS), 3)
    found, columns = codec.decode([values[2], None, values[1]])
    answers = codec.answers(columns)
    assert found.tolist() == [True, False, True]
    for given_fields, fields in zip(ANSWERS, answers, strict=True):
        for (name, column), (other, decoded) in zip(given_fields.items(), fields.items(), strict=True):
            assert name == other
            if isinstance(column, list):
                assert decoded == [column[2], column[1]]
            else:
                assert isinstance(decoded, np.ndarray)
                assert (decoded.dtype, decoded.tobytes()) == (column.dtype, column[[2, 1]].tobytes())


def test_nothing_found_gives_answers_of_no_rows() -> None:
    codec = AnswerCodec(ANSWERS)
    found, columns = codec.decode([None])
    assert not found.any()
    assert codec.fits(codec.answers(columns))


def test_only_rows_of_finite_numbers_are_kept() -> None:
    columns = AnswerCodec.columns(ANSWERS)
    assert AnswerCodec.keepable(columns, 3).tolist() == [True, True, False]
    assert AnswerCodec.keepable([["a", "b"]], 2).all()


def test_stored_keys_can_be_told_from_others() -> None:
    assert store_keys([b"0123456789abcdef"]) == [b"ms:0123456789abcdef"]


@given(st.binary(max_size=80), st.integers(0, 2), st.integers(0, 60), st.integers(1, 255))
def test_what_is_not_whole_is_not_read(garbage: bytes, row: int, position: int, flip: int) -> None:
    codec = AnswerCodec(ANSWERS)
    value = codec.encode(codec.columns(ANSWERS), 3)[row]
    position %= len(value)
    damaged = value[:position] + bytes([value[position] ^ flip]) + value[position + 1 :]
    found, _ = codec.decode([garbage, damaged, value[:position], value + b"x"])
    assert not found.any()

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from modelstream.models.contract import ContractBreach, OutputSpec
from modelstream.models.outputs import non_finite_rows, read_output

TWO = np.array([[0.25, 0.75], [0.6, 0.4]], np.float32)
ZIPMAP = [{"late": 0.25, "on time": 0.75}, {"late": 0.6, "on time": 0.4}]


@pytest.mark.parametrize(
    ("kind", "result", "expected", "dtype"),
    [
        ("value", np.array([[1], [2]], np.float32), [1, 2], "float32"),
        ("value", np.array([1, 2], np.float64), [1, 2], "float64"),
        ("value", np.array([1, 2], np.float16), [1, 2], "float32"),
        ("value", np.array([[1], [2]], np.int64), [1, 2], "float64"),
        ("label", np.array([1, 2], np.int64), [1, 2], "int64"),
        ("label", np.array([[1], [2]], np.int32), [1, 2], "int64"),
        ("label", np.array([True, False]), [1, 0], "int64"),
        ("score", np.array([[0.5], [0.25]], np.float32), [0.5, 0.25], "float32"),
        ("score", np.array([0.5, 0.25], np.float64), [0.5, 0.25], "float32"),
        ("score", TWO, [0.75, np.float32(0.6)], "float32"),
        ("score", ZIPMAP, [0.75, np.float32(0.6)], "float32"),
        ("vector", TWO, TWO, "float32"),
        ("vector", np.array([1, 2], np.float16), [[1], [2]], "float32"),
    ],
)
def test_each_kind(kind, result, expected, dtype):
    column = read_output(OutputSpec("f", "t", kind), result, 2)
    assert_array_equal(column, expected)
    assert column.dtype == dtype


def test_text_labels_are_a_list():
    labels = np.array([["late"], ["on time"]], object)
    assert read_output(OutputSpec("label", "t", "label"), labels, 2) == ["late", "on time"]


def test_the_score_of_a_class():
    expected = np.array([0.25, 0.6], np.float32)
    assert_array_equal(read_output(OutputSpec("score", "t", "score", "late", 0), TWO, 2), expected)
    assert_array_equal(read_output(OutputSpec("score", "t", "score", "late"), ZIPMAP, 2), expected)


@pytest.mark.parametrize(
    ("spec", "result", "message"),
    [
        (
            OutputSpec("f", "t", "value"),
            np.zeros(3),
            "output 't' is float64 of shape (3,); as value 'f' it should be one ",
        ),
        (
            OutputSpec("f", "t", "value"),
            np.float32(1),
            "output 't' is a float32; as value 'f' it should be one row for",
        ),
        (OutputSpec("f", "t", "value"), np.array(1), "output 't' is int64 of shape (); as value"),
        (OutputSpec("f", "t", "value"), np.zeros((2, 2)), "output 't' is float64 of shape (2, 2); as value"),
        (OutputSpec("f", "t", "value"), np.array(["a", "b"], object), "output 't' is text of shape (2,); as value"),
        (OutputSpec("f", "t", "value"), ZIPMAP, "output 't' is a ZipMap of 2 rows; as value"),
        (OutputSpec("f", "t", "label"), np.zeros(2), "output 't' is float64 of shape (2,); as label"),
        (OutputSpec("f", "t", "score"), np.array([1, 2]), "output 't' is int64 of shape (2,); as score"),
        (
            OutputSpec("f", "t", "score", 2, 2),
            TWO,
            "output 't' is float32 of shape (2, 2); as score 'f' it should be a ",
        ),
        (OutputSpec("f", "t", "score", 7), ZIPMAP, "output 't' has no class 7, only 'late', 'on time'"),
        (OutputSpec("f", "t", "vector"), ZIPMAP, "output 't' is a ZipMap of 2 rows; as vector"),
        (OutputSpec("f", "t", "vector"), np.zeros((2, 3, 4)), "output 't' is float64 of shape (2, 3, 4); as vector"),
        (OutputSpec("f", "t", "value"), [np.zeros(1), np.zeros(1)], "output 't' is a list; as value"),
    ],
)
def test_what_does_not_fit_is_told(spec, result, message):
    with pytest.raises(ContractBreach) as caught:
        read_output(spec, result, 2)
    assert str(caught.value).startswith(message)


def test_non_finite_rows():
    vector = np.ones((4, 3), np.float32)
    vector[1, 2] = np.inf
    outputs = {"label": [""] * 4, "n": np.arange(4), "value": np.array([0, 1, 2, np.nan]), "vector": vector}
    assert non_finite_rows(outputs).tolist() == [False, True, False, True]
    assert not non_finite_rows({"label": ["a", "b"]}).any()

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from modelstream.models.contract import ContractBreach, FieldSpec, InputSpec
from modelstream.models.feed import build_feed


def one(dtype: str, width: int | None = None, rank: int = 2) -> list[InputSpec]:
    return [InputSpec("t", (FieldSpec("x", dtype, width),), rank)]  # type: ignore[arg-type]


def packed(dtype: str) -> list[InputSpec]:
    return [InputSpec("t", (FieldSpec("x", dtype), FieldSpec("y", dtype)))]  # type: ignore[arg-type]


def test_a_vector_that_fits_is_passed_as_it_is():
    x = np.ones((3, 20), np.float32)
    assert build_feed(one("float32", 20), {"x": x}, 3)["t"] is x


def test_a_scalar_column_that_fits_is_not_copied():
    x = np.ones(3, np.float32)
    assert np.shares_memory(build_feed(one("float32"), {"x": x}, 3)["t"], x)
    assert build_feed(one("float32", rank=1), {"x": x}, 3)["t"] is x


@pytest.mark.parametrize("given", [np.asfortranarray(np.ones((3, 4), np.float32)), np.ones((6, 4), np.float32)[::2]])
def test_a_vector_of_another_order_is_made_contiguous(given):
    tensor = build_feed(one("float32", 4), {"x": given}, 3)["t"]
    assert tensor.flags.c_contiguous
    assert_array_equal(tensor, given)


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "int64", "bool"])
@pytest.mark.parametrize("given", [np.float32, np.float64, np.int8, np.uint16, np.int32, np.int64, np.bool_, list])
def test_numbers_are_cast(dtype, given):
    x = [1, 0, 1] if given is list else np.array([1, 0, 1], given)
    whole = build_feed(one(dtype), {"x": x}, 3)["t"]
    assert whole.shape == (3, 1)
    block = build_feed(packed(dtype), {"x": x, "y": x}, 3)["t"]
    assert whole.dtype == block.dtype == dtype
    assert_array_equal(block, [[1, 1], [0, 0], [1, 1]])
    assert_array_equal(block[:, :1], whole)


def test_a_column_of_one_value_per_row_may_have_two_axes():
    x = np.array([[1.0], [2.0]])
    assert_array_equal(build_feed(packed("float32"), {"x": x, "y": x}, 2)["t"], [[1, 1], [2, 2]])
    assert_array_equal(build_feed(one("float32", rank=1), {"x": x}, 2)["t"], [1, 2])


def test_floats_may_lose_digits_and_overflow_to_infinity():
    x = np.array([0.1, 1e300])
    for spec in (one("float32"), packed("float32")):
        tensor = build_feed(spec, {"x": x, "y": x}, 2)["t"]
        assert_array_equal(tensor[:, 0], np.array([0.1, np.inf], np.float32))


@pytest.mark.parametrize("spec", [one, packed])
@pytest.mark.parametrize(
    ("dtype", "x", "message"),
    [
        ("int64", np.array([1.0, 3.5]), "column 'x': 3.5 is no int64"),
        ("int64", np.array([np.nan, 1]), "column 'x': nan is no int64"),
        ("int32", np.array([1, 2**31]), "column 'x': 2147483648 is no int32"),
        ("int64", np.array([1, 2**63], np.uint64), "column 'x': 9223372036854775808 is no int64"),
        ("bool", np.array([0, 2]), "column 'x': 2 is no bool"),
        ("float32", ["1.5", "2"], "column 'x' holds text, the model reads float32"),
        ("float32", [1.5, None], "column 'x' holds NoneType and float, the model reads float32"),
        ("float32", np.array(["2013-01-01", "2013-01-02"], "datetime64[D]"), "column 'x' holds datetime64[D], the mod"),
        ("float32", [[1.0], [1.0, 2.0]], "column 'x': its rows differ in shape"),
        ("float32", np.ones((2, 2)), "column 'x' has shape (2, 2), expected one value per row"),
        ("float32", np.ones(3), "column 'x' has 3 rows, the batch has 2"),
        ("string", np.array([1.5, 2.5]), "column 'x' holds float64, the model reads text"),
        ("string", ["a", None], "column 'x' holds NoneType and str, the model reads text"),
        ("string", np.array([True, False]), "column 'x' holds bool, the model reads text"),
    ],
)
def test_what_does_not_fit_is_told(spec, dtype, x, message):
    with pytest.raises(ContractBreach) as caught:
        build_feed(spec(dtype), {"x": x, "y": x}, 2)
    assert str(caught.value).startswith(message)


def test_a_vector_of_another_width():
    with pytest.raises(ContractBreach, match=r"column 'x' has shape \(2, 3\), expected \(2, 4\)"):
        build_feed(one("float32", 4), {"x": np.ones((2, 3))}, 2)


def test_a_missing_column():
    with pytest.raises(ContractBreach, match="column 'y' is missing"):
        build_feed(packed("float32"), {"x": np.ones(2)}, 2)


@pytest.mark.parametrize(
    "x", [["a", "é"], np.array(["a", "é"]), np.array(["a", "é"], object), [np.str_("a"), "é"]], ids=str
)
def test_text(x):
    assert build_feed(one("string"), {"x": x}, 2)["t"].tolist() == [["a"], ["é"]]
    assert build_feed(packed("string"), {"x": x, "y": x}, 2)["t"].tolist() == [["a", "a"], ["é", "é"]]


def test_whole_numbers_become_text():
    assert build_feed(one("string", rank=1), {"x": np.array([7, 12])}, 2)["t"].tolist() == ["7", "12"]

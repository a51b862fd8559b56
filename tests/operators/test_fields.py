from __future__ import annotations

import math
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelstream.models.contract import ANY_WIDTH
from modelstream.models.errors import ConfigError
from modelstream.operators.batch import Column, EventBatch
from modelstream.operators.fields import MISSING, ColumnSpec, read_column, read_columns

dtypes = st.sampled_from(["float32", "float64", "int32", "int64", "bool", "string"])
#: What JSON can hold, as orjson gives it, with the edges of the types.
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.sampled_from([0, 1, 2, 255, 256, -1, 2**31 - 1, 2**31, -(2**31) - 1, 2**63 - 1, 2**63])
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from([0.0, 1.0, 3.0, 0.5, 3.4e38, 3.5e38, 1e300, -1e300, 2.0**31, 2.0**63])
    | st.text(max_size=5)
)
#: And what MessagePack can: bytes, not all of them whole numbers.
raw = st.binary(max_size=3) | st.lists(st.floats(width=32), max_size=3).map(lambda x: np.array(x, "<f4").tobytes())
values = scalars | raw | st.lists(scalars, max_size=4) | st.dictionaries(st.text(max_size=2), scalars, max_size=3)
events = st.one_of(
    st.builds(lambda value: {"x": value}, values),
    st.just({}),
    st.builds(lambda value: {"x": value}, st.lists(st.integers(0, 1) | st.floats(-1, 1), min_size=2, max_size=2)),
)


def read(rows: list[dict[str, Any]], spec: ColumnSpec) -> tuple[Column, dict[int, tuple[str, str]]]:
    batch = EventBatch.of_events(rows)
    column = read_column(batch, spec, "stage")
    return column, {row: (fault.reason, fault.detail) for row, fault in batch.faults.items()}


def rows_of(column: Column) -> list[Any]:
    if isinstance(column, list):
        return [row.tolist() if isinstance(row, np.ndarray) else row for row in column]
    return column.tolist()


@given(st.lists(events, min_size=1, max_size=8), dtypes, st.sampled_from([None, 1, 2, ANY_WIDTH]))
def test_a_batch_reads_as_its_rows_do(rows: list[dict[str, Any]], dtype: Any, width: int | None) -> None:
    spec = ColumnSpec("x", dtype, width)
    column, faults = read(rows, spec)
    single = [read([row], spec) for row in rows]
    assert faults == {i: found[0] for i, (_, found) in enumerate(single) if found}
    assert rows_of(column) == [rows_of(one)[0] for one, _ in single]
    if width == ANY_WIDTH:
        assert isinstance(column, list)
        assert all(row.dtype == (object if dtype == "string" else dtype) and len(row) for row in column)
        assert dtype == "string" or all(np.isfinite(row).all() for row in column)
    elif isinstance(column, np.ndarray):
        assert column.shape == ((len(rows),) if width is None else (len(rows), width))
        assert column.dtype == (object if dtype == "string" else dtype)
        assert dtype == "string" or np.isfinite(column).all()


def expected(value: Any, dtype: str) -> Any:
    """Return what the documentation of `ColumnSpec` promises, or the reason of the fault."""
    number = isinstance(value, int | float)
    if value is None:
        return "missing_field"
    if dtype == "string":
        return (
            value if isinstance(value, str) else str(value) if number and not isinstance(value, bool) else "wrong_type"
        )
    if not number:
        return "wrong_type"
    if dtype == "bool":
        return bool(value) if value in (0, 1) else "wrong_type"
    if dtype.startswith("int"):
        limit = 2 ** (int(dtype[3:]) - 1)
        return int(value) if value == int(value) and -limit <= value < limit else "wrong_type"
    with np.errstate(over="ignore"):
        cast = np.dtype(dtype).type(value)
    return float(cast) if np.isfinite(cast) else "non_finite"


@given(values, dtypes)
def test_a_value_is_cast_or_rejected_as_documented(value: Any, dtype: Any) -> None:
    column, faults = read([{"x": value}], ColumnSpec("x", dtype))
    wanted = expected(value, dtype)
    if faults:
        assert faults[0][0] == wanted
        assert not rows_of(column)[0]
    else:
        assert rows_of(column)[0] == wanted
        assert type(rows_of(column)[0]) is type(wanted)


@pytest.mark.parametrize(
    ("value", "spec", "detail"),
    [
        (None, ColumnSpec("x", "float32"), "field 'x' is missing"),
        ("one", ColumnSpec("x", "int32"), "field 'x': 'one' is not an int32"),
        (1e39, ColumnSpec("x", "float32"), "field 'x': 1e+39 is not finite in float32"),
        (2, ColumnSpec("x", "bool"), "field 'x': 2 is not a bool"),
        ([1, 2, 3], ColumnSpec("x", "float32", 2), "field 'x': 3 values, not 2"),
        ([1, "a"], ColumnSpec("x", "float32", 2), "field 'x': a list is not a list of 2 float32"),
        ([1, 1e39], ColumnSpec("x", "float32", 2), "field 'x': a list is not finite in float32"),
        (b"12345", ColumnSpec("x", "float32", 2), "field 'x': 5 bytes is not a list of 2 float32"),
        (b"12", ColumnSpec("x", "float32", 2), "field 'x': 2 bytes is not a list of 2 float32"),
        (b"1234", ColumnSpec("x", "float32"), "field 'x': 4 bytes is not a float32"),
        (b"12", ColumnSpec("x", "string", 2), "field 'x': 2 bytes is not a list of 2 string"),
        ([], ColumnSpec("x", "float32", ANY_WIDTH), "field 'x': 0 values, not 1 or more"),
        (b"", ColumnSpec("x", "float32", ANY_WIDTH), "field 'x': 0 bytes is not a list of float32"),
        (5, ColumnSpec("x", "float32", ANY_WIDTH), "field 'x': 5 is not a list of float32"),
        ("ab", ColumnSpec("x", "string", ANY_WIDTH), "field 'x': 'ab' is not a list of string"),
        ([1, 1e39], ColumnSpec("x", "float32", ANY_WIDTH), "field 'x': a list is not finite in float32"),
        ({"a": [1]}, ColumnSpec("y", "float32", path="x.a[1]"), "field 'x.a[1]' is missing"),
        ("a", ColumnSpec("x", "string", 1), "field 'x': 'a' is not a list of 1 string"),
        ("ab", ColumnSpec("x", "string", 2), "field 'x': 'ab' is not a list of 2 string"),
        ({"a": 1, "b": 2}, ColumnSpec("x", "string", 2), "field 'x': an object is not a list of 2 string"),
        ({"a": 1}, ColumnSpec("y", "float32", path="x"), "field 'x': an object is not a float32"),
        ({"a": "b"}, ColumnSpec("y", "float32", path="x.a"), "field 'x.a': 'b' is not a float32"),
        ("text", ColumnSpec("y", "float32", path="x.a"), "field 'x.a': 'text' has no field 'a'"),
    ],
)
def test_faults_say_what_is_wrong(value: Any, spec: ColumnSpec, detail: str) -> None:
    column, faults = read([{"x": value}], spec)
    assert faults[0][1] == detail
    assert rows_of(column)[0] in (0, [0], [0, 0], [""], ["", ""])


@pytest.mark.parametrize("path", ["x", "a.x"])
@pytest.mark.parametrize("good", [[1.5], []])
def test_a_default_stands_for_what_is_absent_or_null(path: str, good: list[float]) -> None:
    rows: list[dict[str, Any]] = [{}, {"x": None, "a": None}, {"a": {}}, *({"x": x, "a": {"x": x}} for x in good)]
    column, faults = read(rows, ColumnSpec("c", "float32", path=path, default=7))
    assert rows_of(column) == [7, 7, 7, *good]
    assert not faults


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_default_of_nan_is_for_what_is_missing_only(dtype: Any) -> None:
    rows = [{"x": 1}, {}, {"x": None}, {"x": math.nan}, {"x": 1e39 if dtype == "float32" else math.inf}, {"x": "a"}]
    column, faults = read(rows, ColumnSpec("x", dtype, default=math.nan))
    assert np.array_equal(column, [1, np.nan, np.nan, 0, 0, 0], equal_nan=True)
    assert [faults[row][0] for row in (3, 4, 5)] == ["non_finite", "non_finite", "wrong_type"]
    assert len(faults) == 3


def test_a_default_does_not_excuse_a_wrong_type() -> None:
    column, faults = read([{"x": "one"}, {}], ColumnSpec("x", "int64", default=3))
    assert rows_of(column) == [0, 3]
    assert faults[0][0] == "wrong_type"


def test_a_vector_may_have_a_default() -> None:
    column, faults = read([{}, {"x": [3, 4]}], ColumnSpec("x", "float64", 2, default=[1, 2]))
    assert rows_of(column) == [[1, 2], [3, 4]]
    assert not faults


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "int64", "bool"])
@pytest.mark.parametrize("as_bytes", [[True, True], [True, False], [False, True], [False, False]])
@pytest.mark.parametrize("width", [3, ANY_WIDTH])
def test_a_vector_may_come_as_the_bytes_of_its_numbers(dtype: Any, as_bytes: list[bool], width: int) -> None:
    numbers = np.array([[1, 0, 1], [0, 1, 1]], dtype)
    rows = [{"x": row.tobytes() if raw else row.tolist()} for row, raw in zip(numbers, as_bytes, strict=True)]
    column, faults = read(rows, ColumnSpec("x", dtype, width))
    assert not faults
    assert rows_of(column) == numbers.tolist()
    column[0][0] = 0  # stages may change columns


@pytest.mark.parametrize(
    ("separator", "texts"), [(",", ["1,2", " 3 , 4,"]), (";", ["1;2", "3;4;"]), (" ", ["1 2", "3 4 "])]
)
def test_a_vector_may_come_as_text(separator: str, texts: list[str]) -> None:
    for dtype in ("float32", "int64"):
        column, faults = read([{"x": text} for text in texts], ColumnSpec("x", dtype, 2, separator=separator))
        assert (rows_of(column), faults) == ([[1, 2], [3, 4]], {})


def test_what_is_no_text_of_numbers_is_rejected_and_hurts_no_other_row() -> None:
    wrong = ["1,two", "1", "1;2", [1, 2], None, "1e39,2", "", "1,2,,"]
    spec = ColumnSpec("x", "float32", 2, separator=",")
    column, faults = read([{"x": x} for x in ["1,2", *wrong, "3,4"]], spec)
    assert rows_of(column) == [[1, 2], *[[0, 0]] * len(wrong), [3, 4]]
    assert [faults[row] for row in range(1, len(wrong) + 1)] == [
        ("wrong_type", "field 'x': '1,two' is not text with ',' between 2 float32"),
        ("wrong_type", "field 'x': 1 values, not 2"),
        ("wrong_type", "field 'x': '1;2' is not text with ',' between 2 float32"),
        ("wrong_type", "field 'x': a list is not text with ',' between 2 float32"),
        ("missing_field", "field 'x' is missing"),
        ("non_finite", "field 'x': '1e39,2' is not finite in float32"),
        ("wrong_type", "field 'x': 0 values, not 2"),
        ("wrong_type", "field 'x': '1,2,,' is not text with ',' between 2 float32"),
    ]


def test_texts_of_any_length_and_a_default() -> None:
    spec = ColumnSpec("x", "float32", ANY_WIDTH, separator=",", default="7")
    assert rows_of(read([{"x": "1,2"}, {}], spec)[0]) == [[1, 2], [7]]


@pytest.mark.parametrize(
    ("dtype", "width", "default", "separator", "problem"),
    [
        ("float32", 2, MISSING, "x", "the separator 'x' is none of"),
        ("float32", 2, MISSING, ", ", "the separator ', ' is none of"),
        ("float32", None, MISSING, ",", "needs a width"),
        ("string", 2, MISSING, ",", "is for numbers"),
        ("float32", 2, [1, 2], ",", "default a list is not text with ',' between 2 float32"),
    ],
)
def test_a_separator_is_checked(dtype: Any, width: int | None, default: Any, separator: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        ColumnSpec("x", dtype, width, default=default, separator=separator)


def test_rows_may_differ_in_length() -> None:
    column, faults = read([{"x": [1]}, {"x": [2, 3, 4]}, {}], ColumnSpec("x", "int64", ANY_WIDTH, default=[7, 8]))
    assert rows_of(column) == [[1], [2, 3, 4], [7, 8]]
    assert not faults
    batch = EventBatch.of_events([{}] * 3)
    batch.columns["x"] = column
    assert rows_of(batch.select(np.array([False, True, True])).columns["x"]) == [[2, 3, 4], [7, 8]]


def test_a_name_that_is_no_path_is_the_name_of_a_field() -> None:
    column, faults = read([{"x[": 1.5, "a": {"b": 2}}], ColumnSpec("x[", "float32"))
    assert (rows_of(column), faults) == ([1.5], {})
    assert rows_of(read([{"a": {"b": 2}}], ColumnSpec("a.b", "int32"))[0]) == [2]


@pytest.mark.parametrize(
    ("dtype", "width", "default", "problem"),
    [
        ("float", None, MISSING, "did you mean 'float"),
        ("float32", 0, MISSING, "width"),
        ("float32", None, "a", "default 'a' is not a float32"),
        ("float32", None, 1e39, "default"),
        ("float32", None, None, "default"),
        ("float32", 2, [1.0], "default"),
        ("float32", ANY_WIDTH, [], "default a list is not a list of float32"),
        ("float32", -2, MISSING, "width"),
        ("int32", None, 2**31, "default"),
        ("int32", None, math.nan, "the default nan is not an? int32"),
        ("float32", 1, math.nan, "default"),
        ("float32", None, math.inf, "default"),
        ("bool", None, 2, "default"),
        ("string", None, 1, "default"),
    ],
)
def test_a_specification_is_checked(dtype: Any, width: int | None, default: Any, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem) as caught:
        ColumnSpec("x", dtype, width, default=default)
    assert caught.value.path == "x"


def test_a_path_is_checked() -> None:
    with pytest.raises(ConfigError, match="a name is missing at character 2") as caught:
        ColumnSpec("x", "float32", path="a..b")
    assert caught.value.path == "x"


@pytest.mark.parametrize("width", [None, 3, ANY_WIDTH])
@pytest.mark.parametrize("dtype", ["float32", "int64", "bool", "string"])
def test_no_events_give_no_rows(dtype: Any, width: int | None) -> None:
    column, faults = read([], ColumnSpec("x", dtype, width))
    assert len(column) == 0
    assert not faults


def test_columns_may_be_changed_in_place() -> None:
    batch = EventBatch.of_events([{"x": 1.0, "v": [1, 2]}])
    read_columns(batch, [ColumnSpec("x", "float32"), ColumnSpec("v", "int32", 2)], "stage")
    for column in batch.columns.values():
        column *= 2
    assert rows_of(batch.columns["v"]) == [[2, 4]]


@pytest.mark.parametrize("dtype", ["float32", "int64", "bool", "string"])
@pytest.mark.parametrize("width", [None, 1, ANY_WIDTH])
def test_what_is_nested_deeper_than_python_recurses_is_rejected(dtype: Any, width: int | None) -> None:
    deep: Any = 0
    for _ in range(1020):
        deep = [deep]
    assert read([{"x": deep}], ColumnSpec("x", dtype, width))[1][0][0] == "wrong_type"


def test_packing_of_floats_does_not_depend_on_the_platform() -> None:
    # Native packing of a double beyond float32 is what the check for finite numbers relies on.
    assert struct.unpack("f", struct.pack("f", 1e39)) == (float("inf"),)

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from modelstream.models.errors import ConfigError, OperatorError
from modelstream.operators.batch import EventBatch
from modelstream.operators.extract import Extract
from modelstream.operators.fields import ColumnSpec
from modelstream.operators.operator import run_isolated


def batch_of(*values: Any) -> EventBatch:
    return EventBatch.of_events([{"x": value} for value in values])


def returning(columns: Any) -> Extract:
    return Extract("features", function=lambda batch: columns)


def test_declared_columns() -> None:
    extract = Extract("features", columns=[ColumnSpec("x", "float32"), ColumnSpec("y", "int32", default=4)])
    settled = run_isolated(extract, batch_of(1, "a", 2.5))
    assert settled.kept.columns["x"].tolist() == [1, 2.5]  # type: ignore[union-attr]
    assert settled.kept.columns["y"].tolist() == [4, 4]  # type: ignore[union-attr]
    assert settled.rejected is not None
    assert settled.rejected.faults[0].stage == "features"
    assert settled.rejected.columns == {}


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (np.array([1.5, 2.5]), [1.5, 2.5]),
        (np.array([[1, 2], [3, 4]]), [[1, 2], [3, 4]]),
        (np.array([True, False]), [True, False]),
        (np.array(["2013-01-01", "2013-01-02"], "datetime64[D]"), None),
        (["a", "b"], ["a", "b"]),
        (np.array(["a", "b"]), ["a", "b"]),
        (np.array(["a", "b"], object), ["a", "b"]),
        (np.array([["a"], ["b"]], object), [["a"], ["b"]]),
    ],
)
def test_columns_of_a_function(column: Any, expected: Any) -> None:
    got = returning({"c": column})(batch_of(1, 2)).columns["c"]
    if expected is not None:
        assert (got if isinstance(got, list) else got.tolist()) == expected


@pytest.mark.parametrize(
    ("columns", "problem"),
    [
        (None, "returned NoneType"),
        ([np.zeros(2)], "returned list"),
        ({"c": np.zeros(3)}, "column 'c' has 3 rows for 2 events"),
        ({"c": np.zeros((1, 2))}, "column 'c' has 1 rows for 2 events"),
        ({"c": np.float32(1)}, "column 'c' is float32, neither an array nor a list"),
        ({"c": np.array(1)}, "column 'c' has 0 rows"),
        ({"c": (1, 2)}, "column 'c' is tuple"),
        ({"c": ["a"]}, "column 'c' has 1 rows"),
        ({"c": [1, 2]}, "column 'c' is a list of int; lists are for text"),
        ({"c": ["a", None]}, "column 'c' is a list of NoneType and str"),
        ({"c": np.array(["a", None], object)}, "column 'c' is a list of NoneType and str"),
        ({"c": np.array([1j, 2j])}, "column 'c' is an array of complex128"),
        ({5: np.zeros(2)}, "name is 5"),
    ],
)
def test_what_is_no_column_is_an_error(columns: Any, problem: str) -> None:
    with pytest.raises(OperatorError, match=problem) as caught:
        returning(columns)(batch_of(1, 2))
    assert caught.value.step_id == "features"


def test_a_row_that_makes_the_function_fail_is_rejected_alone() -> None:
    extract = Extract("features", function=lambda batch: {"c": np.array([1 / event["x"] for event in batch.events])})
    settled = run_isolated(extract, batch_of(1, 2, 0, 4))
    assert settled.kept.columns["c"].tolist() == [1, 0.5, 0.25]  # type: ignore[union-attr]
    assert settled.rejected is not None
    assert [event["x"] for event in settled.rejected.events] == [0]
    assert settled.rejected.faults[0].exception == "ZeroDivisionError"


def test_a_row_with_a_wrong_value_in_a_list_is_rejected_alone() -> None:
    extract = Extract("features", function=lambda batch: {"c": [event["x"] for event in batch.events]})
    settled = run_isolated(extract, batch_of("a", None, "c"))
    assert settled.kept.columns["c"] == ["a", "c"]
    assert settled.rejected is not None
    assert settled.rejected.faults[0].exception == "OperatorError"


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"columns": [ColumnSpec("x", "bool")], "function": lambda batch: {}},
        {"columns": [ColumnSpec("x", "bool"), ColumnSpec("x", "int32")]},
    ],
)
def test_a_stage_that_makes_no_sense_is_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="features"):
        Extract("features", **arguments)

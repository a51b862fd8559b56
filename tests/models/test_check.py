"""The whole check of a model: what is found at the edges, with NaN, and what a row costs."""

from __future__ import annotations

from itertools import count
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper
from support.onnx_factory import affine, build, column_sum, mlp, write_model

from modelstream.models.check import check_model
from modelstream.models.cost import MAX_KNEE_ROWS
from modelstream.models.errors import ConfigError, ModelLoadError
from modelstream.models.loading import load_model
from modelstream.models.pricing import measure_price


def graph(*nodes: Any, dtype: str = "float32", **constants: Any) -> bytes:
    """Return a model from the column x to value."""
    arrays = {name: np.asarray(value) for name, value in constants.items()}
    return build(nodes, {"x": (dtype, [None, 1])}, {"value": ("float32", None)}, arrays).SerializeToString()


node = helper.make_node
F = np.float32

#: x, less the smallest of the batch where that is negative.
NEGATIVE_LEAKS = graph(
    node("ReduceMin", ["x"], ["least"], keepdims=0),
    node("Min", ["least", "zero"], ["below"]),
    node("Sub", ["x", "below"], ["value"]),
    zero=F(0),
)
#: x, plus the largest of the batch where that is over 1000.
LARGE_LEAKS = graph(
    node("ReduceMax", ["x"], ["most"], keepdims=0),
    node("Sub", ["most", "limit"], ["over"]),
    node("Relu", ["over"], ["excess"]),
    node("Add", ["x", "excess"], ["value"]),
    limit=F(1000),
)
#: x + 0 · the sum of the batch, which is NaN where one of them is.
NAN_LEAKS = graph(
    node("Mul", ["x", "zero"], ["zeros"]),
    node("ReduceSum", ["zeros"], ["nothing"], keepdims=0),
    node("Add", ["x", "nothing"], ["value"]),
    zero=F(0),
)
#: One split at 0.5, whose NaN goes to the right without a word.
TREE = graph(
    node("Less", ["x", "split"], ["left"]),
    node("Where", ["left", "low", "high"], ["value"]),
    split=F(0.5),
    low=F(1),
    high=F(2),
)
#: x, plus some billionths of the sum of the batch: less than anybody calls a difference, and other bits.
BITS_LEAK = graph(
    node("ReduceSum", ["x"], ["total"], keepdims=0),
    node("Mul", ["total", "little"], ["more"]),
    node("Add", ["x", "more"], ["value"]),
    little=F(3e-8),
)
EMBEDDING = graph(node("Gather", ["table", "x"], ["value"]), dtype="int64", table=np.array([1, 2, 3], F))
LOGARITHM = graph(node("Log", ["x"], ["value"]))


@pytest.fixture
def check(models_dir):
    def check_one(onnx, toml="", **options):
        write_model(models_dir, "m", onnx, toml)
        return check_model(models_dir, "m", **options)

    return check_one


def edges(report):
    return {one.edge: one for one in report.edges}


@pytest.mark.parametrize("onnx", [affine([1, 2]), mlp(), column_sum({"a": "float32", "b": "int64", "c": "bool"}), TREE])
def test_a_sound_model_has_no_problems(check, onnx):
    report = check(onnx, n_rows=20)
    assert (report.problems, report.notes, report.n_rows, report.provider) == ((), (), 20, "cpu")
    assert [one.n_failed for one in report.edges] == [0] * 5
    assert {*edges(report)} == {
        "zeros and empty text",
        "negative",
        "very small",
        "very large",
        "ends of the type",
    }


@pytest.mark.parametrize(("onnx", "least", "most"), [(TREE, 0.0, 0.0), (BITS_LEAK, 1e-9, 1e-5)])
def test_bits_that_depend_on_the_batch_are_told(check, onnx, least, most):
    report = check(onnx)
    assert not [problem for problem in report.problems if problem.startswith("random")]
    assert least <= report.row_difference <= most


def test_a_prediction_that_depends_on_the_size_of_some_batches_only_is_found(check):
    # x, and a tenth more in a batch of 16: neither the rows of loading are so many, nor those at the edges.
    onnx = graph(
        node("Shape", ["x"], ["shape"], end=1),
        node("Equal", ["shape", "sixteen"], ["is_sixteen"]),
        node("Where", ["is_sixteen", "tenth", "zero"], ["more"]),
        node("Add", ["x", "more"], ["value"]),
        sixteen=np.array([16]),
        tenth=F(0.1),
        zero=F(0),
    )
    report = check(onnx)
    [problem] = report.problems
    assert problem.startswith("random row 0: value is 0.")
    assert problem.endswith(" in a batch of 16")
    assert report.row_difference is None


def test_a_prediction_that_is_wider_in_some_batches_only_is_told(check):
    nodes = [
        node("Shape", ["x"], ["rows"], end=1),
        node("Equal", ["rows", "sixteen"], ["is_sixteen"]),
        node("Cast", ["is_sixteen"], ["more"], to=TensorProto.INT64),
        node("Add", ["more", "two"], ["width"]),
        node("Concat", ["rows", "width"], ["shape"], axis=0),
        node("Expand", ["x", "shape"], ["value"]),
    ]
    constants = {"sixteen": np.array([16]), "two": np.array([2])}
    onnx = build(nodes, {"x": ("float32", [None, 1])}, {"value": ("float32", [None, None])}, constants)
    [problem] = check(onnx.SerializeToString(), '[outputs.value]\nkind = "vector"\n').problems
    assert problem.endswith(" in a batch of 16")


def test_a_negative_row_that_changes_others_is_refused_at_loading(models_dir, assert_told):
    write_model(models_dir, "m", NEGATIVE_LEAKS)
    assert_told("model.onnx", "rows of negative: a neighbour's value is 0.")


def test_a_large_row_that_changes_others_is_found_by_the_check(check):
    problems = check(LARGE_LEAKS).problems
    assert [one.split(": a neighbour's value is ")[0] for one in problems] == [
        "rows of very large",
        "rows of ends of the type",
        "rows with infinity",
    ]


def test_a_nan_that_spreads_to_others_is_found_by_the_check(check):
    report = check(NAN_LEAKS)
    assert [one.split(":")[0] for one in report.problems] == [
        "rows with NaN",
        "rows with infinity",
        "rows with -infinity",
    ]
    assert "and nan beside them" in report.problems[0]


def test_a_model_that_hides_nan_is_known(check):
    [nan, infinite, negative] = check(TREE).non_finite
    assert (nan.value, nan.hides, nan.propagates, nan.fails) == ("NaN", ("x",), (), ())
    assert (infinite.hides, negative.hides) == (("x",), ("x",))


def test_a_model_that_passes_nan_on_is_known(check):
    fields = '[inputs.x]\nfields = ["a", "b"]'
    [nan, infinite, _] = check(affine([1, 0]), fields).non_finite
    assert (nan.propagates, nan.hides) == (("a", "b"), ())
    assert (infinite.propagates, infinite.hides) == (("a", "b"), ())


def test_what_reads_no_floats_is_not_asked_about_nan(check):
    assert check(EMBEDDING).non_finite == ()


def test_a_failure_at_an_edge_is_told_and_no_problem(check):
    report = check(EMBEDDING)
    assert report.problems == ()
    found = edges(report)
    assert found["zeros and empty text"].n_failed == 0
    assert found["very large"].n_failed == 4
    assert found["very large"].failure.startswith("ONNX Runtime: Non-zero status code returned while running Gather")


def test_what_is_not_finite_at_an_edge_is_counted(check):
    found = edges(check(LOGARITHM))
    assert (found["negative"].n_non_finite, found["zeros and empty text"].n_non_finite) == (4, 4)
    assert found["very small"].n_non_finite == 0


def test_text_is_taken_to_its_edges(check):
    coding = {"keys_strings": ["a", "b"], "values_floats": [1.0, 2.0], "default_float": float("nan")}
    onnx = graph(node("LabelEncoder", ["x"], ["value"], domain="ai.onnx.ml", **coding), dtype="string")
    found = edges(check(onnx))
    assert {name: one.n_non_finite for name, one in found.items()} == {"zeros and empty text": 4, "unknown text": 4}


def test_fields_with_examples_stay_within_them(check):
    report = check(EMBEDDING, "[examples]\nx = [2]")
    assert (report.edges, report.problems) == ((), ())


def test_the_price_is_a_curve_and_its_knee(check):
    price = check(mlp()).price
    assert [point.n_rows for point in price.points] == [1, 8, 64, 512, 4096]
    assert all(point.seconds > 0 and point.n_calls >= 3 for point in price.points)
    assert price.batch == min(price.knee, 4096)
    assert price.rows_per_s == pytest.approx(1e6 / price.us_per_row)


def test_the_price_by_a_clock_that_ticks_once_for_each_look(models_dir):
    write_model(models_dir, "m", affine([1, 2]))
    model = load_model(models_dir, "m")
    ticks = count()
    X = np.random.default_rng(0).random((64, 2)).astype(np.float32)
    price = measure_price(model, {"x": X}, 64, (1, 8, 32), lambda: next(ticks) * 1e-4)
    assert [(point.n_rows, point.n_calls) for point in price.points] == [(1, 200), (8, 200), (32, 200)]
    assert price.points[1].seconds == pytest.approx(1e-4)
    assert price.points[1].us_per_row == pytest.approx(12.5)
    assert (price.per_row_s, price.knee, price.batch) == (pytest.approx(0, abs=1e-12), MAX_KNEE_ROWS, 32)


def test_a_slow_model_is_measured_in_few_calls(models_dir):
    write_model(models_dir, "m", affine([1, 2]))
    model = load_model(models_dir, "m")
    ticks = count()
    price = measure_price(model, {"x": np.zeros((64, 2), np.float32)}, 64, (1, 8), lambda: next(ticks) * 5.0)
    assert [(point.n_rows, point.n_calls) for point in price.points] == [(1, 1)]


def test_rows_of_any_length_and_row_by_row_are_checked_too(check):
    onnx = build(
        [node("ReduceSum", ["x", "axes"], ["value"], keepdims=1)],
        {"x": ("float32", [1, None])},
        {"value": ("float32", None)},
        {"axes": np.array([1])},
    ).SerializeToString()
    report = check(onnx, '[inputs.x]\nfield = "x"\nwidth = "any"')
    assert report.problems == ()
    assert report.contract.row_by_row
    assert len(report.notes) == 1


def test_what_does_not_load_is_told_as_at_loading(check, models_dir):
    with pytest.raises(ModelLoadError):
        check(NEGATIVE_LEAKS)
    with pytest.raises(ConfigError, match="MODEL: no model 'n' in registry"):
        check_model(models_dir, "n", path="MODEL")

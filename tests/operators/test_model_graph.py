"""Models that read each other's answers: which rows each sees, and what comes out, against row-by-row Python."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelstream.models.contract import Column, FieldSpec
from modelstream.models.errors import ConfigError, InferenceError, InferenceTimeout
from modelstream.operators.answers import OutputSchema
from modelstream.operators.batch import EventBatch, ModelOutput
from modelstream.operators.cache import CachedInfer
from modelstream.operators.cascade import Cascade
from modelstream.operators.circuit import Circuit
from modelstream.operators.encode import PredictionEncoder
from modelstream.operators.ensemble import Ensemble
from modelstream.operators.infer import Infer, NamedModel
from modelstream.operators.operator import run_isolated


class Model:
    """A model in Python that notes the rows it sees."""

    version = "1"

    def __init__(
        self, name: str, predict: Callable[..., Mapping[str, Column]], *fields: str | FieldSpec, dtype: Any = "float64"
    ) -> None:
        self.name = name
        self.required_fields = tuple(f if isinstance(f, FieldSpec) else FieldSpec(f, dtype) for f in fields or ("x",))
        self._predict = predict
        self.seen: list[list[Any]] = []

    def predict(self, columns: Mapping[str, Column], n_rows: int) -> Mapping[str, Column]:
        read = [columns[field.name] for field in self.required_fields]
        assert set(map(len, read)) == {n_rows}
        if n_rows:
            self.seen.append(np.asarray(read[0]).tolist())
        return self._predict(*read)


def plus(name: str, more: float, *fields: str) -> Model:
    return Model(name, lambda x: {"value": np.asarray(x) + more}, *fields)


def batch_of(*xs: Any) -> EventBatch:
    return EventBatch.of_events([{"x": x} for x in xs])


def said(batch: EventBatch) -> dict[str, Any]:
    """Return each answer's values, None for rows without one."""
    return {
        name: [
            value if output.answered is None or output.answered[i] else None
            for i, value in enumerate(np.asarray(output.fields.get("value", output.fields.get("score"))).tolist())
        ]
        for name, output in batch.outputs.items()
    }


def test_a_model_reads_what_another_answers_whatever_their_order() -> None:
    second = NamedModel(plus("second", 10, "y"), inputs={"y": "first.value"})
    third = NamedModel(plus("third", 100, "y"), "last", {"y": "second.value"})
    infer = Infer("s", [third, second, plus("first", 1)])
    assert [spec.name for spec in infer.specs] == ["x"]
    assert said(infer(batch_of(1, 2))) == {"last": [112, 113], "second": [12, 13], "first": [2, 3]}


def test_a_field_may_come_from_a_column_or_path_of_another_name() -> None:
    infer = Infer("s", [NamedModel(plus("m", 1), inputs={"x": "a.b[0]"}), NamedModel(plus("m", 2), "n", {"x": "c"})])
    batch = EventBatch.of_events([{"a": {"b": [5]}}])
    batch.columns["c"] = np.array([7.0])
    assert said(infer(batch)) == {"m": [6], "n": [9]}


def test_a_cascade_asks_the_next_model_about_unsure_rows_only() -> None:
    quick, slow, slowest = plus("quick", 0), plus("slow", 0.5), plus("slowest", 0.25)
    cascade = Cascade("verdict", ("quick", "slow", "slowest"), "value > 1")
    infer = Infer("s", [slowest, quick, slow], cascades=[cascade])
    batch = infer(batch_of(0, 1, 2, 0.75))
    assert (quick.seen, slow.seen, slowest.seen) == ([[0, 1, 2, 0.75]], [[2]], [[2]])
    assert said(batch)["verdict"] == [0, 1, 2.25, 0.75]
    verdict = batch.outputs["verdict"]
    assert verdict.fields["model"] == ["quick", "quick", "slowest", "quick"]
    assert verdict.version == ["1"] * 4
    assert said(batch)["slow"] == [None, None, 2.5, None]


def test_each_step_of_a_cascade_is_judged_by_its_own_answer() -> None:
    second = Model("second", lambda x: {"value": np.where(np.asarray(x) == 2, 0.5, x)})
    third = plus("third", 0.25)
    cascade = Cascade("verdict", ("first", "second", "third"), "value > 1")
    batch = Infer("s", [plus("first", 0), second, third], cascades=[cascade])(batch_of(0, 2, 3))
    assert (second.seen, third.seen) == ([[2, 3]], [[3]]), "the second is sure of 2"
    assert said(batch)["verdict"] == [0, 0.5, 3.25]
    assert batch.outputs["verdict"].fields["model"] == ["first", "second", "third"]
    assert said(batch)["third"] == [None, None, 3.25]


def test_a_model_without_rows_to_see_is_not_called() -> None:
    slow = plus("slow", 1)
    reader = NamedModel(plus("reader", 1, "y"), inputs={"y": "slow.value"})
    infer = Infer("s", [plus("quick", 0), slow, reader], cascades=[Cascade("c", ("quick", "slow"), "value > 5")])
    batch = infer(batch_of(1, 2))
    assert (slow.seen, reader.model.seen) == ([], [])  # type: ignore[attr-defined]
    assert said(batch) == {"quick": [1, 2], "slow": [None] * 2, "reader": [None] * 2, "c": [1, 2]}


def test_what_is_made_of_a_partial_answer_is_partial() -> None:
    infer = Infer(
        "s",
        [plus("quick", 0), plus("slow", 1)],
        ensembles=[Ensemble("outer", "mean", ("inner", "c")), Ensemble("inner", "weighted", ("quick", "slow"), (1, 3))],
        cascades=[Cascade("c", ("quick", "slow"), "value > 1")],
    )
    batch = infer(batch_of(1, 2))
    assert said(batch) == {
        "quick": [1, 2],
        "slow": [None, 3],
        "outer": [None, 2.875],
        "inner": [None, 2.75],
        "c": [1, 3],
    }
    assert [batch.outputs[name].version for name in ("inner", "outer")] == [
        "quick@1+slow@1",
        "inner(quick@1+slow@1)+c(quick@1+slow@1)",
    ]


def test_a_first_step_sees_all_rows_and_two_cascades_may_hand_on() -> None:
    last = plus("last", 0)
    infer = Infer(
        "s",
        [plus("a", 0), plus("b", 0), last],
        cascades=[Cascade("one", ("a", "last"), "value < 1"), Cascade("two", ("b", "last"), "value > 3"),
                  Cascade("three", ("b", "a"), "value > 3")],
    )  # fmt: skip
    batch = infer(batch_of(0, 2, 4))
    assert last.seen == [[0, 4]]
    assert batch.outputs["one"].fields["model"] == ["last", "a", "a"]
    assert batch.outputs["two"].fields["model"] == ["b", "b", "last"]
    assert batch.outputs["a"].answered is None


def test_a_step_that_saw_a_row_for_another_cascade_hands_on_nothing_of_this_one() -> None:
    m, last = plus("m", 10), plus("last", 100)
    infer = Infer(
        "s",
        [plus("a", 0), plus("b", 0), m, last],
        cascades=[Cascade("one", ("a", "m", "last"), "value > 5"), Cascade("two", ("b", "m"), "value > 1")],
    )
    batch = infer(batch_of(3))
    assert (m.seen, last.seen) == ([[3]], [])
    assert said(batch) == {"a": [3], "b": [3], "m": [13], "last": [None], "one": [3], "two": [13]}
    assert batch.outputs["one"].fields["model"] == ["a"]


def test_a_cascade_has_no_answer_where_its_first_step_has_none() -> None:
    last = plus("last", 100)
    infer = Infer(
        "s",
        [plus("quick", 0), plus("slow", 1), NamedModel(plus("reader", 10, "y"), inputs={"y": "slow.value"}), last],
        cascades=[Cascade("c", ("quick", "slow"), "value > 1"), Cascade("d", ("reader", "last"), "value < 14")],
    )
    assert {name: schema.partial for name, schema in infer.schema.items()} == {
        "quick": False,
        "slow": True,
        "reader": True,
        "last": True,
        "c": False,
        "d": True,
    }
    batch = infer(batch_of(1, 2, 3))
    assert last.seen == [[2]], "the zero that stands for no answer is not unsure"
    assert said(batch)["reader"] == [None, 13, 14]
    assert said(batch)["d"] == [None, 102, 14]


def test_rows_that_are_not_finite_are_not_handed_on() -> None:
    def inverse(x: Any) -> dict[str, Column]:
        with np.errstate(divide="ignore"):
            return {"value": 1 / np.asarray(x)}

    reader = plus("reader", 0, "y")
    infer = Infer("s", [Model("m", inverse), NamedModel(reader, inputs={"y": "m.value"})])
    settled = run_isolated(infer, batch_of(0, 2))
    assert reader.seen == [[0.5]]
    assert said(settled.kept) == {"m": [0.5], "reader": [0.5]}
    assert settled.rejected is not None
    assert settled.rejected.faults[0].detail == "model m@1: output 'value' is not finite"


def test_text_goes_from_model_to_model_and_through_a_cascade() -> None:
    def name(x: Any) -> dict[str, Column]:
        return {"label": [f"<{one:g}>" for one in np.asarray(x)], "score": np.asarray(x)}

    length = Model("length", lambda text: {"value": np.array([len(one) for one in text])}, FieldSpec("t", "string"))
    models = [Model("a", name), Model("b", lambda x: name(-np.asarray(x))), NamedModel(length, inputs={"t": "a.label"})]
    batch = Infer("s", models, cascades=[Cascade("c", ("a", "b"), "label == '<2>'")])(batch_of(1, 2, 30))
    assert batch.outputs["c"].fields["label"] == ["<1>", "<-2>", "<30>"]
    assert said(batch)["length"] == [3, 3, 4]


class TestStack:
    members = ("a", "b")

    def stack(self, model: Model, *models: Model) -> dict[str, Any]:
        named = models or (plus("a", 1), plus("b", 2))
        infer = Infer("s", named, ensembles=[Ensemble("s", "stack", self.members, model=model)])
        return said(infer(batch_of(1, 2))) | {"version": infer(batch_of(1)).outputs["s"].version}

    def test_by_name(self) -> None:
        top = Model("top", lambda a, b, x: {"value": a + 10 * b + 100 * x}, "a.value", "b", "x")
        made = self.stack(top)
        assert (made["s"], made["version"]) == ([132, 243], "a@1+b@1+top@1")

    def test_all_numbers_side_by_side(self) -> None:
        def scores(x: Any) -> dict[str, Column]:
            return {"label": ["?"] * len(x), "score": np.asarray(x), "vector": np.stack([x, x], axis=1)}

        top = Model("top", lambda m: {"value": np.asarray(m) @ [1, 10, 100, 1000]}, FieldSpec("m", "float64", 4))
        assert self.stack(top, Model("a", scores), plus("b", 5))["s"] == [6111, 7222]

    def test_a_model_that_reads_nothing_of_them(self) -> None:
        with pytest.raises(ConfigError, match="reads no answer of those that are stacked") as caught:
            self.stack(plus("top", 1))
        assert caught.value.path == "ensembles.s.model"


class TestEarlierStages:
    def test_answers_of_stages_before(self) -> None:
        first = Infer("one", [plus("a", 1), plus("b", 2)], cascades=[Cascade("c", ("a", "b"), "value > 2")])
        reader = plus("reader", 10, "y")
        label = Model("named", lambda m: {"value": np.array([len(one) for one in m])}, FieldSpec("m", "string"))
        second = Infer(
            "two",
            [NamedModel(reader, inputs={"y": "b.value"}), NamedModel(label, inputs={"m": "c.model"})],
            earlier=first.schema,
        )
        batch = second(first(batch_of(1, 2)))
        assert reader.seen == [[4]]
        assert said(batch) == {"a": [2, 3], "b": [None, 4], "c": [2, 4], "reader": [None, 14], "named": [1, 1]}
        assert [spec.name for spec in second.specs] == ["b.value", "\0asked b", "c.model"]

    def test_of_which_only_data_can_tell(self) -> None:
        earlier = {"alert": OutputSchema({"level": None})}
        infer = Infer("s", [NamedModel(plus("m", 1), inputs={"x": "alert.level"})], earlier=earlier)
        batch = batch_of(1)
        batch.outputs["alert"] = ModelOutput("r", {"level": np.array([5.0])})
        assert infer(batch).outputs["m"].fields["value"].tolist() == [6]  # type: ignore[union-attr]


def test_a_model_that_is_left_alone_costs_the_rows_that_need_it() -> None:
    calls: list[int] = []

    def fail(x: Any) -> dict[str, Column]:
        if len(x) and calls.append(len(x)) is None and len(calls) > 1:
            raise InferenceError("slow", "1", "out of order")
        return {"value": np.asarray(x)}

    infer = Infer(
        "s",
        [plus("quick", 0), Model("slow", fail)],
        cascades=[Cascade("c", ("quick", "slow"), "value > 1")],
        circuit=lambda model: Circuit(model.name, model.version, max_failures=1, rest_s=1000),
    )
    assert len(run_isolated(infer, batch_of(2)).kept) == 1  # once it answers
    assert len(run_isolated(infer, batch_of(0, 2, 3)).kept) == 1
    settled = run_isolated(infer, batch_of(0, 2, None, 3, 1))
    assert said(settled.kept)["c"] == [0, 1]
    assert settled.rejected is not None
    faults = [(fault.reason, fault.detail.partition(";")[0]) for fault in settled.rejected.faults.values()]
    why = "is left alone after 1 failed batches in a row, the last with: out of order"
    unavailable = "model_unavailable", f"model slow@1: {why}"
    assert faults == [unavailable, ("missing_field", "field 'x' is missing"), unavailable]


@given(st.lists(st.integers(-3, 8) | st.none(), max_size=30), st.none() | st.integers(1, 7))
def test_every_row_is_judged_as_alone(xs: list[int | None], max_size: int | None) -> None:
    infer = Infer(
        "s",
        [
            plus("quick", 0),
            plus("slow", 0.5),
            NamedModel(plus("after", 3, "y"), inputs={"y": "slow.value"}),
            NamedModel(plus("plain", 1), inputs={"x": "quick.value"}),
        ],
        max_size,
        ensembles=[Ensemble("mean", "mean", ("quick", "plain")), Ensemble("some", "mean", ("after", "c"))],
        cascades=[Cascade("c", ("quick", "slow"), "value >= 2 and value < 5")],
    )

    def row(x: int) -> dict[str, Any]:
        found: dict[str, Any] = {"quick": x, "plain": x + 1, "mean": x + 0.5, "c": x}
        if 2 <= x < 5:
            found |= {"slow": x + 0.5, "after": x + 3.5, "c": x + 0.5, "some": x + 2}
        return found

    kept = run_isolated(infer, batch_of(*xs)).kept
    answers = said(kept)
    good = [x for x in xs if x is not None]
    assert [{k: v[i] for k, v in answers.items() if v[i] is not None} for i in range(len(good))] == [
        row(x) for x in good
    ]
    records = PredictionEncoder("p").encode(kept)
    for i, x in enumerate(xs):
        if x is not None:
            alone = run_isolated(infer, batch_of(*xs).select(np.array([i]))).kept
            assert PredictionEncoder("p").encode(alone) == [records.pop(0)]


@pytest.mark.parametrize(
    ("more", "path", "problem"),
    [
        ({"ensembles": [Ensemble("e", "mean", ("a", "bb"))]}, "ensembles.e.mean[1]", "there is no 'bb' in this stage"),
        ({"ensembles": [Ensemble("e", "weighted", ("a", "c"), (1, 2))]}, "ensembles.e.weighted.c", "there is no 'c'"),
        ({"ensembles": [Ensemble("e", "mean", ("a", "a"))]}, "ensembles.e.mean[1]", "stands there twice"),
        ({"ensembles": [Ensemble("a", "mean", ("a", "b"))]}, "ensembles.a", "the name 'a' is not distinct"),
        ({"ensembles": [Ensemble("e", "mean", ("a", "f")), Ensemble("f", "mean", ("a", "e"))]},
         "", "'e' reads 'f' reads 'e'"),
        ({"cascades": [Cascade("c", ("a",), "value > 1")]}, "cascades.c.steps", "two steps at least"),
        ({"cascades": [Cascade("c", ("a", "e"), "value > 1")], "ensembles": [Ensemble("e", "mean", ("a", "b"))]},
         "cascades.c.steps[1]", "'e' is an ensemble; a step must be a model"),
        ({"cascades": [Cascade("c", ("a", "blend"), "value > 1")]}, "cascades.c.steps[1]", "there is no model 'blend'"),
        ({"cascades": [Cascade("c", ("a", "b", "a"), "value > 1")]}, "cascades.c.steps[2]", "stands there twice"),
    ],
)  # fmt: skip
def test_names_that_make_no_sense(more: dict[str, Any], path: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem) as caught:
        Infer("s", [plus("a", 0), plus("b", 0)], **more)
    assert caught.value.path == path


@pytest.mark.parametrize(
    ("field", "inputs", "path", "problem"),
    [
        ("y", {"z": "a.value"}, "models[1].inputs.z", "model m@1 reads no field 'z'"),
        ("y", {"y": "a.valu"}, "models[1].inputs.y", "'a' answers with no field 'valu'; did you mean 'value'?"),
        (FieldSpec("y", "string"), {"y": "a.value"}, "models[1].inputs.y",
         "reads field 'y' as string, but a.value is float64"),
        (FieldSpec("y", "float64", 2), {"y": "a.value"}, "models[1].inputs.y",
         r"as float64\[2\], but a.value is float64"),
        ("y", {"y": "m.value"}, "", "'m' reads 'm'"),
    ],
)  # fmt: skip
def test_inputs_that_make_no_sense(field: Any, inputs: dict[str, str], path: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem) as caught:
        Infer("s", [plus("a", 0), NamedModel(Model("m", lambda y: {"value": y}, field), inputs=inputs)])
    assert caught.value.path == path


def test_partial_answers_come_out_of_a_cache_as_they_went_in() -> None:
    slow = plus("slow", 1)
    infer = Infer(
        "s",
        [plus("quick", 0), slow],
        ensembles=[Ensemble("e", "mean", ("quick", "slow"))],
        cascades=[Cascade("c", ("quick", "slow"), "value > 1")],
    )
    cached = CachedInfer(infer, None, ttl_s=60, bypass=False)
    expected = PredictionEncoder("p").encode(infer(batch_of(0, 2, 0, 3)))
    n_calls = len(slow.seen)
    for _ in range(2):
        batch = cached(batch_of(0, 2, 0, 3))
        assert PredictionEncoder("p").encode(batch) == expected
    assert slow.seen[n_calls:] == [[2, 3]]
    cached.close()


def test_a_refusal_is_not_kept() -> None:
    clock = [0.0]
    circuit = Circuit("slow", "1", max_failures=1, rest_s=1, clock=lambda: clock[0])
    slow = plus("slow", 1)
    cascade = Cascade("c", ("quick", "slow"), "value > 1")
    infer = Infer(
        "s",
        [plus("quick", 0), slow],
        cascades=[cascade],
        circuit=lambda model: circuit if model is slow else Circuit("", ""),
    )
    cached = CachedInfer(infer, None, ttl_s=60, bypass=False)
    circuit.failed(InferenceTimeout("slow", "1", "gone"))
    assert said(run_isolated(cached, batch_of(0, 2)).kept)["c"] == [0]
    clock[0] = 1.0
    assert said(run_isolated(cached, batch_of(0, 2)).kept)["c"] == [0, 3]
    cached.close()

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import orjson
import pytest

from modelstream.models.errors import ConfigError
from modelstream.operators.batch import EventBatch, Fault, ModelOutput, Settled
from modelstream.operators.encode import PredictionEncoder
from modelstream.operators.expressions import Expression, compile_expression
from modelstream.operators.fields import ColumnSpec
from modelstream.operators.operator import run_isolated
from modelstream.operators.rules import Rules

X, Y = ColumnSpec("x", "float64"), ColumnSpec("y", "int64")


def expressions(texts: dict[str, str]) -> dict[str, Expression]:
    return {name: compile_expression(text, name) for name, text in texts.items()}


def rules(
    *fields: ColumnSpec,
    columns: dict[str, str] | None = None,
    keep: str | None = None,
    reject: dict[str, str] | None = None,
    **outputs: dict[str, str],
) -> Rules:
    return Rules(
        "r",
        fields,
        expressions(columns or {}),
        None if keep is None else compile_expression(keep, "keep"),
        expressions(reject or {}),
        {name: expressions(parts) for name, parts in outputs.items()},
    )


def run(stage: Rules, events: list[dict[str, Any]], **outputs: ModelOutput) -> Settled:
    batch = EventBatch.of_events(events)
    batch.outputs |= outputs
    return run_isolated(stage, batch)


def rows(settled: Settled) -> list[int]:
    return settled.kept.lineage.record_index.tolist()


def faults(settled: Settled) -> dict[int, tuple[str, str]]:
    rejected = settled.rejected
    if rejected is None:
        return {}
    where = rejected.lineage.record_index.tolist()
    assert all(fault.stage == "r" for fault in rejected.faults.values())
    return {where[row]: (fault.reason, fault.detail) for row, fault in rejected.faults.items()}


def written(settled: Settled) -> list[Any]:
    return [orjson.loads(text)["predictions"] for text in PredictionEncoder("").encode(settled.kept)]


def test_columns_are_computed_in_order_and_later_ones_use_earlier_ones() -> None:
    settled = run(rules(X, columns={"a": "x * 2", "b": "a + 1", "c": "upper('c')"}), [{"x": 1}, {"x": 2}])
    assert settled.kept.columns["b"].tolist() == [3.0, 5.0]  # type: ignore[union-attr]
    assert settled.kept.columns["c"] == ["C", "C"]
    assert settled.kept.columns["a"].flags.c_contiguous  # type: ignore[union-attr]


def test_declared_fields_become_columns_and_events_without_are_rejected() -> None:
    settled = run(rules(X, ColumnSpec("name", "string", path="a.b"), keep="x > 0 and name != ''"), [
        {"x": 1, "a": {"b": "n"}}, {"x": 1, "a": {}}, {"x": "one", "a": {"b": "n"}}, {"x": 0, "a": {"b": "n"}},
    ])  # fmt: skip
    assert rows(settled) == [0]
    assert settled.kept.columns["name"] == ["n"]
    assert {row: reason for row, (reason, _) in faults(settled).items()} == {1: "missing_field", 2: "wrong_type"}
    assert settled.filtered is not None and settled.filtered.record_index.tolist() == [3]


def test_a_column_of_an_earlier_stage_is_read() -> None:
    batch = EventBatch.of_events([{}, {}])
    batch.columns["x"] = np.array([1, 5], np.float32)
    settled = run_isolated(rules(keep="x > 3"), batch)
    assert rows(settled) == [1]


def test_rejected_rows_name_their_rule_and_the_first_one_counts() -> None:
    stage = rules(X, reject={"too far": "x > 10", "much too far": "x > 100", "negative": "x < 0"})
    settled = run(stage, [{"x": value} for value in (1, 11, 101, -1)])
    assert rows(settled) == [0]
    assert faults(settled) == {
        1: ("rule", "rule 'too far': x > 10"),
        2: ("rule", "rule 'too far': x > 10"),
        3: ("rule", "rule 'negative': x < 0"),
    }


def test_rows_that_are_taken_out_are_judged_no_further() -> None:
    stage = rules(X, Y, columns={"q": "x / y"}, keep="y != 0", reject={"all": "x > 0"}, out={"q": "1 / y"})
    settled = run(stage, [{"x": 1, "y": 0}, {"x": -1, "y": 0}, {"x": -1, "y": 2}])
    assert (rows(settled), faults(settled)) == ([2], {})
    assert settled.filtered is not None and len(settled.filtered) == 2


@pytest.mark.parametrize(
    ("stage", "detail"),
    [
        (rules(X, columns={"q": "1 / x"}), "column 'q' has no finite result"),
        (rules(X, columns={"q": "1 / x", "w": "q + 1"}), "column 'q' has no finite result"),
        (rules(X, keep="1 / x > 0"), "keep has no finite result"),
        (rules(X, reject={"big": "1 / x > 5"}), "rule 'big' has no finite result"),
        (rules(X, out={"a": "x", "b": "log(x - 0.5)"}), "output 'out.b' has no finite result"),
    ],
)
def test_a_row_without_a_finite_result_is_rejected_alone(stage: Rules, detail: str) -> None:
    settled = run(stage, [{"x": 1}, {"x": 0}, {"x": 2}])
    assert rows(settled) == [0, 2]
    assert faults(settled) == {1: ("non_finite", detail)}


def test_what_is_not_needed_is_not_missed() -> None:
    stage = rules(X, columns={"q": "1 / x if x != 0 else 0"}, out={"q": "where(x == 0, q, 1 / x)"})
    assert rows(run(stage, [{"x": 1}, {"x": 0}])) == [0, 1]


LATE = ModelOutput("2", {"score": np.array([0.9, 0.1], np.float32), "label": np.array([1, 0])})
THOROUGH = ModelOutput(
    "1",
    {"score": np.array([0.7, 0.0], np.float32), "label": np.array([1, 0]), "name": ["late", ""]},
    np.array([True, False]),
)


def test_outputs_stand_beside_those_of_models() -> None:
    stage = rules(alert={"level": "where(late.score > 0.8, 'high', 'low')", "twice": "late.label * 2"})
    settled = run(stage, [{}, {}], late=LATE)
    assert written(settled) == [
        {
            "late": {"version": "2", "score": 0.9, "label": 1},
            "alert": {"version": stage.version, "level": "high", "twice": 2},
        },
        {
            "late": {"version": "2", "score": 0.1, "label": 0},
            "alert": {"version": stage.version, "level": "low", "twice": 0},
        },
    ]


def test_what_a_model_was_not_asked_is_null() -> None:
    parts = {"score": "t.h.score", "label": "t.h.label", "name": "t.h.name", "known": "t.h.label is not null"}
    best = "coalesce(t.h.score, late.score)"
    settled = run(rules(out=parts | {"best": best}), [{}, {}], late=LATE, **{"t.h": THOROUGH})
    expected = [
        {"score": 0.7, "label": 1, "name": "late", "known": True, "best": 0.7},
        {"score": None, "label": None, "name": None, "known": False, "best": 0.1},
    ]
    assert [{k: v for k, v in row["out"].items() if k != "version"} for row in written(settled)] == expected


def test_the_longest_name_of_an_answer_is_meant() -> None:
    answers = {
        "delay": ModelOutput("1", {"v2.value": np.array([1.0]), "v2.low": np.array([1.0])}),
        "delay.v2": ModelOutput("1", {"value": np.array([2.0])}),
    }
    [row] = written(run(rules(out={"x": "delay.v2.value"}), [{}], **answers))
    assert row["out"]["x"] == 2
    assert faults(run(rules(keep="delay.v2.low > 0"), [{}], **answers))[0][0] == "operator_failed"


@pytest.mark.parametrize(("text", "kept"), [("t.score > 0", [0]), ("not (t.score > 0)", []), ("t.score is null", [1])])
def test_null_does_not_keep(text: str, kept: list[int]) -> None:
    assert rows(run(rules(keep=text), [{}, {}], t=THOROUGH)) == kept


def test_null_does_not_reject() -> None:
    assert rows(run(rules(reject={"r": "t.score < 5"}), [{}, {}], t=THOROUGH)) == [1]


def test_a_column_must_have_a_value() -> None:
    settled = run(rules(columns={"s": "t.score"}), [{}, {}], t=THOROUGH)
    assert (rows(settled), faults(settled)) == ([0], {1: ("missing_field", "column 's' is null")})


def test_an_answer_that_is_not_a_number_is_null() -> None:
    settled = run(rules(keep="m.value is not null"), [{}, {}], m=ModelOutput("1", {"value": np.array([np.nan, 1.0])}))
    assert rows(settled) == [1]


def test_parts_of_a_batch_go_together_again_whatever_is_null_in_them() -> None:
    stage = rules(out={"label": "t.label", "name": "t.name", "score": "t.score"})
    whole = run(stage, [{}, {}], t=THOROUGH).kept
    for order in ([0, 1], [1, 0], [1, 1, 0]):
        parts = []
        for row in order:
            batch = EventBatch.of_events([{}])
            batch.outputs["t"] = THOROUGH.select(np.array([row]))
            parts.append(stage(batch))
        joined = PredictionEncoder("").encode(EventBatch.concat(parts))
        alone = PredictionEncoder("").encode(whole)
        predictions = [text.partition('"predictions"')[2] for text in joined]
        assert predictions == [alone[row].partition('"predictions"')[2] for row in order]


def test_a_kind_that_only_data_shows_to_be_wrong_rejects_the_rows() -> None:
    settled = run(rules(reject={"r": "m.label > 5"}), [{}, {}], m=ModelOutput("1", {"label": ["late", "on time"]}))
    assert faults(settled) == dict.fromkeys(range(2), ("wrong_type", "text and numbers do not go together"))
    settled = run(rules(keep="m.scores > 5"), [{}], m=ModelOutput("1", {"scores": np.zeros((1, 3))}))
    assert faults(settled)[0][0] == "wrong_type"


def test_a_column_that_no_stage_has_made_rejects_the_rows() -> None:
    settled = run(rules(columns={"b": "a.b.c + 1"}), [{}, {}])
    detail = "there is no column 'a.b.c'; if it is a field of the events, declare it under rules.fields"
    assert faults(settled) == dict.fromkeys(range(2), ("operator_failed", detail))


def test_the_version_follows_what_predictions_depend_on() -> None:
    base = rules(X, columns={"a": "x"}, keep="x > 0", out={"b": "a"})
    assert base.version == rules(X, columns={"a": "x"}, keep="x > 1", reject={"r": "x > 9"}, out={"b": "a"}).version
    others = [
        rules(Y, columns={"a": "x"}, out={"b": "a"}),
        rules(X, columns={"a": "x + 0"}, out={"b": "a"}),
        rules(X, columns={"a": "x"}, out={"c": "a"}),
        rules(X, columns={"a": "x"}, d={"b": "a"}),
    ]
    assert len({stage.version for stage in [base, *others]}) == 5
    assert base.version == "rules-89142c51"  # the same in every process, or ids would differ
    assert rules(X, keep="x > 0").version == ""


def test_an_empty_batch() -> None:
    batch = EventBatch.of_events([])
    assert len(rules(X, columns={"a": "x"}, out={"b": "a + 1"})(batch)) == 0


def test_a_stage_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(ConfigError, match="expressions or a function"):
        Rules("r")
    with pytest.raises(ConfigError, match="expressions or a function"):
        Rules("r", keep=compile_expression("true", "keep"), function=lambda batch: None)


class TestFunction:
    def run(self, function: Callable[[EventBatch], Any], n_rows: int = 4) -> Settled:
        batch = EventBatch.of_events([{"x": i} for i in range(n_rows)])
        batch.columns["c"] = np.arange(n_rows)
        batch.outputs["m"] = ModelOutput("1", {"v": np.arange(n_rows) / 2})
        return run_isolated(Rules("r", function=function), batch)

    def test_it_changes_the_batch(self) -> None:
        def function(batch: EventBatch) -> None:
            batch.columns["c"] *= 10
            batch.columns["name"] = np.array(["n"] * len(batch))
            batch.outputs["alert"] = ModelOutput("mine", {"high": batch.outputs["m"].fields["v"] > 1})  # type: ignore[operator]
            batch.filter_out(batch.columns["c"] == 10)  # type: ignore[arg-type]
            batch.reject(3, Fault("r", "rule", "the last one"))

        settled = self.run(function)
        assert rows(settled) == [0, 2]
        assert settled.kept.columns["c"].tolist() == [0, 20]  # type: ignore[union-attr]
        assert settled.kept.columns["name"] == ["n", "n"]
        assert written(settled)[0]["alert"] == {"version": "mine", "high": False}
        assert faults(settled) == {3: ("rule", "the last one")}

    def test_where_it_raises_the_rest_is_as_if_it_had_not(self) -> None:
        def function(batch: EventBatch) -> EventBatch:
            batch.columns["c"] += 100  # in place, and before it raises
            batch.filter_out(np.ones(len(batch), np.bool_))
            batch.status = None
            if any(event["x"] == 2 for event in batch.events):
                raise ValueError("not 2")
            return batch

        settled = self.run(function)
        assert rows(settled) == [0, 1, 3]
        assert settled.kept.columns["c"].tolist() == [100, 101, 103]  # type: ignore[union-attr]
        assert faults(settled) == {2: ("operator_failed", "ValueError: not 2")}

    @pytest.mark.parametrize(
        ("function", "detail"),
        [
            (lambda batch: 5, "the function returned int"),
            (lambda batch: batch.select(slice(0, 1)), "the function returned EventBatch"),
            (lambda batch: batch.columns.update(d=[1]), "column 'd' is a list of int"),
            (lambda batch: batch.columns.update(d=np.zeros(99)), "column 'd' has 99 rows"),
            (lambda batch: batch.outputs.update(d=5), "output 'd' is no ModelOutput"),
            (lambda batch: batch.outputs.update(d=ModelOutput("1", {})), "output 'd' is no ModelOutput"),
            (lambda batch: batch.outputs.update(d=ModelOutput("1", {"a": np.zeros(99)})), "column 'd.a' has 99 rows"),
            (lambda batch: setattr(batch, "status", np.zeros(99)), "the function replaced the status"),
        ],
    )
    def test_what_makes_no_sense_is_the_rows_fault(self, function: Callable[..., Any], detail: str) -> None:
        settled = self.run(function, 2)
        assert [reason for reason, _ in faults(settled).values()] == ["operator_failed"] * 2
        assert all(detail in said for _, said in faults(settled).values())

    def test_answers_that_are_not_finite_are_rejected_unless_nobody_was_asked(self) -> None:
        def function(batch: EventBatch) -> None:
            values = np.array([np.nan, 1.0, np.inf, 2.0])
            batch.outputs["a"] = ModelOutput("1", {"v": values}, np.array([True, True, False, True]))

        settled = self.run(function)
        assert (rows(settled), faults(settled)) == ([1, 2, 3], {0: ("non_finite", "output 'a' is not finite")})

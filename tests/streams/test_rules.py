"""Rules stages in a pipeline: what their expressions may read, and what is said where they read something else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from modelstream.models.errors import ConfigError
from modelstream.operators.batch import EventBatch, ModelOutput
from modelstream.streams.known_columns import unchecked_notes
from modelstream.streams.pipeline import Pipeline, extract, infer, load_pipeline, rules
from modelstream.streams.spec import parse_spec

EVENTS = [
    {"id": "a", "dep_delay": 3, "distance": 100, "carrier": "UA"},
    {"id": "b", "dep_delay": 4, "distance": 9500, "carrier": "UA"},
    {"id": "c", "dep_delay": 5, "distance": 100, "carrier": "DL"},
    {"id": "d", "dep_delay": 60, "distance": 200, "carrier": "AA"},
]

BEFORE = rules(
    fields={"distance": "float64", "carrier": "string"},
    columns={"km": "distance * 1.609344"},
    keep="carrier in ['UA', 'AA']",
    reject={"too far": "distance > 9000"},
)
AFTER = rules(outputs={"alert": {"level": "where(arrival_delay.value > 100, 'high', 'low')", "km": "round(km)"}})


def pipeline(project: Path, before: Any = BEFORE, after: Any = AFTER, name: str = "p") -> Pipeline:
    return (
        Pipeline(name, {"topic": "in", "event_id": "id"}, folder=project.parent)
        .then("before", before)
        .then("features", extract("features:departure"))
        .then("delay", infer(["arrival_delay"]))
        .then("after", after)
        .to("out")
    )


def test_business_logic_before_and_after_the_models(project: Path) -> None:
    simulation = pipeline(project).simulate(EVENTS)
    predicted = {row["event_id"]: row["predictions"] for row in simulation.predictions}
    assert {key: row["arrival_delay"]["value"] for key, row in predicted.items()} == {"a": 7.0, "d": 121.0}
    versions = {row["alert"].pop("version") for row in predicted.values()}
    assert len(versions) == 1
    assert {key: row["alert"] for key, row in predicted.items()} == {
        "a": {"level": "low", "km": 161},
        "d": {"level": "high", "km": 322},
    }
    assert simulation.filtered == 1
    assert [(dead["offset"], dead["stage"], dead["reason"], dead["detail"]) for dead in simulation.dead_letters] == [
        (1, "before", "rule", "rule 'too far': distance > 9000")
    ]


def test_the_file_says_the_same(project: Path, tmp_path: Path) -> None:
    built = pipeline(project)
    (tmp_path / "copy.yaml").write_text(built.to_yaml())
    assert load_pipeline(tmp_path / "copy.yaml") == built


def test_ids_follow_the_rules_that_predictions_depend_on(project: Path) -> None:
    def ids(**changes: Any) -> list[str]:
        return [row["id"] for row in pipeline(project, **changes).simulate(EVENTS[:1]).predictions]

    other_level = rules(
        outputs={"alert": {"level": "where(arrival_delay.value > 90, 'high', 'low')", "km": "round(km)"}}
    )
    other_limit = {"rules": BEFORE["rules"] | {"reject": {"too far": "distance > 8000"}}}
    assert ids() == ids(before=other_limit)
    assert ids() != ids(after=other_level)


def test_a_function_does_what_it_likes(project: Path) -> None:
    def after(batch: EventBatch) -> None:
        batch.outputs["mine"] = ModelOutput("1", {"km": batch.columns["km"]})

    [prediction] = pipeline(project, after=rules(after)).simulate(EVENTS[:1]).predictions
    assert prediction["predictions"]["mine"] == {"version": "1", "km": 160.9344}


def test_later_rules_read_the_outputs_of_earlier_ones(project: Path) -> None:
    last = rules(outputs={"final": {"shout": "upper(alert.level)"}})
    whole = pipeline(project).then("last", last).to("out")
    assert whole.simulate(EVENTS[:1]).predictions[0]["predictions"]["final"]["shout"] == "LOW"
    with pytest.raises(ConfigError, match=r"stages\[4\].rules.keep: text cannot be compared with a number"):
        pipeline(project).then("last", rules(keep="alert.level > 5")).to("out").build()


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        (
            rules(fields={"distance": "float32"}, keep="distnce > 5"),
            AFTER,
            "stages[0].rules.keep: there is no 'distnce'; did you mean 'distance'?",
        ),
        (
            rules(keep="hour > 5"),
            AFTER,
            "stages[0].rules.keep: there is no 'hour'; fields of the events are declared, as in fields: {hour",
        ),
        (
            rules(columns={"b": "a + 1", "a": "1"}),
            AFTER,
            "stages[0].rules.columns.b: there is no 'a'; fields of the events",
        ),
        (
            rules(keep="arrival_delay.value > 5"),
            AFTER,
            "stages[0].rules.keep: there is no 'arrival_delay.value'",
        ),
        (
            rules(fields={"carrier": "string"}, reject={"too far": "carrier > 5"}),
            AFTER,
            "stages[0].rules.reject['too far']: text cannot be compared with a number",
        ),
        (
            rules(fields={"carrier": "string"}, keep="carrier"),
            AFTER,
            "stages[0].rules.keep: must be true or false, not text; compare it",
        ),
        (
            rules(fields={"v": {"dtype": "float32", "width": 3}}, keep="v > 5"),
            AFTER,
            "stages[0].rules.keep: 'v' has several values a row; expressions take one number or text",
        ),
        (
            BEFORE,
            rules(outputs={"alert": {"x": "arrival_delay.vlaue"}}),
            "stages[3].rules.outputs.alert.x: there is no 'arrival_delay.vlaue'; did you mean 'arrival_delay.value'?",
        ),
        (
            BEFORE,
            rules(outputs={"alert": {"x": "arrival_delay.value + 'a'"}}),
            "stages[3].rules.outputs.alert.x: + takes two numbers, or two texts",
        ),
        (
            BEFORE,
            rules(outputs={"arrival_delay": {"x": "1"}}),
            "stages[3].rules.outputs.arrival_delay: the name 'arrival_delay' stands at",
        ),
        (
            BEFORE,
            rules("features:rate"),
            "stages[3].rules: module 'features' has no function 'rate'",
        ),
        (
            rules(fields={"x": "string"}, keep="len(x) > 0 and x > 1"),
            AFTER,
            "stages[0].rules.keep: text cannot be compared with a number",
        ),
    ],
)
def test_what_an_expression_may_not_read(project: Path, before: Any, after: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        pipeline(project, before, after).build()
    assert str(caught.value).startswith(message)


def test_after_a_function_other_columns_may_be_there(project: Path) -> None:
    pipeline(project, after=rules(keep="x2 > 5")).build()


def test_a_function_may_replace_a_declared_column(project: Path) -> None:
    for column in ("string", {"dtype": "float32", "width": 2}):
        built = pipeline(project, rules(fields={"x": column}, keep="true"), rules(keep="x > 1")).build()
        assert [stage.step_id for stage in built.stages][-1] == "after"


def test_what_stages_without_functions_declare_is_known_by_its_type(project: Path) -> None:
    before = rules(fields={"x": {"dtype": "float32", "width": 2}, "carrier": "string"}, keep="true")
    for keep, problem in (("carrier > 1", "text cannot be"), ("x > 1", "'x' has several values a row")):
        with pytest.raises(ConfigError, match=rf"stages\[1\].rules.keep: {problem}"):
            pipe = Pipeline("p", "in", folder=project.parent).then("before", before).then("after", rules(keep=keep))
            pipe.then("delay", infer(["arrival_delay"])).to("out").build()


@pytest.mark.parametrize(
    ("keep", "problem"),
    [
        ("features > 1", "'features' has several values a row; expressions take one number or text"),
        ("hour > 1", "there is no 'hour'; a record of format f32 has no fields, only the column 'features'"),
    ],
)
def test_a_raw_vector_is_a_column_with_several_values(project: Path, keep: str, problem: str) -> None:
    source = {"topic": "in", "format": {"f32": 2, "field": "features"}}
    delay = infer([{"model": "arrival_delay", "inputs": {"x": "features"}}])
    pipe = Pipeline("p", source, folder=project.parent).then("before", rules(keep=keep)).then("delay", delay)
    with pytest.raises(ConfigError) as caught:
        pipe.to("out").build()
    assert str(caught.value) == f"stages[0].rules.keep: {problem}"


def test_names_that_only_data_can_check_are_noted(project: Path) -> None:
    after = rules(
        fields={"carrier": "string"},
        columns={"own": "distance + hour"},
        keep="own > arrival_delay.value",
        outputs={"out": {"km": "km + hour", "carrier": "carrier"}},
    )
    assert list(unchecked_notes(pipeline(project, after=after).spec)) == [
        "stages[3].rules: nothing checks 'hour', which a function of a stage before must make; "
        "fields of the events are declared under rules.fields"
    ]
    assert list(unchecked_notes(pipeline(project).spec)) == []


def test_what_is_wrong_with_expressions_is_told_at_once() -> None:
    raw: dict[str, Any] = {
        "fields": {"x": "float32"},
        "columns": {"a": "1 +", "x": "1"},
        "keep": "x[0]",
        "reject": {"too far": "f(1)"},
        "outputs": {"o": {"k": "9**9**9"}},
    }
    stages = [{"id": "r", "rules": raw}, {"id": "m", "infer": {"models": ["m"]}}]
    with pytest.raises(ConfigError) as caught:
        parse_spec({"pipeline": "p", "source": {"topic": "in"}, "stages": stages, "sink": {"topic": "out"}})
    assert [line.partition(": ")[0] for line in str(caught.value).splitlines()] == [
        "stages[0].rules.columns.a",
        "stages[0].rules.keep",
        "stages[0].rules.reject['too far']",
        "stages[0].rules.outputs.o.k",
        "stages[0].rules.columns.x",
    ]


def test_a_pipeline_of_rules_alone_is_none() -> None:
    stages = [{"id": "r", "rules": {"keep": "true"}}]
    with pytest.raises(ConfigError, match="no stage infers"):
        parse_spec({"pipeline": "p", "source": {"topic": "in"}, "stages": stages, "sink": {"topic": "out"}})


def test_a_model_is_checked_against_what_rules_declare(make_project: Callable[..., Path]) -> None:
    project = make_project("declared")
    before = rules(fields={"x": {"dtype": "float32", "width": 5}}, keep="true")
    with pytest.raises(ConfigError, match=r"as float32\[2\], but stages\[0\].rules.fields.x is float32\[5\]"):
        (
            Pipeline("p", "in", folder=project.parent)
            .then("before", before)
            .then("delay", infer(["arrival_delay"]))
            .to("out")
            .build()
        )

"""User functions get a copy, and what they leave is checked: their neighbours never see what a failed call did."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from support.onnx_factory import affine, write_model

from modelstream import Pipeline, extract, filter_events, infer, rules
from modelstream.models.errors import OperatorError
from modelstream.operators import EventBatch, Fault, ModelOutput
from modelstream.operators.encode import PredictionEncoder
from modelstream.operators.late_events import LateEvents
from modelstream.operators.user_functions import call_user_function


def batch_of(n_rows: int = 3) -> EventBatch:
    batch = EventBatch.of_events([{"x": i} for i in range(n_rows)])
    batch.columns = {"c": np.arange(n_rows), "text": [str(i) for i in range(n_rows)]}
    batch.outputs["m"] = ModelOutput(["1"] * n_rows, {"v": np.arange(n_rows) / 2})
    return batch


def spoil(batch: EventBatch) -> None:
    """Change in place whatever can be."""
    for event in batch.events:
        event["x"] *= 10
    batch.columns["c"] *= 10
    batch.columns["text"][0] = "spoilt"
    batch.outputs["m"].fields["v"][:] *= 10  # type: ignore[index]
    batch.outputs["m"].version[0] = "spoilt"  # type: ignore[index]
    batch.ids[0] = "spoilt"
    batch.keys[0] = b"spoilt"
    batch.event_times += 1
    batch.reject(0, Fault("s", "rule", "no"))


def test_the_batch_is_as_it_was_and_the_changes_are_in_what_is_returned() -> None:
    batch, other = batch_of(), batch_of()
    changed, returned = call_user_function("s", spoil, batch)
    assert repr(batch) == repr(other)
    assert returned is None
    assert list(changed.events) == [{"x": 0}, {"x": 10}, {"x": 20}]
    assert changed.columns["c"].tolist() == [0, 10, 20]  # type: ignore[union-attr]
    assert changed.outputs["m"].fields["v"].tolist() == [0, 5, 10]  # type: ignore[union-attr]
    assert changed.faults == {0: Fault("s", "rule", "no")}
    # Not for a function to change: another event's prediction would go out under them.
    assert (changed.ids, changed.keys) == (other.ids, other.keys)
    assert changed.event_times.tolist() == other.event_times.tolist()


def test_events_that_are_not_decoded_yet_are_copied_too() -> None:
    batch = batch_of(2)
    batch.events = LateEvents([b'{"x": 0}', b'{"x": 1}'], {})
    assert batch.events[1] == {"x": 1}  # somebody has looked already
    changed, _ = call_user_function("s", lambda lent: lent.events[1].update(x=7), batch)
    assert (changed.events[1], batch.events[1]) == ({"x": 7}, {"x": 1})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda batch: batch.events.pop(), r"the function left 2 events of 3; call filter_out\(\)"),
        (lambda batch: batch.columns.update({1: np.zeros(3)}), "a column's name is 1, not text"),
        (lambda batch: batch.outputs.update({1: batch.outputs["m"]}), "under a name that is text"),
        (
            lambda batch: batch.outputs.update(o=ModelOutput(1, {"v": np.zeros(3)})),
            "output 'o' is 1, not text",
        ),  # type: ignore[arg-type]
        (lambda batch: batch.outputs.update(o=ModelOutput(["1"], {"v": np.zeros(3)})), "has 1 versions for 3 events"),
        (lambda batch: batch.outputs.update(o=ModelOutput("1", {1: np.zeros(3)})), "a field of output 'o' is called 1"),  # type: ignore[dict-item]
        (
            lambda batch: batch.outputs.update(o=ModelOutput("1", {"v": np.zeros(3)}, np.ones(1, np.bool_))),
            "answered of output 'o' is not 3 times true or false",
        ),
        (lambda batch: batch.reject(0, "no"), "rejected an event for 'no', which is no Fault of texts"),
        (lambda batch: batch.reject(0, Fault("s", "rule", 7)), "which is no Fault of texts"),  # type: ignore[arg-type]
        (lambda batch: batch.reject(0, Fault("s", "silly", "no")), "'silly' is no reason to reject an event; undecod"),
    ],
)
def test_what_is_no_batch_any_more_is_said(change: Callable[[EventBatch], Any], said: str) -> None:
    with pytest.raises(OperatorError, match=said):
        call_user_function("s", change, batch_of())


@pytest.mark.parametrize("dtype", [">f4", ">i8", np.longdouble, np.float16, np.uint8, np.bool_])
def test_numbers_of_any_dtype_can_be_written(dtype: Any) -> None:
    column = np.array([[0, 1], [1, 0], [1, 1]]).astype(dtype)
    changed, _ = call_user_function(
        "s", lambda batch: batch.outputs.update(o=ModelOutput("1", {"v": column})), batch_of()
    )
    written = [orjson.loads(text)["predictions"]["o"]["v"] for text in PredictionEncoder("seed").encode(changed)]
    assert written == column.tolist()


def test_an_answer_may_be_edited_to_be_not_finite_where_it_was_so_before_only() -> None:
    batch = batch_of()
    batch.outputs["m"].fields["v"][0] = np.nan  # type: ignore[index]

    def edit(lent: EventBatch) -> None:
        lent.outputs["m"].fields["v"][:2] = np.nan  # type: ignore[index]

    changed, _ = call_user_function("s", edit, batch)
    assert changed.faults == {1: Fault("s", "non_finite", "output 'm' is not finite")}


def three_numbers_deep(batch: EventBatch) -> None:
    values = np.zeros((len(batch), 2, 2))
    values[[event["x"] == 3 for event in batch.events], 1, 1] = np.nan
    batch.outputs["o"] = ModelOutput("1", {"v": values})


@pytest.fixture
def pipeline(tmp_path: Path) -> Pipeline:
    write_model(tmp_path / "models", "m", affine([1.0]), '[inputs.x]\nfields = ["x"]\n')
    return Pipeline("p", {"topic": "in", "event_id": "id"}, folder=tmp_path)


EVENTS = [{"id": str(i), "x": i} for i in range(1, 6)]


def outcome(pipeline: Pipeline) -> tuple[dict[str, Any], list[tuple[Any, ...]]]:
    found = pipeline.simulate(EVENTS)
    return (
        {record["event_id"]: record["predictions"]["m"]["value"] for record in found.predictions},
        [(letter["offset"], letter["stage"], letter["reason"]) for letter in found.dead_letters],
    )


def fails_on_three(change: Callable[[EventBatch], Any]) -> Callable[[EventBatch], Any]:
    def function(batch: EventBatch) -> Any:
        returned = change(batch)
        if any(event["id"] == "3" for event in batch.events):
            raise ValueError("not this one")
        return returned

    return function


def scale_events(batch: EventBatch) -> dict[str, Any]:
    for event in batch.events:
        event["x"] *= 10
    return {"x": np.array([event["x"] for event in batch.events], np.float32)}


def keep_all_scaled(batch: EventBatch) -> Any:
    for event in batch.events:
        event["x"] *= 10
    return np.ones(len(batch), np.bool_)


def scale_answers(batch: EventBatch) -> None:
    batch.outputs["m"].fields["value"][:] *= 10  # type: ignore[index]


def test_a_call_that_raised_leaves_no_trace_on_the_neighbours(pipeline: Pipeline) -> None:
    scaled = {"1": 10, "2": 20, "4": 40, "5": 50}
    steps = {
        "extract": [extract(fails_on_three(scale_events)), infer(["m"])],
        "filter": [filter_events(fails_on_three(keep_all_scaled)), infer(["m"])],
        "rules": [infer(["m"]), rules(fails_on_three(scale_answers))],
    }
    for name, (first, second) in steps.items():
        ids = (name, "score") if name != "rules" else ("score", name)
        built = pipeline.then(ids[0], first).then(ids[1], second).to("out")
        assert outcome(built) == (scaled, [(2, name, "operator_failed")])


@pytest.mark.parametrize(
    ("column", "said"),
    [
        (lambda bad: ["\ud800" if row else "ok" for row in bad], "UnicodeEncodeError: "),
        (
            lambda bad: np.array([[{1}] if row else [1] for row in bad], object),
            "TypeError: Type is not JSON serializable",
        ),
    ],
)
def test_an_answer_that_no_record_can_hold_is_the_events_fault(
    pipeline: Pipeline, column: Callable[[list[bool]], Any], said: str
) -> None:
    def tell(batch: EventBatch) -> None:
        bad = [event["id"] == "3" for event in batch.events]
        batch.outputs["told"] = ModelOutput("1", {"v": column(bad)})

    found = pipeline.then("score", infer(["m"])).then("tell", rules(tell)).to("out").simulate(EVENTS)
    assert [record["event_id"] for record in found.predictions] == ["1", "2", "4", "5"]
    [letter] = found.dead_letters
    assert (letter["offset"], letter["stage"], letter["reason"]) == (2, "sink", "operator_failed")
    assert letter["detail"].startswith(said)


def test_answers_of_any_shape_are_checked_to_be_finite(pipeline: Pipeline) -> None:
    found = pipeline.then("score", infer(["m"])).then("deep", rules(three_numbers_deep)).to("out").simulate(EVENTS)
    assert [record["event_id"] for record in found.predictions] == ["1", "2", "4", "5"]
    assert [(letter["offset"], letter["reason"]) for letter in found.dead_letters] == [(2, "non_finite")]

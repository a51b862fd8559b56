from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from modelstream.models.errors import ConfigError, OperatorError
from modelstream.operators.batch import EventBatch
from modelstream.operators.filter import Filter
from modelstream.operators.operator import run_isolated

EVENTS: list[dict[str, Any]] = [
    {"a": 0, "b": {"c": ""}},
    {"a": None, "b": {"c": 1}},
    {"b": {"c": 1}},
    {"a": 1, "b": None},
    {"a": 1, "b": 5},
    {"a": 1, "b": {"c": None}},
    {"a": False, "b": {"c": []}},
]


@pytest.mark.parametrize(
    ("present", "kept"), [(("a",), [0, 3, 4, 5, 6]), (("b.c",), [0, 1, 2, 6]), (("a", "b.c"), [0, 6]), (("z",), [])]
)
def test_events_with_the_fields_are_kept(present: tuple[str, ...], kept: list[int]) -> None:
    settled = run_isolated(Filter("f", present=present), EventBatch.of_events(EVENTS))
    assert settled.kept.lineage.record_index.tolist() == kept
    assert settled.rejected is None
    assert settled.filtered is not None
    assert sorted([*settled.filtered.record_index.tolist(), *kept]) == list(range(len(EVENTS)))


def test_a_function_says_what_is_kept() -> None:
    rule = Filter("f", function=lambda batch: np.array([event.get("a") == 1 for event in batch.events]))
    settled = run_isolated(rule, EventBatch.of_events(EVENTS))
    assert settled.kept.lineage.record_index.tolist() == [3, 4, 5]


def test_keeping_all_costs_nothing() -> None:
    batch = EventBatch.of_events([{"a": 1}])
    assert Filter("f", present=("a",))(batch).settle().kept is batch


def test_a_list_of_truth_values_will_do() -> None:
    settled = Filter("f", function=lambda batch: [True, False])(EventBatch.of_events([{}, {}])).settle()  # type: ignore[arg-type, return-value]
    assert len(settled.kept) == 1


@pytest.mark.parametrize(
    "mask", [None, True, np.array([1, 0]), np.array([True]), np.array([[True, False]]), ["a", "b"]]
)
def test_what_is_no_mask_is_an_error(mask: Any) -> None:
    with pytest.raises(OperatorError, match="not 2 times true or false"):
        Filter("f", function=lambda batch: mask)(EventBatch.of_events([{}, {}]))


@pytest.mark.parametrize("arguments", [{}, {"present": ("a",), "function": lambda batch: None}])
def test_a_stage_that_makes_no_sense_is_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="filter needs"):
        Filter("f", **arguments)

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from modelstream.models.errors import ConfigError
from modelstream.operators.cascade import Cascade, CascadePlan

SCORED = {"label": [], "score": np.zeros(0, np.float32)}


def plan(*samples: dict[str, Any], unsure: str = "score < 0.8") -> CascadePlan:
    return CascadePlan(Cascade("c", tuple("abc"[: len(samples)]), unsure), samples)


def test_unsure_is_compared_as_float64() -> None:
    score = np.array([0.8, 0.79, np.nan], np.float32)
    # The float32 next to 0.8 is a little more than 0.8.
    assert plan(SCORED, SCORED).unsure({"label": ["x"] * 3, "score": score}, 3).tolist() == [False, True, False]
    assert plan(SCORED, SCORED, unsure="label == 'x'").unsure(
        {"label": ["x", "y"], "score": score[:2]}, 2
    ).tolist() == [
        True,
        False,
    ]


def test_the_last_step_that_answered_counts() -> None:
    first = {"label": ["a"] * 3, "score": np.array([0.1, 0.2, 0.3], np.float32)}
    second = {"score": np.array([0, 0.5, 0.6], np.float64), "label": ["", "b", "b"]}
    third = {"label": ["", "", "c"], "score": np.array([0, 0, 0.9], np.float32)}
    reached = [np.array([False, True, True]), np.array([False, False, True])]
    fields, step = plan(first, second, third).merge([first, second, third], reached)
    assert (list(fields), fields["label"], step.tolist()) == (["label", "score"], ["a", "b", "c"], [0, 1, 2])
    score = np.asarray(fields["score"])
    assert score.dtype == np.float64
    assert score.tolist() == [float(np.float32(0.1)), 0.5, float(np.float32(0.9))]
    assert first["score"].dtype == np.float32


@pytest.mark.parametrize(
    ("samples", "unsure", "path", "problem"),
    [
        ([SCORED, {"score": np.zeros(0)}], "score < 1", "cascades.c.steps", "a has label, score and b has score"),
        ([SCORED, {"label": np.zeros(0, int), "score": np.zeros(0)}], "score < 1", "cascades.c.steps", "field 'label'"),
        ([SCORED, {"label": [], "score": np.zeros((0, 2))}], "score < 1", "cascades.c.steps", "field 'score'"),
        ([SCORED, SCORED], "scor < 1", "cascades.c.unsure", "did you mean 'score'"),
        ([SCORED, SCORED], "label", "cascades.c.unsure", "gives text"),
        ([SCORED, SCORED], "label < 1", "cascades.c.unsure", "text"),
        ([{"v": np.zeros((0, 2))}] * 2, "v > 1", "cascades.c.unsure", "there is no 'v'"),
    ],
)
def test_steps_that_do_not_go_together(samples: list[Any], unsure: str, path: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem) as caught:
        plan(*samples, unsure=unsure)
    assert caught.value.path == path

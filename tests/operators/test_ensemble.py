from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from modelstream.models.errors import ConfigError
from modelstream.operators.ensemble import Combiner, Ensemble, average, majority

numbers = st.sampled_from([np.float32, np.float64]).flatmap(
    lambda dtype: st.integers(1, 4).flatmap(
        lambda n: st.lists(hnp.arrays(dtype, 5, elements=st.floats(-1e6, 1e6, width=32)), min_size=n, max_size=n)
    )
)


@given(numbers)
def test_a_mean_is_summed_in_float64_and_rounded_once(columns: list[Any]) -> None:
    total = columns[0].astype(np.float64)
    for column in columns[1:]:
        total = total + column.astype(np.float64)
    expected = (total / len(columns)).astype(columns[0].dtype)
    found = average(columns, [1.0] * len(columns))
    assert found.dtype == columns[0].dtype
    assert found.tobytes() == expected.tobytes()


@given(numbers, st.lists(st.floats(0.1, 10), min_size=4, max_size=4))
def test_a_weighted_mean_likewise(columns: list[Any], weights: list[float]) -> None:
    weights = weights[: len(columns)]
    total = weights[0] * columns[0].astype(np.float64)
    for column, weight in zip(columns[1:], weights[1:], strict=True):
        total = total + weight * column.astype(np.float64)
    expected = (total / sum(weights)).astype(columns[0].dtype)
    assert average(columns, weights).tobytes() == expected.tobytes()


def test_of_two_types_the_wider_counts_and_integers_become_float64() -> None:
    narrow, wide, whole = np.ones(2, np.float32), np.ones(2, np.float64), np.array([[1, 2]])
    assert average([narrow, wide], [1, 1]).dtype == np.float64
    assert average([whole, whole + 1], [1, 1]).tolist() == [[1.5, 2.5]]


def test_the_members_are_left_as_they_are() -> None:
    first = np.array([1.0, 2.0])
    average([first, first], [1, 1])
    assert first.tolist() == [1.0, 2.0]


@given(
    st.integers(1, 4).flatmap(
        lambda n: st.lists(st.lists(st.sampled_from("abc"), min_size=6, max_size=6), min_size=n, max_size=n)
    )
)
def test_most_votes_win_and_of_equals_the_first_member(columns: list[list[str]]) -> None:
    labels, share = majority(columns, [1.0] * len(columns))
    for row, votes in enumerate(zip(*columns, strict=True)):
        counts = Counter(votes)
        best = max(counts.values())
        assert labels[row] == next(vote for vote in votes if counts[vote] == best)
        assert share[row] == np.float32(best / len(columns))
    codes = [np.array([ord(label) for label in column]) for column in columns]
    assert [chr(code) for code in np.asarray(majority(codes, [1.0] * len(columns))[0]).tolist()] == labels


def test_votes_have_weights() -> None:
    labels, share = majority([np.array([1, 1]), np.array([2, 2]), np.array([2, 3])], [3, 1, 1])
    assert (np.asarray(labels).tolist(), share.tolist()) == ([1, 1], pytest.approx([0.6, 0.6]))


def combined(mode: Any, *answers: dict[str, Any], weights: tuple[float, ...] = ()) -> dict[str, Any]:
    members = tuple("abc"[: len(answers)])
    made = Combiner(Ensemble("e", mode, members, weights), [{k: v[:0] for k, v in one.items()} for one in answers])(
        answers
    )
    return {name: column if isinstance(column, list) else column.tolist() for name, column in made.items()}


def test_numbers_are_averaged_and_labels_voted_on() -> None:
    first = {
        "label": ["x", "y"],
        "score": np.array([0.5, 1.0]),
        "vector": np.array([[1.0, 2], [3, 4]]),
        "own": np.ones(2),
    }
    second = {"vector": np.zeros((2, 2)), "label": ["y", "y"], "score": np.array([0.0, 0.5])}
    assert combined("mean", first, second) == {
        "label": ["x", "y"],
        "score": [0.25, 0.75],
        "vector": [[0.5, 1], [1.5, 2]],
    }
    weighted = combined("weighted", first, second, weights=(1, 3))
    assert weighted == {"label": ["y", "y"], "score": [0.125, 0.625], "vector": [[0.25, 0.5], [0.75, 1]]}


def test_a_vote_answers_with_the_label_and_its_share() -> None:
    first, second = {"label": np.array([1, 0]), "score": np.ones(2)}, {"label": np.array([1, 1])}
    assert combined("vote", first, second) == {"label": [1, 0], "score": [1.0, 0.5]}


@pytest.mark.parametrize(
    ("mode", "answers", "problem"),
    [
        (
            "mean",
            [{"value": np.ones(1)}, {"score": np.ones(1)}],
            "no output field in common; they answer a: value; b: score",
        ),
        ("vote", [{"value": np.ones(1)}, {"value": np.ones(1)}], "vote needs members with one label field in common"),
        (
            "mean",
            [{"label": ["x"]}, {"label": np.array([1])}],
            "field 'label' is a whole number and text in its members'",
        ),
        ("mean", [{"v": np.ones((1, 2))}, {"v": np.ones((1, 3))}], "field 'v' is a vector of 2 and a vector of 3"),
        ("mean", [{"v": np.ones(1)}, {"v": np.ones((1, 3))}], "field 'v' is a number and a vector of 3"),
    ],
)
def test_answers_that_do_not_go_together(mode: Any, answers: list[Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem) as caught:
        combined(mode, *answers)
    assert caught.value.path == "ensembles.e"

from __future__ import annotations

from typing import Any

import pytest

from modelstream.operators.paths import Unfit, field_getter, look_up, show

EVENT = {"a": {"b": {"c": 1}, "n": None}, "x": 5}


@pytest.mark.parametrize(("path", "value"), [("x", 5), ("a.b.c", 1), ("a.b", {"c": 1})])
def test_both_ways_find_the_value(path: str, value: Any) -> None:
    assert field_getter(path)(EVENT) == value
    assert look_up(EVENT, path) == value


@pytest.mark.parametrize("path", ["y", "a.y", "a.n.y", "y.z", "a.b.y.z"])
def test_what_is_absent_is_none(path: str) -> None:
    with pytest.raises((KeyError, TypeError)):
        field_getter(path)(EVENT)
    assert look_up(EVENT, path) is None


def test_a_field_of_what_is_no_object_is_unfit() -> None:
    with pytest.raises(Unfit, match=r"'x\.y': 5 has no field 'y'") as caught:
        look_up(EVENT, "x.y")
    assert caught.value.reason == "wrong_type"


def test_show_is_short_and_does_not_recurse() -> None:
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    for value in (deep, {"a": deep}, "x" * 10**6, 10**100, 1e300, None, True):
        assert len(show(value)) <= 60
    while deep:  # Its destructor would recurse too.
        deep = deep.pop()

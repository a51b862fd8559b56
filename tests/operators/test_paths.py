from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelstream.models.errors import ConfigError
from modelstream.operators.paths import Unfit, find_values, look_up, parse_path, path_of_name, show, values_at

EVENT = {"a": {"b": {"c": 1}, "n": None}, "x": 5, "l": [{"y": 7}, [8, 9]], "a.b": 2, "t": "text", "r": b"raw", "": 3}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("x", 5),
        ("a.b.c", 1),
        ("a.b", {"c": 1}),
        ("['a.b']", 2),
        ('["a.b"]', 2),
        ("a['b'].c", 1),
        ("l[0].y", 7),
        ("l[1][0]", 8),
        ("['l'][1][1]", 9),
        ("['']", 3),
    ],
)
def test_every_way_finds_the_value(path: str, value: Any) -> None:
    assert values_at([EVENT] * 2, path) == [value] * 2
    assert find_values([EVENT] * 2, path) == [value] * 2
    assert look_up(EVENT, path) == value


@pytest.mark.parametrize("path", ["y", "a.y", "a.n.y", "y.z", "a.b.y.z", "l[2]", "l[1][2]", "a.n[0]", "y[0].z"])
def test_what_is_absent_is_none(path: str) -> None:
    with pytest.raises((LookupError, TypeError)):
        values_at([EVENT], path)
    assert find_values([EVENT], path) == [None]
    assert look_up(EVENT, path) is None


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("x.y", "field 'x.y': 5 has no field 'y'"),
        ("l.y", "field 'l.y': a list has no field 'y'"),
        ("x[0]", "field 'x[0]': 5 has no element [0]"),
        ("a[0]", "field 'a[0]': an object has no element [0]"),
        ("t[0]", "field 't[0]': 'text' has no element [0]"),
        ("r[0]", "field 'r[0]': 3 bytes has no element [0]"),
    ],
)
def test_a_step_into_something_else_is_unfit(path: str, message: str) -> None:
    for read in (look_up, lambda event, path: find_values([event], path)):
        with pytest.raises(Unfit) as caught:
            read(EVENT, path)
        assert (caught.value.reason, caught.value.detail) == ("wrong_type", message)
    with pytest.raises((LookupError, TypeError)):
        values_at([EVENT], path)


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("", "it begins with a name"),
        ("[0]", "it begins with a name"),
        (".a", "a name is missing at character 1"),
        ("a.", "a name is missing at character 2"),
        ("a..b", "a name is missing at character 2"),
        ("a.[0]", "a name is missing at character 2"),
        ("a[0]b", "a dot is missing at character 5"),
        ("a[-1]", "after '[' at character 2 must come an index from 0 or a name in quotes, and ']'"),
        ("a[1", "after '[' at character 2"),
        ("a[b]", "after '[' at character 2"),
        ("a['b", "after '[' at character 2"),
        ("a[٣]", "after '[' at character 2"),
        ("a[9999999999]", "after '[' at character 2"),
        ("a]", "']' at character 2 closes nothing"),
    ],
)
def test_what_is_no_path_is_told_by_its_place(path: str, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_path(path)
    assert caught.value.problem.startswith(f"{path!r} is no path: ")
    assert problem in caught.value.problem
    assert caught.value.problem.endswith("write a.b[0].c, and ['a.b'] for a name with dots or brackets")


names = st.text(min_size=1).filter(lambda name: not {"'", '"'} <= set(name))


@given(st.lists(names | st.integers(0, 5), min_size=1, max_size=5).filter(lambda steps: isinstance(steps[0], str)))
def test_any_name_has_a_path(steps: list[str | int]) -> None:
    event: Any = "found"
    for step in reversed(steps):
        event = [None] * step + [event] if isinstance(step, int) else {step: event}
    path = "".join(
        f"[{step}]" if isinstance(step, int) else f'["{step}"]' if "'" in step else f"['{step}']" for step in steps
    )
    assert parse_path(path) == tuple(steps)
    assert values_at([event], path) == [look_up(event, path)] == ["found"]


@given(names)
def test_a_name_that_is_no_path_is_a_field(name: str) -> None:
    steps = parse_path(path_of_name(name))
    assert steps == (name,) or "." in name or "[" in name


def test_show_is_short_and_does_not_recurse() -> None:
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    for value in (deep, {"a": deep}, "x" * 10**6, 10**100, 1e300, None, True):
        assert len(show(value)) <= 60
    while deep:  # Its destructor would recurse too.
        deep = deep.pop()

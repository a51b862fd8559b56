"""Expressions: they mean what they mean in Python, row by row, and nothing else gets in."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelstream.models.errors import ConfigError
from modelstream.operators.expressions import MAX_CHARACTERS, Frame, Kind, compile_expression

COLUMNS: dict[str, Any] = {
    "i": np.array([0, 1, -7, 5], np.int32),
    "x": np.array([0.5, -1.5, 0.0, 4.0]),
    "f": np.array([0.1, 0.8, np.nan, 1.0], np.float32),
    "t": np.array([True, False, True, False]),
    "s": ["AA", "", "Ünï", "zz\0"],
    "late.score": np.array([0.1, 0.9, 0.5, 0.8]),
}


def values(text: str, columns: Mapping[str, Any] = COLUMNS, n_rows: int = 4) -> list[Any]:
    result = compile_expression(text, "rules.keep")(columns, n_rows)
    return result if isinstance(result, list) else result.tolist()


def refusal(text: str, kinds: Mapping[str, Kind] | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        compile_expression(text, "rules.keep", kinds)
    assert caught.value.path == "rules.keep"
    return caught.value.problem


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("i + 1", [1, 2, -6, 6]),
        ("i / 2", [0.0, 0.5, -3.5, 2.5]),
        ("i // 2", [0, 0, -4, 2]),
        ("i % 3", [0, 1, 2, 2]),
        ("i ** 2", [0, 1, 49, 25]),
        ("t + t", [2, 0, 2, 0]),
        ("-i", [0, -1, 7, -5]),
        ("-t", [-1, 0, -1, 0]),
        ("+x", [0.5, -1.5, 0.0, 4.0]),
        ("0 <= i < 5", [True, True, False, False]),
        ("i in [1, 5, 2.5]", [False, True, False, True]),
        ("i not in (1, 5)", [True, False, True, False]),
        ("s in {'AA', 'zz'}", [True, False, False, False]),
        ("not i", [True, False, False, False]),
        ("i and x > 0", [False, False, False, True]),
        ("i or t", [True, True, True, True]),
        ("'high' if late.score > 0.8 else 'low'", ["low", "high", "low", "low"]),
        ("where(late.score > 0.8, i, x)", [0.5, 1.0, 0.0, 4.0]),
        ("min(i, x, 2)", [0.0, -1.5, -7.0, 2.0]),
        ("max(s, 'B')", ["B", "B", "Ünï", "zz\0"]),
        ("abs(i)", [0, 1, 7, 5]),
        ("round(x)", [0, -2, 0, 4]),
        ("round(x / 3, 2)", [0.17, -0.5, 0.0, 1.33]),
        ("floor(x)", [0, -2, 0, 4]),
        ("ceil(x)", [1, -1, 0, 4]),
        ("len(s)", [2, 0, 3, 3]),
        ("lower(s)", ["aa", "", "ünï", "zz\0"]),
        ("upper(s)", ["AA", "", "ÜNÏ", "ZZ\0"]),
        ("startswith(s, 'z')", [False, False, False, True]),
        ("endswith(s, s)", [True, True, True, True]),
        ("contains('AABB', s)", [True, True, False, False]),
        ("s == 'zz'", [False, False, False, False]),
        ("s + '/' + lower(s)", ["AA/aa", "/", "Ünï/ünï", "zz\0/zz\0"]),
        ("i > 0\nand x > 0  # a comment\nand t < 1", [False, False, False, True]),
        ("column('late.score') == late.score", [True] * 4),
        ("true", [True] * 4),
        ("False", [False] * 4),
        ("'a' + 'b'", ["ab"] * 4),
        ("2 ** 62", [2**62] * 4),
        ("-9223372036854775808", [-(2**63)] * 4),
        ("1_000", [1000] * 4),
    ],
)
def test_what_it_means(text: str, expected: list[Any]) -> None:
    found = values(text)
    assert found == expected
    assert list(map(type, found)) == list(map(type, expected))


def test_names_are_known_before_there_is_data() -> None:
    expression = compile_expression("where(a.b.c > x, lower(column('not-a name')), null) if true else 'x'", "p")
    assert expression.names == {"a.b.c", "x", "not-a name"}
    assert expression.kind == "text"


def test_float32_is_kept_as_it_is_and_compared_as_float64() -> None:
    f = np.array([0.8], np.float32)
    assert compile_expression("f", "p")({"f": f}, 1).dtype == np.float32  # type: ignore[union-attr]
    assert values("f > 0.8", {"f": f}, 1) == [float(f[0]) > 0.8] == [True]
    assert values("f * 1", {"f": f}, 1) == [float(f[0])]


def holes(text: str, columns: Mapping[str, Any], n_rows: int, **nulls: list[bool]) -> tuple[list[bool], list[bool]]:
    frame = Frame(columns, n_rows, {name: np.array(mask) for name, mask in nulls.items()})
    result = compile_expression(text, "p").evaluate(frame)
    return tuple([False] * n_rows if mask is None else mask.tolist() for mask in (result.null, result.bad))  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("text", "bad"),
    [
        ("1 / i", [True, False]),
        ("1 // i", [True, False]),
        ("1 % i", [True, False]),
        ("1.0 % i", [True, False]),
        ("log(i)", [True, False]),
        ("sqrt(i - 1)", [True, False]),
        ("exp(i * 1000)", [False, True]),
        ("(i - 1) ** 0.5", [True, False]),
        ("i ** -1", [True, False]),
        ("1 / i > 3", [True, False]),
        ("is_null(1 / i)", [True, False]),
        ("coalesce(1 / i, 3)", [True, False]),
        ("i * 9223372036854775807 + i", [False, True]),
        ("i * 9223372036854775807 * 2", [False, True]),
        ("-9223372036854775808 - i", [False, True]),
        ("-(i * 0 - 9223372036854775807 - i)", [False, True]),
        ("abs(i * 0 - 9223372036854775807 - i)", [False, True]),
        ("(i * 0 - 9223372036854775807 - 1) // -i", [True, True]),
        ("(i * 4000000000) ** 2", [False, True]),
        ("round(i * 1e300)", [False, True]),
        ("where(i != 0, 1 / i, 0)", [False, False]),
        ("0 if i == 0 else 1 / i", [False, False]),
        ("i != 0 and 1 / i > 0", [False, False]),
        ("i == 0 or 1 / i > 0", [False, False]),
        ("1 / i > 0 and i != 0", [True, False]),
        ("0 < i < 1 / i", [False, False]),
    ],
)
def test_a_row_without_a_finite_result_is_marked(text: str, bad: list[bool]) -> None:
    assert holes(text, {"i": np.array([0, 1])}, 2) == ([False, False], bad)


@pytest.mark.parametrize(
    ("text", "null"),
    [
        ("n", [True, False]),
        ("n + 1", [True, False]),
        ("n > 1", [True, False]),
        ("not n", [True, False]),
        ("n and false", [False, False]),
        ("false and n", [False, False]),
        ("n and true", [True, False]),
        ("n or true", [False, False]),
        ("n or false", [True, False]),
        ("n is null", [False, False]),
        ("n is not None", [False, False]),
        ("coalesce(n, 5)", [False, False]),
        ("coalesce(n, null)", [True, False]),
        ("where(n, 1, 2)", [False, False]),
        ("where(n > 0, 1, null)", [True, False]),
        ("max(n, 1)", [True, False]),
        ("n in [3]", [True, False]),
        ("round(n)", [True, False]),
        ("lower(s)", [True, False]),
        ("s + 'x'", [True, False]),
        ("len(s)", [True, False]),
        ("s == ''", [True, False]),
        ("null", [True, True]),
        ("null + n", [True, True]),
    ],
)
def test_null_makes_null_except_where_it_does_not_matter(text: str, null: list[bool]) -> None:
    columns = {"n": np.array([7, 3]), "s": [None, "a"]}
    assert holes(text, columns, 2, n=[True, False]) == (null, [False, False])


def test_null_and_what_is_not_finite_in_plain_results() -> None:
    assert values("late > 0.5", {"late": np.array([np.nan, 0.9])}, 2) == [False, True]
    assert values("coalesce(s, '?')", {"s": [None, "a"]}, 2) == ["?", "a"]
    assert values("s", {"s": [None, "a"]}, 2) == [None, "a"]
    assert values("10 // i", {"i": np.array([2, 5])}, 2) == [5, 2]
    assert math.isnan(values("10 // i", {"i": np.array([0, 5])}, 2)[0])
    assert values("n * 2", {"n": np.array([None, 3], object)}, 2)[1] == 6


def test_no_rows() -> None:
    columns = {"x": np.zeros(0), "s": [], "i": np.zeros(0, np.int64)}
    for text in ("x / i > 3", "upper(s) + 'a'", "len(s)", "'a'", "s in ['a']", "i ** 2"):
        assert values(text, columns, 0) == []


@pytest.mark.parametrize(
    ("text", "column", "complaint"),
    [
        ("x > 1", ["a"], "do not go together"),
        ("x + 1", ["a"], r"\+ takes two numbers"),
        ("x * x", ["a"], r"\* takes two numbers"),
        ("x and true", ["a"], "a condition"),
        ("x in [1]", ["a"], "compared"),
        ("x in ['a']", np.array([1]), "compared"),
        ("-x", ["a"], "- takes"),
        ("abs(x)", ["a"], "takes numbers"),
        ("sin(x)", ["a"], "takes numbers"),
        ("lower(x)", np.array([1]), "takes text"),
        ("max(x, 'a')", np.array([1]), "do not go together"),
        ("x", np.zeros((1, 3)), "'x' has"),
        ("x", np.array(["2020-01-01"], "datetime64[D]"), "datetime64"),
        ("x", [["a"]], "'x' has"),
    ],
)
def test_a_column_of_another_kind_is_a_type_error(text: str, column: Any, complaint: str) -> None:
    with pytest.raises(TypeError, match=complaint):
        compile_expression(text, "p")({"x": column}, 1)


def test_a_missing_column_is_a_key_error() -> None:
    with pytest.raises(KeyError, match=r"a\.b"):
        compile_expression("a.b", "p")({}, 1)


KINDS: dict[str, Kind] = {"distance": "number", "carrier": "text", "unknown": "any"}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("distnce > 1", "there is no 'distnce'; did you mean 'distance'? (character 1 of 'distnce > 1')"),
        ("1 + qqq", "there is no 'qqq'; there are distance, carrier, unknown (character 5 of '1 + qqq')"),
        ("'ü' == carier", "there is no 'carier'; did you mean 'carrier'? (character 8 of \"'ü' == carier\")"),
        ("distance >\n 1 +\n qqq", "there is no 'qqq'; there are distance, carrier, unknown (line 3, character 2)"),
        ("flor(distance)", "there is no function 'flor'; did you mean 'floor'? (character 1 of 'flor(distance)')"),
        ("carrier > 1", "text cannot be compared with a number (character 11 of 'carrier > 1')"),
        ("carrier in ['a', 1]", "text cannot be compared with a number (character 18 of \"carrier in ['a', 1]\")"),
        ("carrier in [1]", "text cannot be compared with a number (character 13 of 'carrier in [1]')"),
        ("carrier * 3", "* takes two numbers, not text (character 1 of 'carrier * 3')"),
        ("carrier + 3", "+ takes two numbers, or two texts (character 1 of 'carrier + 3')"),
        ("-carrier", "- takes a number, not text (character 2 of '-carrier')"),
        ("carrier or true", "a condition is true or false, not text (character 1 of 'carrier or true')"),
        (
            "where(carrier, 1, 2)",
            "this must be a number: where(condition, a, b) (character 7 of 'where(carrier, 1, 2)')",
        ),
        ("lower(distance)", "this must be text: lower(text) (character 7 of 'lower(distance)')"),
        ("max(1, 'a')", "text and numbers do not go together in max(a, b, ...) (character 1 of \"max(1, 'a')\")"),
        ("max(1)", "1 arguments for max; write max(a, b, ...) (character 1 of 'max(1)')"),
        ("where(1, 2)", "2 arguments for where; write where(condition, a, b) (character 1 of 'where(1, 2)')"),
        ("sqrt(1, 2)", "2 arguments for sqrt; write sqrt(x) (character 1 of 'sqrt(1, 2)')"),
        ("round(1.5, distance)", "the digits must be a constant from 0 to 15 (character 12 of 'round(1.5, distance)')"),
        ("round(1.5, -1)", "the digits must be a constant from 0 to 15 (character 12 of 'round(1.5, -1)')"),
        ("distance == null", "nothing compares with null; write x is null (character 13 of 'distance == null')"),
        ("distance is 1", "only null may stand after is (character 13 of 'distance is 1')"),
        (
            "'A' in carrier",
            "after in stands a list of constants, as in [1, 2]; for parts of a text use contains() "
            "(character 8 of \"'A' in carrier\")",
        ),
        ("distance in [distance]", "after in stands a list of constants, as in [1, 2] (character 14 of "),
        ("1 < distance in [1]", "in and is do not go into a chain of comparisons; write and (character 1 of "),
        ("column(distance)", "write column('name'), with the name as it is (character 1 of 'column(distance)')"),
        ("1 +", "is no expression: invalid syntax"),
        ("", "is no expression: it is empty"),
        (" # x", "is no expression: it is empty"),
        ("a) or (b", "is no expression: its parentheses do not match ('a) or (b')"),
        ("1 / 0", "this calculation with constants has no finite result in 64 bits (character 1 of '1 / 0')"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(text: str, problem: str) -> None:
    assert refusal(text, KINDS).startswith(problem)


HOSTILE = [
    "().__class__.__bases__[0].__subclasses__()",
    "x.__class__",
    "__import__('os').system('true')",
    "__builtins__",
    "x.y.__globals__",
    "(lambda: 1)()",
    "lambda: 1",
    "lambda x=1: x",
    "[x for x in y]",
    "{x for x in y}",
    "{x: 1 for x in y}",
    "x for x in y",
    "(y := 5)",
    "y := 5",
    "f'{x}'",
    "f'{().__class__}'",
    "await x",
    "(yield)",
    "(yield from x)",
    "x[0]",
    "x[0:1]",
    "x.y()",
    "'a'.join(x)",
    "'{0.__class__}'.format(x)",
    "print(x)",
    "eval('1')",
    "getattr(x, 'y')",
    "open('/etc/passwd')",
    "round(x, digits=1)",
    "max(*x)",
    "max(**x)",
    "9**9**9",
    "9**9**9**9",
    "10**1000000000",
    "(2**62)*(2**62)",
    "1e999",
    "1e308*10",
    "9" * 20,
    "9" * 4000,
    "'a'*10**9",
    "x << 100",
    "~x",
    "x @ y",
    "x ^ y",
    "x | y",
    "1j",
    "b'a'",
    "...",
    "[1, 2]",
    "(1, 2)",
    "1,",
    "()",
    "{}",
    "{'a': 1}",
    "{*x}",
    "x; y",
    "x = 1",
    "x == 1; import os",
    "import os",
    "pass",
    "del x",
    "1\n)\nimport os\n(1",
    "1) + (2",
    "'\\ud800'",
    "\ud800",
    "'a\0b'",
    "\0",
    "x.",
    ".x",
    "x..y",
    "(" * 1000 + "x" + ")" * 1000,
    "(" * 90 + "-" * 101 + "x" + ")" * 90,
    "-" * 4000 + "1",
    "not " * 1000 + "x",
    "[" * 3000,
    "x." * 2000 + "x",
    "+".join("x" * 200),
    "x if x else " * 300 + "x",
    "sqrt(" * 300 + "x" + ")" * 300,
    "x" * (MAX_CHARACTERS + 1),
    " " * (MAX_CHARACTERS + 1),
    "x in y",
    "x in [[1]]",
    "x in []",
    "x in [y]",
    "x in [lambda: 1]",
    "column(__import__('os'))",
    "column('x', 'y')",
    "column()",
    "where",
]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_texts_are_refused(text: str) -> None:
    if text == "where":  # a name like any other: it is a column, if there is one
        assert compile_expression(text, "p").names == {"where"}
        return
    assert len(refusal(text)) < 1000


def test_nested_chains_are_run_once_each() -> None:
    text = "x"
    for _ in range(40):
        text = f"(0 <= {text} <= 9)"
    assert values(text, {"x": np.array([5, 12])}, 2) == [True, True]


@settings(max_examples=300)
@given(st.text(alphabet="x1 .,()[]{}'\"+-*/<>=!:_#\\\n\rlambdifnorts", max_size=40))
def test_any_text_is_an_expression_or_a_config_error(text: str) -> None:
    try:
        compile_expression(text, "p")
    except ConfigError as error:
        assert error.path == "p"


# Random expressions against Python itself

Pair = tuple[str, str]  # ours, and what Python is to evaluate

NUMBERS = st.sampled_from(["i", "j", "x", "y", "t"]) | st.integers(-20, 20).map(lambda n: f"({n})")
NUMBERS |= st.floats(-50, 50, width=32).map(lambda n: f"({n!r})")
TEXTS = st.sampled_from(["s", "u", "'AA'", "'b'", "''", "'é\\n'"])


def same(strategy: st.SearchStrategy[str]) -> st.SearchStrategy[Pair]:
    return strategy.map(lambda text: (text, text))


def binary(
    symbols: list[str], left: st.SearchStrategy[Pair], right: st.SearchStrategy[Pair]
) -> st.SearchStrategy[Pair]:
    def join(drawn: tuple[Pair, str, Pair]) -> Pair:
        a, symbol, b = drawn
        return f"({a[0]} {symbol} {b[0]})", f"({a[1]} {symbol} {b[1]})"

    return st.tuples(left, st.sampled_from(symbols), right).map(join)


def called(ours: str, pythons: str, *arguments: st.SearchStrategy[Pair]) -> st.SearchStrategy[Pair]:
    def fill(drawn: tuple[Pair, ...]) -> Pair:
        return ours.format(*(pair[0] for pair in drawn)), pythons.format(*(pair[1] for pair in drawn))

    return st.tuples(*arguments).map(fill)


def deeper(number: st.SearchStrategy[Pair]) -> st.SearchStrategy[Pair]:
    text = same(TEXTS) | called("lower({})", "{}.lower()", same(TEXTS)) | binary(["+"], same(TEXTS), same(TEXTS))
    orders = ["<", "<=", ">", ">=", "==", "!="]
    truth = (
        binary(orders, number, number)
        | binary(orders, text, text)
        | called("({} < {} <= {})", "({} < {} <= {})", number, number, number)
        | called("({} in [1, 2.5, -3])", "({} in [1, 2.5, -3])", number)
        | called("({} not in ['AA', 'b'])", "({} not in ['AA', 'b'])", text)
        | called("startswith({}, {})", "{}.startswith({})", text, text)
        | called("contains({}, {})", "({1} in {0})", text, text)
    )
    truth |= binary(["and", "or"], truth, truth) | called("(not {})", "(not {})", truth)
    choice = called("({} if {} else {})", "({} if {} else {})", number, truth, number)
    choice |= called("where({1}, {0}, {2})", "({0} if {1} else {2})", number, truth, number)
    return (
        binary(["+", "-", "*", "/", "//", "%"], number, number)
        | called("({} ** 3)", "({} ** 3)", number)
        | called("(-{})", "(-{})", number)
        | truth
        | choice
        | called("len({})", "len({})", text)
        | called("abs({})", "abs({})", number)
        | called("min({}, {})", "min({}, {})", number, number)
        | called("max({}, {}, {})", "max({}, {}, {})", number, number, number)
        | called("floor({})", "math.floor({})", number)
        | called("ceil({})", "math.ceil({})", number)
        | called("round({})", "round({})", number)
        | called("sqrt({})", "math.sqrt({})", number)
    )


EXPRESSIONS = st.recursive(same(NUMBERS), deeper, max_leaves=12)
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "i": st.integers(-100, 100),
            "j": st.integers(-3, 3),
            "x": st.floats(-100, 100, width=32),
            "y": st.floats(-2, 2, width=16),
            "t": st.booleans(),
            "s": st.sampled_from(["", "AA", "aa", "b", "é", "zz\0", "ǅ"]),
            "u": st.text(max_size=3),
        }
    ),
    min_size=1,
    max_size=6,
)
DTYPES = {"i": np.int64, "j": np.int32, "x": np.float64, "y": np.float32, "t": np.bool_}


def by_python(text: str, row: dict[str, Any]) -> Any:
    """Return what Python says, None where it has no finite number for an answer."""
    try:
        result = eval(text, {"math": math, "__builtins__": {}} | dict(ALLOWED), row)
    except (ZeroDivisionError, OverflowError, ValueError):
        return None
    if isinstance(result, complex) or not math.isfinite(result):
        return None
    return result


ALLOWED: dict[str, Callable[..., Any]] = {"len": len, "abs": abs, "min": min, "max": max, "round": round}


@settings(max_examples=400)
@given(pair=EXPRESSIONS, rows=ROWS)
def test_random_expressions_agree_with_python(pair: Pair, rows: list[dict[str, Any]]) -> None:
    ours, pythons = pair
    columns: dict[str, Any] = {name: [row[name] for row in rows] for name in rows[0]}
    columns |= {name: np.array(columns[name], dtype) for name, dtype in DTYPES.items()}
    expected = [by_python(pythons, row) for row in rows]
    try:
        result = compile_expression(ours, "p").evaluate(Frame(columns, len(rows)))
    except ConfigError as error:  # a part of constants alone that has no finite result
        assert "no finite result" in error.problem
        return
    assert result.null is None
    bad = np.zeros(len(rows), np.bool_) if result.bad is None else result.bad
    for value, is_bad, wanted in zip(result.values.tolist(), bad.tolist(), expected, strict=True):
        if wanted is None or abs(wanted) >= 2**53:
            assert is_bad or abs(value) >= 2**52
        else:
            assert not is_bad
            assert math.isclose(value, wanted, rel_tol=1e-9, abs_tol=1e-9)

"""From the syntax tree of an expression to closures over columns: every node is one of a short list, or refused."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from itertools import pairwise
from typing import Any, Literal, NoReturn

import numpy as np
from numpy.typing import NDArray

from modelstream.models.errors import ConfigError, did_you_mean
from modelstream.operators.expression_functions import FUNCTIONS, MAX_DIGITS, Function
from modelstream.operators.expression_parser import place, spoken
from modelstream.operators.frame import Frame
from modelstream.operators.vector_arithmetic import arithmetic, negative
from modelstream.operators.vector_logic import both, compare, either, is_null, member, negated
from modelstream.operators.vectors import NULL, Vector

__all__ = ["Compiler", "Kind", "Part"]

#: What is known of a value before there is data.
Kind = Literal["number", "text", "null", "any"]

_ALLOWED = (
    "allowed are names, numbers, texts, true, false, null, + - * / // % **, comparisons, in [...], is null, "
    f"and, or, not, a if c else b, and calls of {', '.join([*FUNCTIONS, 'column'])}"
)
_ARITHMETIC: dict[type[ast.AST], str] = {
    ast.Add: "+",
    ast.Sub: "-",
    ast.Mult: "*",
    ast.Div: "/",
    ast.FloorDiv: "//",
    ast.Mod: "%",
    ast.Pow: "**",
}
_COMPARISONS: dict[type[ast.AST], str] = {
    ast.Eq: "==",
    ast.NotEq: "!=",
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
}
#: Python's own spelling comes as a constant.
_LITERALS: dict[str, bool | None] = {"true": True, "false": False, "null": None}
_INT64 = np.iinfo(np.int64)


@dataclass(frozen=True, slots=True)
class Part:
    """A part of an expression.

    Parameters
    ----------
    run : callable
        From the columns to its value.
    kind : Kind
        What it gives.
    constant : Vector, optional
        Its value, where that is known already.
    """

    run: Callable[[Frame], Vector]
    kind: Kind
    constant: Vector | None = None


class Compiler:
    """Makes closures of nodes, and gathers the names that they read.

    Parameters
    ----------
    text : str
        The expression, for errors.
    path : str
        Where it stands in the pipeline, for errors.
    kinds : mapping of str to Kind, optional
        The names that it may read; any name, if not given.
    """

    def __init__(self, text: str, path: str, kinds: Mapping[str, Kind] | None) -> None:
        self.names: set[str] = set()
        self._text = text
        self._path = path
        self._kinds = kinds

    def compile(self, node: ast.expr) -> Part:
        """Return a node as a closure.

        Raises
        ------
        ConfigError
            It is not allowed, or does not fit what it is made of.
        """
        match node:
            case ast.Constant():
                return self._constant(node, node.value)
            case ast.Name(id=name) if name in _LITERALS:
                return self._constant(node, _LITERALS[name])
            case ast.Name() | ast.Attribute():
                return self._name(node, self._dotted(node))
            case ast.BoolOp():
                return self._logic(node)
            case ast.UnaryOp():
                return self._unary(node)
            case ast.BinOp():
                return self._binary(node)
            case ast.Compare():
                return self._comparison(node)
            case ast.IfExp(test=test, body=body, orelse=orelse):
                return self._called(node, FUNCTIONS["where"], [test, body, orelse])
            case ast.Call():
                return self._call(node)
        self._not_allowed(node)

    def _refuse(self, node: ast.expr, problem: str) -> NoReturn:
        line = re.split("\r\n?|\n", self._text)[node.lineno - 1]
        start = node.col_offset - (node.lineno == 1)  # less our own parenthesis
        character = len(line.encode()[:start].decode(errors="replace")) + 1
        raise ConfigError(self._path, problem + place(self._text, node.lineno, character))

    def _not_allowed(self, node: ast.expr) -> NoReturn:
        self._refuse(node, f"{spoken(node)} is not allowed here; {_ALLOWED}")

    def _constant(self, node: ast.expr, value: object) -> Part:
        match value:
            case None:
                return _constant_part(NULL, "null")
            case bool() | float() if np.isfinite(value):
                return _constant_part(Vector(np.array(value)), "number")
            case int() if _INT64.min <= value <= _INT64.max:
                return _constant_part(Vector(np.array(value, np.int64)), "number")
            case str() if _is_unicode(value):
                return _constant_part(Vector(np.array(value, object)), "text")
            case int() | float():
                self._refuse(node, "the number is beyond 64 bits")
        self._not_allowed(node)

    def _dotted(self, node: ast.expr) -> str:
        parts: list[str] = []
        inner = node
        while isinstance(inner, ast.Attribute):
            parts.append(inner.attr)
            inner = inner.value
        if not isinstance(inner, ast.Name) or any(part.startswith("__") for part in (*parts, inner.id)):
            self._not_allowed(node)
        return ".".join((inner.id, *reversed(parts)))

    def _name(self, node: ast.expr, name: str) -> Part:
        kind: Kind = "any"
        if self._kinds is not None:
            if name not in self._kinds:
                known = did_you_mean(name, self._kinds) or f"; there are {', '.join(self._kinds) or 'none'}"
                self._refuse(node, f"there is no {name!r}{known}")
            kind = self._kinds[name]
        self.names.add(name)
        return Part(lambda frame: frame[name], kind)

    def _logic(self, node: ast.BoolOp) -> Part:
        combine = both if isinstance(node.op, ast.And) else either
        parts = [self._number(value, "a condition is true or false") for value in node.values]
        return self._apply(node, partial(_reduced, combine), parts, "number")

    def _unary(self, node: ast.UnaryOp) -> Part:
        match node.op:
            case ast.Not():
                return self._apply(
                    node, negated, [self._number(node.operand, "a condition is true or false")], "number"
                )
            case ast.USub():
                if isinstance(node.operand, ast.Constant) and node.operand.value == -_INT64.min:
                    return self._constant(node, _INT64.min)
                return self._apply(node, negative, [self._number(node.operand, "- takes a number")], "number")
            case ast.UAdd():
                return self._number(node.operand, "+ takes a number")
        self._not_allowed(node)

    def _binary(self, node: ast.BinOp) -> Part:
        symbol = _ARITHMETIC.get(type(node.op))
        if symbol is None:
            self._not_allowed(node)
        left, right = self.compile(node.left), self.compile(node.right)
        kinds = {left.kind, right.kind}
        if "text" in kinds and (symbol != "+" or "number" in kinds):
            self._refuse(node, f"{symbol} takes two numbers{', or two texts' if symbol == '+' else ', not text'}")
        kind: Kind = "text" if "text" in kinds else "any" if symbol == "+" and kinds <= {"any", "null"} else "number"
        return self._apply(node, partial(arithmetic, symbol), [left, right], kind)

    def _number(self, node: ast.expr, rule: str) -> Part:
        part = self.compile(node)
        if part.kind == "text":
            self._refuse(node, f"{rule}, not text")
        return part

    def _comparison(self, node: ast.Compare) -> Part:
        match node.ops, node.comparators:
            case [ast.In() | ast.NotIn() as op], [right]:
                left = self.compile(node.left)
                found = self._apply(node, partial(member, values=self._members(right, left.kind)), [left], "number")
            case [ast.Is() | ast.IsNot() as op], [right]:
                if self.compile(right).kind != "null":
                    self._refuse(right, "only null may stand after is")
                found = self._apply(node, is_null, [self.compile(node.left)], "number")
            case _:
                return self._chain(node)
        return self._apply(node, negated, [found], "number") if isinstance(op, ast.NotIn | ast.IsNot) else found

    def _chain(self, node: ast.Compare) -> Part:
        symbols = [_COMPARISONS.get(type(op), "") for op in node.ops]
        if not all(symbols):
            self._refuse(node, "in and is do not go into a chain of comparisons; write and")
        operands = [node.left, *node.comparators]
        parts = [self.compile(operand) for operand in operands]
        for operand, part in zip(operands, parts, strict=True):
            if part.kind == "null":
                self._refuse(operand, "nothing compares with null; write x is null")
        for operand, pair in zip(node.comparators, pairwise(parts), strict=True):
            if {part.kind for part in pair} == {"text", "number"}:
                self._refuse(operand, "text cannot be compared with a number")
        return self._apply(node, partial(_compared, symbols), parts, "number")

    def _members(self, node: ast.expr, kind: Kind) -> NDArray[Any] | frozenset[str]:
        if not isinstance(node, ast.List | ast.Tuple | ast.Set) or not node.elts:
            self._refuse(node, "after in stands a list of constants, as in [1, 2]; for parts of a text use contains()")
        parts = [(element, self.compile(element)) for element in node.elts]
        for element, part in parts:
            if part.constant is None or part.kind not in ("number", "text"):
                self._refuse(element, "after in stands a list of constants, as in [1, 2]")
            if part.kind != parts[0][1].kind or {part.kind, kind} == {"text", "number"}:
                self._refuse(element, "text cannot be compared with a number")
        values = [part.constant.values.item() for _, part in parts if part.constant is not None]
        return frozenset(values) if parts[0][1].kind == "text" else np.array(values)

    def _call(self, node: ast.Call) -> Part:
        if not isinstance(node.func, ast.Name):
            self._refuse(node.func, f"only functions can be called; {_ALLOWED}")
        name = node.func.id
        if node.keywords or any(isinstance(argument, ast.Starred) for argument in node.args):
            self._refuse(node, f"{name}() takes its arguments by position, separated by commas")
        if name == "column":
            return self._column(node)
        if name not in FUNCTIONS:
            known = did_you_mean(name, [*FUNCTIONS, "column"]) or f"; there are {', '.join([*FUNCTIONS, 'column'])}"
            self._refuse(node, f"there is no function {name!r}{known}")
        function = FUNCTIONS[name]
        most = None if function.variadic else len(function.takes)
        if len(node.args) < function.n_required or (most is not None and len(node.args) > most):
            self._refuse(node, f"{len(node.args)} arguments for {name}; write {function.usage}")
        return self._called(node, function, node.args)

    def _column(self, node: ast.Call) -> Part:
        match node.args:
            case [ast.Constant(value=str(name))]:
                return self._name(node, name)
        self._refuse(node, "write column('name'), with the name as it is")

    def _called(self, node: ast.expr, function: Function, arguments: Sequence[ast.expr]) -> Part:
        parts = [self.compile(argument) for argument in arguments]
        takes = [*function.takes, *[function.takes[-1]] * (len(parts) - len(function.takes))][: len(parts)]
        same: set[Kind] = set()
        for argument, part, wanted in zip(arguments, parts, takes, strict=True):
            if wanted == "same":
                same |= {part.kind} - {"null"}
            elif wanted == "digits" and not _is_digits(part):
                self._refuse(argument, f"the digits must be a constant from 0 to {MAX_DIGITS}")
            elif wanted in ("number", "text") and {part.kind, wanted} == {"number", "text"}:
                self._refuse(argument, f"this must be {'text' if wanted == 'text' else 'a number'}: {function.usage}")
        if {"text", "number"} <= same:
            self._refuse(node, f"text and numbers do not go together in {function.usage}")
        kind: Kind = function.gives if function.gives != "same" else _common(same)
        return self._apply(node, function.run, parts, kind)

    def _apply(self, node: ast.expr, function: Callable[..., Vector], parts: Sequence[Part], kind: Kind) -> Part:
        """Return a function of parts; of constants, its value."""
        runs = [part.run for part in parts]
        if any(part.constant is None for part in parts):
            return Part(lambda frame: function(*[run(frame) for run in runs]), kind)
        with np.errstate(all="ignore"):
            value = function(*[part.constant for part in parts])
        if value.bad is not None and value.bad.any():
            self._refuse(node, "this calculation with constants has no finite result in 64 bits")
        return _constant_part(value, kind)


def _constant_part(value: Vector, kind: Kind) -> Part:
    return Part(lambda _: value, kind, value)


def _reduced(combine: Callable[[Vector, Vector], Vector], *vectors: Vector) -> Vector:
    return reduce(combine, vectors)


def _compared(symbols: Sequence[str], *vectors: Vector) -> Vector:
    links = [compare(symbol, *pair) for symbol, pair in zip(symbols, pairwise(vectors), strict=True)]
    return reduce(both, links)


def _is_digits(part: Part) -> bool:
    values = None if part.constant is None else part.constant.values
    return values is not None and values.dtype == np.int64 and 0 <= int(values) <= MAX_DIGITS


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair: no event can hold it
        return False
    return True


def _common(kinds: set[Kind]) -> Kind:
    known = kinds - {"any"}
    return known.pop() if known else "any" if kinds else "null"

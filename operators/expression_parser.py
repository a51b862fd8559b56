"""From the text of an expression to its syntax tree, within limits, and where in the text something stands."""

from __future__ import annotations

import ast
import warnings

from modelstream.models.errors import ConfigError
from modelstream.operators.paths import show

__all__ = ["MAX_CHARACTERS", "MAX_DEPTH", "parse_expression", "place", "spoken"]

#: Longer ones are for a function of the user's own.
MAX_CHARACTERS = 4096
#: How deep an expression may be nested: far below where Python's own recursion ends.
MAX_DEPTH = 100

#: What is not allowed, as a person would call it.
_SPOKEN: dict[type[ast.AST], str] = {
    ast.JoinedStr: "an f-string",
    ast.NamedExpr: ":=",
    ast.Subscript: "[...]",
    ast.Lambda: "a lambda",
    ast.Await: "await",
    ast.Attribute: "an attribute of something",
    ast.List: "a list",
    ast.Tuple: "a comma",
    ast.Dict: "a mapping",
    ast.ListComp: "a comprehension",
    ast.GeneratorExp: "a comprehension",
    ast.SetComp: "a comprehension",
    ast.DictComp: "a comprehension",
    ast.BinOp: "this operator",
    ast.UnaryOp: "this operator",
}


def parse_expression(text: str, path: str) -> ast.expr:
    """Return the syntax tree of an expression; nothing of it is run.

    Raises
    ------
    ConfigError
        It is no expression, too long, or nested too deep.

    Examples
    --------
    >>> type(parse_expression("x > 1", "keep")).__name__
    'Compare'
    """
    if len(text) > MAX_CHARACTERS:
        raise ConfigError(path, f"an expression has at most {MAX_CHARACTERS} characters, not {len(text)}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Python's advice on style, as on `x is 1`
            # In parentheses, so that it may go over several lines, as in a block of YAML.
            node = ast.parse(f"({text}\n)", mode="eval").body
    except SyntaxError as error:
        # On the first line, our own parenthesis stands before the text.
        where = "" if error.lineno is None or error.offset is None else place(text, error.lineno, error.offset - 1)
        raise ConfigError(path, f"is no expression: {error.msg}{where}") from None
    except ValueError as error:  # no UTF-8, NUL
        raise ConfigError(path, f"is no expression: {error}") from None
    except (RecursionError, MemoryError):
        raise ConfigError(path, "is no expression: nested too deep") from None
    if isinstance(node, ast.Tuple) and not node.elts and "(" not in text:
        raise ConfigError(path, "is no expression: it is empty")
    if node.lineno == 1 and node.col_offset == 0 and not isinstance(node, ast.Tuple | ast.GeneratorExp):
        raise ConfigError(path, f"is no expression: its parentheses do not match ({show(text)})")
    _check_depth(node, path)
    return node


def _check_depth(node: ast.AST, path: str) -> None:
    level: list[ast.AST] = [node]
    for _ in range(MAX_DEPTH):
        level = [child for parent in level for child in ast.iter_child_nodes(parent)]
        if not level:
            return
    raise ConfigError(path, f"is nested more than {MAX_DEPTH} deep; make columns of its parts")


def place(text: str, line: int, character: int) -> str:
    """Return words that say where in a text something stands, counted from 1.

    Examples
    --------
    >>> place("x > y", 1, 5)
    " (character 5 of 'x > y')"
    """
    where = f"character {max(character, 1)}"
    return f" ({where} of {show(text)})" if "\n" not in text.strip() else f" (line {line}, {where})"


def spoken(node: ast.expr) -> str:
    """Return what a person would call a node that is not allowed.

    Examples
    --------
    >>> spoken(parse_expression("x[0]", "keep"))
    '[...]'
    """
    if isinstance(node, ast.Constant):
        return f"{type(node.value).__name__} such as {show(node.value)}"
    return _SPOKEN.get(type(node), "this")

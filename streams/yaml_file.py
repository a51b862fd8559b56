"""YAML text to plain data, strictly: duplicate keys are errors, and every error says file, line and column."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from modelstream.models.errors import ConfigError, did_you_mean

__all__ = ["describe", "neighbour_hint", "parse_yaml", "read_yaml"]


class _Loader(yaml.SafeLoader):
    """The safe loader, less what surprises in a pipeline file: dates stay text, a repeated key is an error."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except ValueError as error:  # such as `!!int x`; the plain error does not say where
            raise yaml.constructor.ConstructorError(None, None, str(error), node.start_mark) from None

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        # Before `<<` is merged in: a merged key may be overridden, a written one may not.
        seen: set[Hashable] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            problem = None
            if not isinstance(key, str):
                # YAML 1.1 reads the keys no, on and yes as booleans.
                problem = f"key {key_node.value!r} is not text; quote it" if key_node.value else "a key is not text"
            elif key in seen:
                problem = f"key {key!r} stands here twice"
            if problem:
                raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def parse_yaml(text: str, name: str) -> Any:
    r"""Return what a YAML text says, as plain data.

    Parameters
    ----------
    text : str
        One YAML document.
    name : str
        What errors call it: a file name, or an option.

    Raises
    ------
    ConfigError
        The text is not one YAML document; the error's path is ``NAME:LINE:COLUMN``.

    Examples
    --------
    >>> parse_yaml("sink: {topic: out}", "p.yaml")
    {'sink': {'topic': 'out'}}
    >>> parse_yaml("a: 1\na: 2", "p.yaml")
    Traceback (most recent call last):
    modelstream.models.errors.ConfigError: p.yaml:2:1: key 'a' stands here twice
    """
    try:
        return yaml.load(text, _Loader)  # a SafeLoader, so plain data only
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{name}:{mark.line + 1}:{mark.column + 1}" if mark else name
        raise ConfigError(where, error.problem or "not YAML") from None
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        where = f"{name}:{before.count(chr(10)) + 1}:{len(before) - before.rfind(chr(10))}"
        raise ConfigError(where, f"character #x{ord(text[error.position]):04x} is not allowed in YAML") from None
    except RecursionError:
        raise ConfigError(name, "is nested too deeply") from None


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the mapping that a YAML file holds.

    Parameters
    ----------
    path : Path
        The file; JSON will do, as it is YAML too.

    Raises
    ------
    ConfigError
        There is no such file, it cannot be read, or it holds something else.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(str(path), f"no such file{neighbour_hint(path)}") from None
    except IsADirectoryError:
        raise ConfigError(str(path), "is a directory; name the pipeline file in it") from None
    except UnicodeDecodeError as error:
        raise ConfigError(str(path), f"is not UTF-8 text (byte {error.start})") from None
    except OSError as error:
        raise ConfigError(str(path), f"cannot be read: {error.strerror}") from None
    except ValueError:  # a NUL in the name
        raise ConfigError(repr(str(path)), "is no file name") from None
    raw = parse_yaml(text, str(path))
    if raw is None:
        raise ConfigError(str(path), "is empty")
    if not isinstance(raw, dict):
        raise ConfigError(str(path), f"must be a mapping of keys, not {describe(raw)}")
    return raw


def neighbour_hint(path: Path) -> str:
    """Return "did you mean" with a file beside one that is not there; nothing where no name is close."""
    try:
        return did_you_mean(path.name, [entry.name for entry in path.parent.iterdir()])
    except OSError:
        return ""


def describe(value: object) -> str:
    """Return a value as an error message names it, in a few words.

    Examples
    --------
    >>> describe(None), describe([1]), describe(True), describe("a")
    ('nothing', 'a list', 'true', "'a'")
    """
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."

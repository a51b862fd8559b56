"""What values of the pipeline file are made of: names, topics, references of models, functions."""

from __future__ import annotations

import re
from collections.abc import Callable, Sized
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Tag

from modelstream.models.errors import ConfigError
from modelstream.operators.paths import parse_path
from modelstream.streams.spec_errors import TAG, problem
from modelstream.streams.yaml_file import describe

__all__ = ["Function", "ModelReference", "Name", "Path", "Spec", "Text", "Topic", "checked", "not_empty", "tag_of"]

_C = TypeVar("_C", bound=Sized)

_NAME = re.compile(r"[a-z0-9._-]{1,200}")
_TOPIC = re.compile(r"[a-zA-Z0-9._-]{1,249}")
_MODEL = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*(@[A-Za-z0-9_][A-Za-z0-9._-]*)?")
_FUNCTION = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")


def _matching(pattern: re.Pattern[str], rule: str) -> AfterValidator:
    def check(text: str) -> str:
        if not pattern.fullmatch(text):
            raise problem(f"{describe(text)} {rule}")
        return text

    return AfterValidator(check)


def _not_dots(text: str) -> str:
    if text in (".", ".."):
        raise problem(f"{text!r} is no Kafka topic name")
    return text


def _path(text: str) -> str:
    try:
        parse_path(text)
    except ConfigError as error:
        raise problem(error.problem) from None
    return text


def checked(find: Callable[[str], str | None]) -> AfterValidator:
    """Return a validator that raises the problem that a function finds in a text."""

    def check(text: str) -> str:
        if found := find(text):
            raise problem(found)
        return text

    return AfterValidator(check)


def not_empty(values: _C) -> _C:
    """Return the values, or raise where there are none."""
    # Not pydantic's min_length, which calls a list empty when all its entries are wrong.
    if not values:
        raise problem("must not be empty")
    return values


Name = Annotated[str, _matching(_NAME, "is no name; use lower-case letters, digits, '.', '_' and '-'")]
Topic = Annotated[
    str,
    _matching(_TOPIC, "is no Kafka topic name; use at most 249 letters, digits, '.', '_' and '-'"),
    AfterValidator(_not_dots),
]
ModelReference = Annotated[str, _matching(_MODEL, "is no model; write NAME or NAME@VERSION")]
Text = Annotated[str, AfterValidator(not_empty)]
#: Where a value stands in an event.
Path = Annotated[Text, AfterValidator(_path)]
#: A function of the user's: by name as in the file, or itself, in a pipeline built in Python.
Function = (
    Annotated[Annotated[str, _matching(_FUNCTION, "is no function; write module:function")], Tag(f"{TAG}name")]
    | Annotated[Callable[..., Any], Tag(f"{TAG}callable")]
)


def tag_of(value: object) -> str:
    """Return which of pydantic's tagged alternatives a value is: a function by name, a function, or keys."""
    if isinstance(value, str):
        return f"{TAG}name"
    return f"{TAG}callable" if callable(value) else f"{TAG}keys"


class Spec(BaseModel):
    """A part of the pipeline file: a value, with no other keys than its own."""

    model_config = ConfigDict(frozen=True, extra="forbid")

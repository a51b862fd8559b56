"""What pydantic found wrong with a pipeline, in the words of the pipeline file and with the path of each value."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError

from modelstream.models.errors import ConfigError, did_you_mean
from modelstream.streams.yaml_file import describe

__all__ = ["TAG", "collect", "joined", "problem", "to_config_error"]

#: Tags of pydantic's unions begin with this, so that they can be told from the keys of the file: YAML allows no NUL.
TAG = "\0"
_TAGS = {f"{TAG}name", f"{TAG}keys", f"{TAG}callable"}

Location = tuple[int | str, ...]


def problem(text: str) -> PydanticCustomError:
    """Return an error to raise inside a validator; the text is the message as the user sees it."""
    return PydanticCustomError("modelstream", "{problem}", {"problem": text})


def collect(found: Iterable[tuple[Location, str]]) -> None:
    """Raise what a check of the whole found, each problem at its own place; return if it found nothing.

    Raises
    ------
    ValidationError
        There were problems.
    """
    lines = [InitErrorDetails(type=problem(text), loc=loc, input=None) for loc, text in found]
    if lines:
        raise ValidationError.from_exception_data("pipeline", lines)


def to_config_error(error: ValidationError, model: type[BaseModel], raw: Any, prefix: str = "") -> ConfigError:
    """Return one error that lists every problem, one a line; its path is that of the first.

    Parameters
    ----------
    error : ValidationError
        What pydantic found.
    model : type of BaseModel
        The model it validated against; the source of "did you mean".
    raw : object
        The data it validated.
    prefix : str
        Path of `raw` in the pipeline.
    """
    details = [line for line in error.errors(include_url=False) if line["type"] != "default_factory_not_called"]
    typos = {_without_tags(line["loc"]): _known_keys(model, line["loc"]) for line in details if _is_unknown(line)}
    meant = {(*loc[:-1], _close(loc[-1], known)) for loc, known in typos.items()}
    # Unknown keys first: a typo is the likelier cause of whatever else is missing.
    details.sort(key=lambda line: not _is_unknown(line))
    found = []
    for line in details:
        loc = _without_tags(line["loc"])
        if line["type"] == "missing" and loc in meant:
            continue
        text = _unknown(str(loc[-1]), typos[loc]) if loc in typos else _say(line)
        found.append((_path(loc, raw, prefix), text))
    first, *others = found
    return ConfigError(first[0], "\n".join([first[1], *(str(ConfigError(*other)) for other in others)]))


def _is_unknown(line: ErrorDetails) -> bool:
    return line["type"] == "extra_forbidden"


def _unknown(key: str, known: list[str]) -> str:
    return f"unknown key{did_you_mean(key, known) or '; known here: ' + ', '.join(known)}"


def _close(word: int | str, known: Iterable[str]) -> str | None:
    hint = re.search(r"'(.*)'", did_you_mean(str(word), known))
    return hint.group(1) if hint else None


def _without_tags(loc: Location) -> Location:
    # Exactly these: a pipeline built in Python may have keys that begin with NUL.
    return tuple(step for step in loc if step not in _TAGS)


def _known_keys(model: type[BaseModel], loc: Location) -> list[str]:
    """Return the keys allowed where `loc`, which ends in an unknown one, stands."""
    for step in loc[:-1]:
        field = next((f for name, f in model.model_fields.items() if step in (name, f.alias)), None)
        # A step that is no field is an index, a tag, or a key that the user chose: the model stays.
        model = (_model_in(field.annotation) if field else None) or model
    return [field.alias or name for name, field in model.model_fields.items()]


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for arg in get_args(annotation) if (found := _model_in(arg))), None)


def _path(loc: Location, raw: Any, prefix: str) -> str:
    """Return the path in the file: of a short form, such as ``x: float32``, only what is written down."""
    path = prefix
    for i, step in enumerate(loc):
        if isinstance(raw, BaseModel):
            raw = raw.__dict__.get(str(step))
        elif isinstance(raw, Mapping):
            if step not in raw and i < len(loc) - 1:
                continue
            raw = raw.get(step)
        elif isinstance(raw, list | tuple) and isinstance(step, int):
            raw = raw[step] if step < len(raw) else None
        else:
            break
        path = joined(path, step)
    return path


def joined(path: str, step: int | str) -> str:
    """Return a path with one more step.

    Examples
    --------
    >>> joined("stages", 0), joined("rules.reject", "too far")
    ('stages[0]', "rules.reject['too far']")
    """
    if isinstance(step, int):
        return f"{path}[{step}]"
    if not re.fullmatch(r"[^\s.:\[\]]+", step):  # a key that would make the path misread
        return f"{path}[{step!r}]"
    return f"{path}.{step}" if path else step


#: What must stand there, by pydantic's error type.
_WANTED = {
    "string_type": "text",
    "int_type": "a whole number",
    "model_type": "a mapping",
    "dict_type": "a mapping",
    "list_type": "a list",
    "tuple_type": "a list",
}


def _say(line: ErrorDetails) -> str:
    kind, value, context = line["type"], line["input"], line.get("ctx", {})
    if kind in _WANTED:
        function = "module:function or " if str(line["loc"][-1]).startswith(TAG) else ""
        return f"must be {function}{_WANTED[kind]}, not {describe(value)}"
    match kind:
        case "missing":
            return "missing"
        case "greater_than_equal":
            return f"must be at least {context['ge']}, not {value}"
        case "less_than_equal":
            return f"must be at most {context['le']}, not {value}"
        case "literal_error":
            known = re.findall(r"'([^']*)'", context["expected"])
            hint = did_you_mean(value, known) if isinstance(value, str) and len(known) > 1 else ""
            return f"must be {'one of ' if len(known) > 1 else ''}{', '.join(known)}, not {describe(value)}{hint}"
    return line["msg"]

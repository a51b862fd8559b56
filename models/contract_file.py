"""`model.toml`: read, checked key by key, and every error told with the path of its key."""

from __future__ import annotations

import re
import tomllib
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainValidator, ValidationError, model_validator
from pydantic_core import ErrorDetails, PydanticCustomError

from modelstream.models.contract import ANY_WIDTH, ContractBreach, OutputKind
from modelstream.models.errors import did_you_mean

__all__ = [
    "CONTRACT_FILE",
    "MAX_CONTRACT_BYTES",
    "MODEL_FILE",
    "ContractFile",
    "InputTable",
    "OutputTable",
    "parse_contract",
]

MODEL_FILE = "model.onnx"
CONTRACT_FILE = "model.toml"

#: 1 MiB for `model.toml`: a thousand fields take 20 kB.
MAX_CONTRACT_BYTES = 1024 * 1024

_KINDS: tuple[OutputKind, ...] = get_args(OutputKind)

#: A prediction carries the model's version beside its output fields.
_RESERVED_FIELDS = {"version"}


def _version_text(value: object) -> object:
    # `version = 1` is what people write first. 1.10 would arrive as 1.1, so decimals have to be quoted.
    return str(value) if type(value) is int else value


def _class(value: object) -> object:
    if type(value) not in (int, str):
        raise PydanticCustomError("value", "should be an integer or a text")
    return value


def _classes(value: object) -> object:
    alike = isinstance(value, list) and {type(one) for one in value} in ({int}, {str})
    if not alike or len(set(value)) < len(value):  # type: ignore[arg-type,call-overload]
        raise PydanticCustomError("value", "should list different integers, or different texts")
    return value


def _width(value: object) -> object:
    if value == "any":
        return ANY_WIDTH
    if type(value) is not int or value < 1:
        raise PydanticCustomError("value", 'should be a whole number from 1, or "any"')
    return value


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class InputTable(_Table):
    """``[inputs.TENSOR]``: the fields that fill an input tensor; one of `fields` and `field`.

    Parameters
    ----------
    fields : list of str, optional
        Scalar fields, packed in this order.
    field : str, optional
        One vector field.
    width : int or "any", optional
        Values in each row of the vector field; needed only where the ONNX graph leaves it open. With ``"any"``, read as
        `ANY_WIDTH`, rows may differ in length.
    """

    fields: list[str] | None = Field(default=None, min_length=1)
    field: str | None = None
    width: Annotated[int | None, PlainValidator(_width)] = None

    @model_validator(mode="after")
    def _one_form(self) -> InputTable:
        if (self.fields is None) == (self.field is None):
            raise PydanticCustomError("form", "name either `fields` (scalar columns) or `field` (one vector column)")
        if self.width is not None and self.field is None:
            raise PydanticCustomError("form", "`width` goes with `field`; scalar columns have none")
        if self.fields is not None and len(set(self.fields)) < len(self.fields):
            raise PydanticCustomError("form", "`fields` names a field twice")
        return self


class OutputTable(_Table):
    """``[outputs.FIELD]``: what a field of the prediction means, and where it is read.

    Parameters
    ----------
    tensor : str, optional
        The ONNX output; by default the one of the field's name, or the only one.
    kind : {"value", "label", "score", "vector"}, optional
        By default the field's name.
    class : int or str, optional
        For a score, the class that it is about. By default the largest score counts.
    classes : list, optional
        The classes in the order of the tensor's columns, where they are not 0, 1, 2, ….
    """

    tensor: str | None = None
    kind: Literal["value", "label", "score", "vector"] | None = None
    of_class: Annotated[int | str | None, PlainValidator(_class)] = Field(default=None, alias="class")
    classes: Annotated[list[int] | list[str] | None, PlainValidator(_classes)] = None


class ContractFile(_Table):
    """`model.toml` as it was written; `fit_inputs` and `fit_outputs` complete it from the ONNX graph.

    Parameters
    ----------
    name, version : str
        The same as the directories' names.
    sha256 : str
        Digest of `model.onnx`, 64 hexadecimal digits.
    inputs : dict of str to InputTable
        By tensor. A tensor left out is filled from the field of its own name.
    outputs : dict of str to OutputTable
        By field of the prediction. Where there are none they are worked out from the graph.
    examples : dict of str to list
        Values of a field for the trial rows at loading, for models that take certain values only.
    metrics, training : dict
        Free tables.
    """

    name: str
    version: Annotated[str, BeforeValidator(_version_text)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-fA-F]{64}$")]
    inputs: dict[str, InputTable] = {}
    outputs: dict[str, OutputTable] = {}
    examples: dict[str, Annotated[list[Any], Field(min_length=1)]] = {}
    metrics: dict[str, Any] = {}
    training: dict[str, Any] = {}

    @model_validator(mode="after")
    def _outputs_say_what_they_are(self) -> ContractFile:
        for field, table in self.outputs.items():
            if field in _RESERVED_FIELDS:
                raise PydanticCustomError(
                    "form", "outputs.{field}: this name is taken; choose another", {"field": field}
                )
            if table.kind is None and field not in _KINDS:
                text = "outputs.{field}: say `kind` = one of {kinds}"
                raise PydanticCustomError("form", text, {"field": field, "kinds": ", ".join(_KINDS)})
            if (table.kind or field) != "score" and (table.of_class is not None or table.classes is not None):
                raise PydanticCustomError("form", "outputs.{field}: only a score has a class", {"field": field})
        return self


def parse_contract(content: bytes) -> ContractFile:
    """Read the content of a `model.toml`.

    Parameters
    ----------
    content : bytes
        The file's content.

    Raises
    ------
    ContractBreach
        If it is not TOML, or a key is missing, unknown or wrong; the message names the key.

    Examples
    --------
    >>> parse_contract(b"nmae = 'delay'")
    Traceback (most recent call last):
    modelstream.models.contract.ContractBreach: nmae: unknown key; did you mean 'name'? (and 3 more errors)
    """
    try:
        return ContractFile.model_validate(tomllib.loads(content.decode()))
    except UnicodeDecodeError as error:
        raise ContractBreach(
            f"not UTF-8 text: byte {error.start} is {content[error.start]:#04x}", CONTRACT_FILE
        ) from None
    except tomllib.TOMLDecodeError as error:
        raise ContractBreach(f"not TOML: {error}", CONTRACT_FILE) from None
    except RecursionError:
        raise ContractBreach("not TOML: nested too deep", CONTRACT_FILE) from None
    except ValidationError as error:
        raise ContractBreach(_tell(error), CONTRACT_FILE) from None


def _tell(error: ValidationError) -> str:
    # A misspelt key is also a missing one: tell the misspelling, which is what to mend.
    errors = sorted(error.errors(include_url=False), key=lambda one: one["type"] != "extra_forbidden")
    more = f" (and {len(errors) - 1} more error{'s' if len(errors) > 2 else ''})" if len(errors) > 1 else ""
    return _one_line(errors[0]) + more


def _one_line(error: ErrorDetails) -> str:
    path = list(error["loc"])
    if error["type"] == "extra_forbidden":
        problem = f"unknown key{did_you_mean(str(path[-1]), _keys_at(path))}"
    elif error["type"] == "missing":
        problem = "is missing"
    elif error["type"] == "string_pattern_mismatch":
        problem = "not a SHA-256 digest of 64 hexadecimal digits"
    elif error["type"] == "form":
        problem = error["msg"]
    else:
        problem = re.sub(r"^Input should", "should", error["msg"]) + f", not {error['input']!r:.80}"
    return f"{_dotted(path)}: {problem}" if path else problem


def _dotted(path: list[int | str]) -> str:
    dotted = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return dotted.removeprefix(".")


def _keys_at(path: list[int | str]) -> list[str]:
    tables: dict[object, type[_Table]] = {"inputs": InputTable, "outputs": OutputTable}
    table = tables.get(path[0]) if len(path) > 1 else None
    fields = table.model_fields if table else ContractFile.model_fields
    return [field.alias or name for name, field in fields.items()]

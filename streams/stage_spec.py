"""One stage of the pipeline file: what it does to events. `docs/pipeline.md` is the reference of its keys."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, PlainValidator, Tag, model_validator

from modelstream.models.contract import ANY_WIDTH, DType
from modelstream.models.errors import ConfigError
from modelstream.operators.expressions import compile_expression
from modelstream.operators.fields import MISSING, ColumnSpec
from modelstream.streams.infer_spec import InferSpec
from modelstream.streams.spec_errors import TAG, Location, collect, problem
from modelstream.streams.spec_types import Function, Name, Path, Spec, Text, not_empty, tag_of
from modelstream.streams.yaml_file import describe

__all__ = ["DeclaredColumn", "DeclaredColumns", "PresentFields", "RulesSpec", "StageSpec"]


def _width(value: object) -> object:
    if value == "any":
        return value
    if type(value) is not int:
        raise problem(f"must be a whole number or any, not {describe(value)}")
    if value < 1:
        raise problem(f"must be at least 1, not {value}")
    return value


class DeclaredColumn(Spec):
    """One declared column: a field of the event, cast to a dtype. ``float32`` alone is short for its dtype."""

    dtype: DType
    from_: Annotated[Path | None, Field(alias="from")] = None
    #: Values of a list; ``any`` where events differ.
    width: Annotated[int | Literal["any"], PlainValidator(_width)] | None = None
    default: Any = None
    #: Where the field is text: what stands between the numbers of its vector.
    separator: str | None = None

    @model_validator(mode="after")
    def _default_fits(self) -> DeclaredColumn:
        try:
            self.as_column("x")
        except ConfigError as error:
            raise problem(error.problem) from None
        return self

    def as_column(self, name: str) -> ColumnSpec:
        """Return the column as operators read it. A default of null is none: null means absent in events too."""
        default = MISSING if self.default is None else self.default
        width = ANY_WIDTH if self.width == "any" else self.width
        return ColumnSpec(name, self.dtype, width, self.from_, default, self.separator)


def _dtype_alone(value: object) -> object:
    return {"dtype": value} if isinstance(value, str) else value


class DeclaredColumns(Spec):
    """``extract: {columns: …}``: columns by name."""

    columns: Annotated[
        dict[Text, Annotated[DeclaredColumn, BeforeValidator(_dtype_alone)]],
        AfterValidator(not_empty),
    ]


class PresentFields(Spec):
    """``filter: {present: …}``: keep the events in which every named field is there and not null."""

    present: Annotated[tuple[Path, ...], AfterValidator(not_empty)]


class RulesSpec(Spec):
    """``rules``: business logic as expressions over columns and over what models said, or as a function.

    `keep` filters, `reject` makes dead letters, `columns` adds columns, `outputs` adds to the predictions.
    """

    fields: dict[Text, Annotated[DeclaredColumn, BeforeValidator(_dtype_alone)]] = Field(default_factory=dict)
    columns: dict[Text, Text] = Field(default_factory=dict)
    keep: Text | None = None
    reject: dict[Text, Text] = Field(default_factory=dict)
    outputs: dict[Text, Annotated[dict[Text, Text], AfterValidator(not_empty)]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _says_something(self) -> RulesSpec:
        if not (self.columns or self.keep or self.reject or self.outputs):
            raise problem("has no rule; needs one of columns, keep, reject, outputs")
        collect(_expression_problems(self))
        return self


def _expression_problems(rules: RulesSpec) -> Iterator[tuple[Location, str]]:
    """Yield what is wrong with expressions in themselves. Whether there is what they read, only `build` can tell."""
    texts: dict[Location, str] = {("columns", name): text for name, text in rules.columns.items()}
    if rules.keep is not None:
        texts[("keep",)] = rules.keep
    texts |= {("reject", name): text for name, text in rules.reject.items()}
    for name, fields in rules.outputs.items():
        texts |= {("outputs", name, key): text for key, text in fields.items()}
    for location, text in texts.items():
        try:
            compile_expression(text, "")
        except ConfigError as error:
            yield location, error.problem
    for name in rules.columns.keys() & rules.fields.keys():
        yield ("columns", name), "stands under fields already"


ExtractSpec = Annotated[Function | Annotated[DeclaredColumns, Tag(f"{TAG}keys")], Discriminator(tag_of)]
FilterSpec = Annotated[Function | Annotated[PresentFields, Tag(f"{TAG}keys")], Discriminator(tag_of)]
RulesOrFunction = Annotated[Function | Annotated[RulesSpec, Tag(f"{TAG}keys")], Discriminator(tag_of)]

#: What a stage may be: the keys of which it has exactly one.
KINDS = ("extract", "filter", "rules", "infer")


class StageSpec(Spec):
    """One entry of ``stages``: a step id and what the step does."""

    id: Name
    extract: ExtractSpec | None = None
    filter: FilterSpec | None = None
    rules: RulesOrFunction | None = None
    infer: InferSpec | None = None

    @model_validator(mode="after")
    def _one_operator(self) -> StageSpec:
        given = [kind for kind in KINDS if kind in self.model_fields_set]
        if len(given) != 1:
            raise problem(f"needs exactly one of {', '.join(KINDS)}{'; has ' + ' and '.join(given) if given else ''}")
        if getattr(self, given[0]) is None:
            collect([((given[0],), "must not be empty")])
        return self

    @property
    def kind(self) -> str:
        """Which operator it is: one of `KINDS`."""
        return next(kind for kind in KINDS if getattr(self, kind) is not None)

    @property
    def answers(self) -> list[str]:
        """The names that its answers stand under in the predictions; of a function only data can tell."""
        if self.infer is not None:
            return [*(entry.name for entry in self.infer.models), *self.infer.ensembles, *self.infer.cascades]
        return list(self.rules.outputs) if isinstance(self.rules, RulesSpec) else []

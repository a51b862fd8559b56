"""Notes on inputs that may be misspelt: what is no answer's field is a field of the events, which any name may be."""

from __future__ import annotations

from collections.abc import Iterator

from modelstream.models.errors import did_you_mean
from modelstream.operators.answers import find_answer
from modelstream.streams.spec import PipelineSpec

__all__ = ["input_notes"]


def input_notes(spec: PipelineSpec) -> Iterator[str]:
    """Yield a line for each input of a model that is nearly, but not quite, a field of an answer.

    Parameters
    ----------
    spec : PipelineSpec
        The pipeline.

    Examples
    --------
    >>> spec = PipelineSpec.model_validate({
    ...     "pipeline": "p", "source": {"topic": "t"}, "sink": {"topic": "s"},
    ...     "stages": [{"id": "a", "infer": {"models": ["worth", {"model": "b", "inputs": {"x": "wort.value"}}]}}],
    ... })
    >>> for note in input_notes(spec):
    ...     print(note)  # doctest: +NORMALIZE_WHITESPACE
    stages[0].infer.models[1].inputs.x: no answer 'wort', so it is read as an event field;
    did you mean 'worth.value'?
    """
    answers: list[str] = []
    for i, stage in enumerate(spec.stages):
        answers += stage.answers
        for j, entry in enumerate(stage.infer.models if stage.infer else ()):
            for name, source in entry.inputs.items():
                if hint := _hint(source, [answer for answer in answers if answer != entry.name]):
                    yield (
                        f"stages[{i}].infer.models[{j}].inputs.{name}: no answer {source.partition('.')[0]!r}, "
                        f"so it is read as an event field{hint}"
                    )


def _hint(source: str, answers: list[str]) -> str:
    first, dot, field = source.partition(".")
    if not dot or find_answer(source, answers) is not None or not did_you_mean(first, answers):
        return ""
    return did_you_mean(source, [f"{answer}.{field}" for answer in answers])

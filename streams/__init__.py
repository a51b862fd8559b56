"""The running system: everything that knows Faust or Kafka, and the pipelines that it runs.

The names below are loaded when they are first used, so that looking at a pipeline does not wait for Faust, Kafka's
clients or ONNX Runtime.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from modelstream.streams.pipeline import Pipeline, Source, extract, filter_events, infer, load_pipeline, rules

__all__ = ["Pipeline", "Source", "extract", "filter_events", "infer", "load_pipeline", "rules"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from modelstream.streams import pipeline

    return getattr(pipeline, name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])

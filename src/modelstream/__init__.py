"""modelstream: a stream-processing inference engine on Kafka, Faust and ONNX Runtime.

::

    from modelstream import Pipeline, extract, infer

    pipeline = (
        Pipeline("flights", source={"topic": "flights.events", "event_id": "id"})
        .then("features", extract("features:departure"))
        .then("delay", infer(["arrival_delay"]))
        .to("flights.predictions")
    )
    pipeline.simulate([{"id": "1", "dep_delay": 3}]).predictions
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from modelstream.streams.pipeline import Pipeline, Source, extract, filter_events, infer, load_pipeline, rules

    __version__: str

__all__ = ["Pipeline", "Source", "__version__", "extract", "filter_events", "infer", "load_pipeline", "rules"]


def __getattr__(name: str) -> Any:
    # Both take tens of milliseconds, which `modelstream --help` and every import of an operator would wait for.
    if name == "__version__":
        from importlib.metadata import version

        return version("modelstream")
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from modelstream.streams import pipeline

    return getattr(pipeline, name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])

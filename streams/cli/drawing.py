"""What `graph` draws, and a report shows: a pipeline with the versions that its models come out as."""

from __future__ import annotations

from modelstream.models.errors import ConfigError
from modelstream.models.registry import find_version
from modelstream.streams.graph import Graph, make_graph
from modelstream.streams.pipeline import Pipeline

__all__ = ["graph_of"]


def graph_of(pipeline: Pipeline) -> Graph:
    """Return a pipeline's graph; a model that is not there stands as the pipeline names it."""
    models_dir = pipeline.folder / pipeline.models_dir

    def resolve(reference: str) -> str | None:
        try:
            found = find_version(models_dir, reference)
        except ConfigError:
            return None
        return f"{found.name}@{found.version}"

    return make_graph(pipeline.spec, resolve)

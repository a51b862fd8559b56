"""A small pipeline project in a folder, as a user would have it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from support.onnx_factory import affine, column_sum, write_model

FEATURES = """
import numpy as np

from helper import SCALE


def departure(batch):
    delays = np.array([event["dep_delay"] for event in batch.events], np.float32)
    return {"x": np.stack([delays * SCALE, np.ones(len(batch), np.float32)], axis=1)}


def daytime(batch):
    return np.array([event.get("hour", 12) < 22 for event in batch.events])


async def waiting(batch):
    return {}


def needy(batch, more):
    return {}


NUMBER = 5
"""

PIPELINE = """
pipeline: flights
source: {topic: flights.events, key: tail, event_id: id, event_time: at}
stages:
  - {id: departed, filter: {present: [dep_delay]}}
  - {id: daytime, filter: "features:daytime"}
  - {id: features, extract: "features:departure"}
  - {id: delay, infer: {models: [arrival_delay], batch: {max_size: 4}}}
  - {id: more, infer: {models: [total@1]}}
sink: {topic: flights.predictions}
"""


@pytest.fixture
def make_project(tmp_path: Path) -> Callable[..., Path]:
    """Make a folder with a pipeline, its functions and models: ``make_project("a", scale=2)`` returns the file."""

    def make(name: str = "project", scale: float = 1, pipeline: str = PIPELINE) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        (folder / "features.py").write_text(FEATURES)
        (folder / "helper.py").write_text(f"SCALE = {scale}\n")
        (folder / "pipeline.yaml").write_text(pipeline)
        # arrival_delay = 2 * scale * dep_delay + 1, which float32 holds exactly for small delays
        write_model(folder / "models", "arrival_delay", affine([2, 1], tensor="x"), '[inputs.x]\nfield = "x"\n')
        write_model(folder / "models", "total", column_sum({"dep_delay": "float32", "distance": "int64"}))
        write_model(folder / "models", "total", column_sum({"dep_delay": "float32"}), version="2")
        return folder / "pipeline.yaml"

    return make


@pytest.fixture
def project(make_project: Callable[..., Path]) -> Path:
    """Return the pipeline file of a small project."""
    return make_project()

"""Workloads whose records hold a vector of random features, and one model that takes it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import orjson
from benchmarks.workloads.workload import (
    BLOCK,
    SEED,
    Kind,
    Tolerance,
    event_id,
    event_number,
    open_reference,
)
from numpy.typing import NDArray
from onnx import ModelProto

__all__ = ["Draw", "VectorWorkload", "decimals", "normal", "pixels"]

#: Draws a block of features: from a generator, an array of so many rows and columns, as the records hold it.
Draw = Callable[[np.random.Generator, tuple[int, int]], NDArray[np.float64] | NDArray[np.int64]]


def normal(generator: np.random.Generator, shape: tuple[int, int]) -> NDArray[np.float64]:
    """Return standard normal values with four decimals."""
    return generator.standard_normal(shape).round(4)


def decimals(generator: np.random.Generator, shape: tuple[int, int]) -> NDArray[np.float64]:
    """Return values from 0 to 1 with eight decimals, as many as Crayfish's have: 784 of them take 8.6 kB."""
    return generator.random(shape).round(8)


def pixels(generator: np.random.Generator, shape: tuple[int, int]) -> NDArray[np.int64]:
    """Return grey values, whole numbers from 0 to 255."""
    return generator.integers(0, 256, shape)


@dataclass(frozen=True)
class VectorWorkload:
    """A `Workload` of random vectors.

    Parameters
    ----------
    name : str
        What the command line calls it.
    width, n_outputs : int
        Of the model's ``features`` and ``value``.
    make_model : callable
        Returns the model.
    draw : callable
        Makes the features.
    kind : str
        ``array`` or ``csv``.
    """

    name: str
    width: int
    n_outputs: int
    make_model: Callable[[], ModelProto] = field(repr=False)
    draw: Draw = field(default=normal, repr=False)
    kind: Kind = "array"
    tolerance: Tolerance = field(default=Tolerance(), repr=False)
    n_events_max: int | None = None

    def records(self, n: int) -> Iterator[bytes]:
        """Yield the first `n` records."""
        for first in range(0, n, BLOCK):
            for number, row in enumerate(self._block(first // BLOCK)[: n - first], first):
                vector = orjson.dumps(row, option=orjson.OPT_SERIALIZE_NUMPY)
                if self.kind == "csv":
                    vector = b'"%s"' % vector[1:-1]
                yield b'{"id":"%s","features":%s}' % (event_id(number).encode(), vector)

    def event_number(self, identifier: str) -> int:
        """Return which record an id belongs to."""
        return event_number(identifier)

    def write_model(self, folder: Path) -> Path:
        """Write ``model.onnx`` and return it."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "model.onnx"
        path.write_bytes(self.make_model().SerializeToString())
        return path

    def features(self, n: int) -> NDArray[np.float32]:
        """Return the features of the first `n` records, of shape (n, width)."""
        blocks = [self._block(block)[: n - block * BLOCK].astype(np.float32) for block in range(-(-n // BLOCK))]
        return np.concatenate(blocks)

    def expected(self, n: int) -> NDArray[np.float32]:
        """Return what the model says of each of the first `n` records alone, of shape (n, n_outputs)."""
        run = open_reference(self.make_model().SerializeToString()).run
        values = np.empty((n, self.n_outputs), np.float32)
        for first in range(0, n, BLOCK):
            rows = self._block(first // BLOCK)[: n - first].astype(np.float32)
            for i in range(len(rows)):
                values[first + i] = run(None, {"features": rows[i : i + 1]})[0][0]
        return values

    def _block(self, block: int) -> NDArray[np.float64] | NDArray[np.int64]:
        return self.draw(np.random.default_rng([SEED, block]), (BLOCK, self.width))

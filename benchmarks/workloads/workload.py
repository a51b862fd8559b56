"""What a workload is: records, a model, and what ONNX Runtime says of each record on its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

__all__ = ["BLOCK", "SEED", "Kind", "Tolerance", "Workload", "event_id", "event_number", "open_reference", "values_of"]

#: Records are made in blocks of this many, each with a random generator of its own: a record does not depend on how
#: many are asked for.
BLOCK = 10_000

#: Any number; it stands here so that everybody measures with the same records.
SEED = 20_130_101

#: How a record holds its features: ``{"id", "features": [numbers]}``, the same with ``"features": "1.5,2,…"``, a
#: comma-joined decimal string as in Crayfish, or as a business event of which a function makes them.
Kind = Literal["array", "csv", "event"]


@dataclass(frozen=True)
class Tolerance:
    """How far a value may be from the model's own answer: sums add in another order when there are more rows.

    Parameters
    ----------
    relative, absolute : float
        The difference is at most ``relative * abs(expected) + absolute``.
    """

    relative: float = 1e-5
    absolute: float = 0.0


class Workload(Protocol):
    """One job that every system does. Everything is a function of the record's number, and the records are distinct.

    A model that sees the same rows again looks faster than it is.
    """

    @property
    def name(self) -> str:
        """What the command line calls it."""
        ...

    @property
    def kind(self) -> Kind:
        """How a record holds its features."""
        ...

    @property
    def width(self) -> int:
        """Features of a record: the model's input is ``features``, float32 of shape (n, width)."""
        ...

    @property
    def n_outputs(self) -> int:
        """Numbers in an output: ``value`` is a number where it is one, else a list of so many."""
        ...

    @property
    def tolerance(self) -> Tolerance:
        """How exact outputs must be."""
        ...

    @property
    def n_events_max(self) -> int | None:
        """How many distinct records there are; None where there are as many as you like."""
        ...

    def records(self, n: int) -> Iterator[bytes]:
        """Yield the values of the first `n` records."""
        ...

    def event_number(self, identifier: str) -> int:
        """Return which record an id belongs to; a negative number where it is of none."""
        ...

    def write_model(self, folder: Path) -> Path:
        """Write the model into a folder, always the same, and return what workers are given as ``--model``."""
        ...

    def features(self, n: int) -> NDArray[np.float32]:
        """Return what the model sees of the first `n` records, of shape (n_rows, width); less where not all are due."""
        ...

    def expected(self, n: int) -> NDArray[np.float32]:
        """Return what the model says of each of the first `n` records alone, of shape (n, n_outputs).

        NaN stands in the rows for which no output is due.
        """
        ...


def event_id(number: int) -> str:
    """Return the id of a synthetic record.

    Examples
    --------
    >>> event_id(42), event_number(event_id(42))
    ('event-00000042', 42)
    """
    return f"event-{number:08d}"


def event_number(identifier: str) -> int:
    """Return which synthetic record an id belongs to."""
    return int(identifier[6:])


def open_reference(model: Path | bytes) -> ort.InferenceSession:
    """Return a model, a file or its bytes, in ONNX Runtime with one thread and nothing else set."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def values_of(output: Mapping[str, Any]) -> list[float]:
    """Return the numbers of an output: ``{"event_id", "value"}``, or modelstream's record, by model and field.

    Examples
    --------
    >>> values_of({"event_id": "a", "value": 1.5})
    [1.5]
    >>> values_of({"event_id": "a", "predictions": {"m": {"version": "1", "value": [1.5, 2.0]}}})
    [1.5, 2.0]
    """
    if "value" in output:
        said = [output["value"]]
    else:
        answers = output["predictions"].values()
        said = [x for answer in answers for field, x in answer.items() if field != "version"]
    return [x for part in said for x in (part if isinstance(part, list) else [part])]

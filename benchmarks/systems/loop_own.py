"""The hand-written loop with modelstream's own decoder: left between the two are the engine and its longer outputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from benchmarks.systems.common import Job, open_session
from benchmarks.systems.loop import run
from benchmarks.systems.scoring import outputs_of
from numpy.typing import NDArray

from modelstream.operators.json_fields import JsonFields, VectorField

__all__ = ["open_own_model"]


def open_own_model(job: Job) -> Callable[[Sequence[bytes]], tuple[list[str], NDArray[np.float32]]]:
    """Return what reads and scores records of vectors: their ids, and what the model says. One not sound ends it."""
    session = open_session(job.model)
    width = session.get_inputs()[0].shape[1]
    fields = JsonFields(["id"], {"features": VectorField(width, "," if job.workload.endswith("-csv") else None)})

    def score(records: Sequence[bytes]) -> tuple[list[str], NDArray[np.float32]]:
        found = fields.read(records)
        if found is None:
            raise ValueError("a record is not sound")
        return found["id"], session.run(None, {"features": found["features"].astype("float32")})[0]

    return score


def main() -> None:
    job = Job.from_command_line()
    score = open_own_model(job)
    run(job, lambda records: outputs_of(*score(records)))


if __name__ == "__main__":
    main()

"""The hand-written loop with modelstream's own decoder: what is left between the two is the engine's tax."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.systems.common import Job, open_session
from benchmarks.systems.loop import run
from benchmarks.systems.scoring import Score, outputs_of

from modelstream.operators.json_fields import JsonFields, VectorField


def open_own_score(job: Job) -> Score:
    """Return what scores records of vectors, as many as the model takes; one that is not sound ends it."""
    session = open_session(job.model)
    width = session.get_inputs()[0].shape[1]
    fields = JsonFields(["id"], {"features": VectorField(width, "," if job.workload.endswith("-csv") else None)})

    def score(records: Sequence[bytes]) -> list[bytes]:
        found = fields.read(records)
        if found is None:
            raise ValueError("a record is not sound")
        return outputs_of(found["id"], session.run(None, {"features": found["features"].astype("float32")})[0])

    return score


if __name__ == "__main__":
    given = Job.from_command_line()
    run(given, open_own_score(given))

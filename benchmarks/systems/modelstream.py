"""modelstream as a user runs it: a pipeline file, a registry with the model, and then `modelstream run` itself."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys

from benchmarks.systems.common import LINGER_MS, Job

_PIPELINE = """\
pipeline: {job.group}
source: {{topic: {job.input_topic}, event_id: id}}
stages:
{more}  - id: score
    infer: {{models: [model], batch: {{in_flight: {in_flight}}}}}
sink: {{topic: {job.output_topic}, dead_letter: {job.output_topic}.dead}}
"""

_COLUMNS = """\
  - id: features
    extract: {columns: {features: {dtype: float32, width: 784, separator: ","}}}
"""

#: Micro-batches that are computed at once: as the documentation advises, several where a model takes longer than all
#: the rest, so that other events are decoded and encoded meanwhile.
_IN_FLIGHT = {"gbdt-500": 3, "flights": 3}

#: What the outputs are is found by their form: a value, or a vector of several.
_CONTRACT = """\
name = "model"
version = "1"
sha256 = "{sha256}"

[inputs.features]
field = "features"
"""


def write_pipeline(job: Job) -> list[str]:
    """Write the pipeline file, and the registry beside it; return the arguments that name the pipeline."""
    if job.workload == "flights":
        # The example's own file; only where it reads and writes is another.
        topics = {"pipeline": job.group, "source.topic": job.input_topic, "sink.topic": job.output_topic}
        given = {
            **topics,
            "sink.dead_letter": f"{job.output_topic}.dead",
            "stages[2].infer.batch.in_flight": _IN_FLIGHT[job.workload],
        }
        return [str(job.model.parent / "pipeline.yaml"), *(f"--set={key}={value}" for key, value in given.items())]
    folder = job.workdir / "models" / "model" / "1"
    folder.mkdir(parents=True)
    shutil.copyfile(job.model, folder / "model.onnx")
    (folder / "model.toml").write_text(_CONTRACT.format(sha256=hashlib.sha256(job.model.read_bytes()).hexdigest()))
    pipeline = job.workdir / "pipeline.yaml"
    more = _COLUMNS if job.workload.endswith("-csv") else ""
    pipeline.write_text(_PIPELINE.format(job=job, more=more, in_flight=_IN_FLIGHT.get(job.workload, 1)))
    return [str(pipeline)]


def main(*more: str) -> None:
    job = Job.from_command_line()
    if LINGER_MS <= 1:
        # With a target for its latency the engine gathers and lingers for a twentieth of it.
        more = (*more, f"--set=stages[{2 if job.workload == 'flights' else 0}].infer.batch.target_p99_ms=10")
    command = ["modelstream", "run", *write_pipeline(job), *more, "--broker", job.broker, "--without-web"]
    # This process becomes the worker: who measures it measures the command, and nothing of this file.
    os.execv(sys.executable, [sys.executable, "-m", *command])


if __name__ == "__main__":
    main()

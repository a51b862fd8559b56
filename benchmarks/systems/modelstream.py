"""modelstream as a user runs it: a pipeline file, a registry with one model, and then `modelstream run` itself."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from pathlib import Path

from benchmarks.systems.common import Job

_PIPELINE = """\
pipeline: {job.group}
source: {{topic: {job.input_topic}, event_id: id}}
stages:
  - id: score
    infer: {{models: [mlp]}}
sink: {{topic: {job.output_topic}, dead_letter: {job.output_topic}.dead}}
"""

_CONTRACT = """\
name = "mlp"
version = "1"
sha256 = "{sha256}"

[inputs.features]
field = "features"

[outputs.value]
tensor = "value"
"""


def write_pipeline(job: Job, more: str = "") -> Path:
    """Write the pipeline file, with some lines more, and the registry beside it; return the file."""
    folder = job.workdir / "models" / "mlp" / "1"
    folder.mkdir(parents=True)
    shutil.copyfile(job.model, folder / "model.onnx")
    (folder / "model.toml").write_text(_CONTRACT.format(sha256=hashlib.sha256(job.model.read_bytes()).hexdigest()))
    pipeline = job.workdir / "pipeline.yaml"
    pipeline.write_text(_PIPELINE.format(job=job) + more)
    return pipeline


def main(more: str = "") -> None:
    job = Job.from_command_line()
    command = ["modelstream", "run", str(write_pipeline(job, more)), "--broker", job.broker, "--without-web"]
    # This process becomes the worker: who measures it measures the command, and nothing of this file.
    os.execv(sys.executable, [sys.executable, "-m", *command])


if __name__ == "__main__":
    main()

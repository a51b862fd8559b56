"""What the systems share: the command line, the ONNX session, and the outputs' form. Nothing here is on a hot path."""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass
from pathlib import Path

import onnxruntime as ort

__all__ = ["ACKS", "COMMIT_INTERVAL_S", "LINGER_MS", "SESSION_TIMEOUT_S", "Job", "open_session"]

#: What every producer waits for: with less a system would be faster, and could lose an output that it has committed.
ACKS = "all"

#: How often each system commits. Faust's and Quix's own defaults are 2.8 and 5 s: the same for all is fairer.
COMMIT_INTERVAL_S = 1.0

#: Milliseconds the librdkafka producers wait for a batch to fill: the throughput setting of librdkafka's guide begins
#: at 50 ms, 5 ms is its default; 20 ms fills a batch at any rate measured here. Where latency is measured it is less.
LINGER_MS = float(os.environ.get("BENCHMARK_LINGER_MS", "20"))


#: Of each system's group member. The embedded broker makes everybody who joins wait for half of it.
SESSION_TIMEOUT_S = 6


@dataclass(frozen=True)
class Job:
    """What one worker is told: where to read, where to write, as which group, which workload, with which model.

    `model` is the file, or for the workload ``flights`` the folder of its three models.
    """

    broker: str
    input_topic: str
    output_topic: str
    group: str
    workload: str
    model: Path
    workdir: Path

    @classmethod
    def from_command_line(cls) -> Job:
        """Read the job from the command line, the same for every system."""
        parser = argparse.ArgumentParser()
        for name in ("broker", "input-topic", "output-topic", "group", "workload"):
            parser.add_argument(f"--{name}", required=True)
        for name in ("model", "workdir"):
            parser.add_argument(f"--{name}", required=True, type=Path)
        return cls(**vars(parser.parse_args()))


def open_session(model: Path) -> ort.InferenceSession:
    """Return the model, opened alike by every system: one thread, which does not spin while it waits."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])

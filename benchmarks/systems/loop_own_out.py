"""The hand-written loop with modelstream's decoder and its encoder: both move the same bytes, in and out.

An output has modelstream's id, the key and the event time, which the loop then has to ask each record for.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from benchmarks.systems.common import Job
from benchmarks.systems.loop import run
from benchmarks.systems.loop_own import open_own_model
from confluent_kafka import Message

from modelstream.operators.batch import EventBatch, Lineage, ModelOutput
from modelstream.operators.encode import PredictionEncoder


def main() -> None:
    job = Job.from_command_line()
    score, encoder = open_own_model(job), PredictionEncoder(f"{job.group} score model@1")

    def outputs(messages: Sequence[Message]) -> list[str]:
        ids, values = score([message.value() for message in messages])
        times_ms = np.array([message.timestamp()[1] for message in messages], np.int64)
        batch = EventBatch(
            keys=[message.key() for message in messages],
            ids=ids,
            event_times=times_ms.view("datetime64[ms]"),
            events=[{}] * len(ids),
            lineage=Lineage.of_source(None, len(ids)),
        )
        batch.outputs["model"] = ModelOutput("1", {"value": values[:, 0] if values.shape[1] == 1 else values})
        return encoder.encode(batch)

    run(job, outputs, take=list)


if __name__ == "__main__":
    main()

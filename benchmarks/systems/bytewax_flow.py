"""Bytewax with its own Kafka connectors: `flat_map_batch` scores what the source has read in one model call.

Its guide's page on performance advises `flat_map_batch` for work that costs much by the call. Recovery is on, as its
page on recovery shows: where the source stands goes into a SQLite file once a second, after the sink has flushed. That
is its at-least-once. No offset goes to Kafka: to have the client commit by itself would lose events in a crash, as its
page on Kafka says.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import bytewax.operators as op
from benchmarks.systems.common import ACKS, COMMIT_INTERVAL_S, LINGER_MS, Job
from benchmarks.systems.scoring import open_score
from bytewax.connectors.kafka import KafkaSink, KafkaSinkMessage, KafkaSource, KafkaSourceMessage
from bytewax.dataflow import Dataflow
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.run import cli_main

#: Most records per model call: the default. The sink flushes after each batch, and still larger ones are slower.
BATCH = 1000


def _flow(job: Job) -> Dataflow:
    score = open_score(job)

    def score_batch(messages: list[KafkaSourceMessage]) -> list[KafkaSinkMessage]:
        return [KafkaSinkMessage(None, output) for output in score([message.value for message in messages])]

    reading = {"fetch.queue.backoff.ms": "10", "fetch.wait.max.ms": "20", "check.crcs": "false"}
    writing = {
        "acks": ACKS,
        "compression.type": "none",
        "linger.ms": str(LINGER_MS),
        "queue.buffering.max.messages": "500000",
    }
    flow = Dataflow("score")
    source = KafkaSource([job.broker], [job.input_topic], batch_size=BATCH, add_config=reading)
    messages = op.input("read", flow, source)
    outputs = op.flat_map_batch("score", messages, score_batch)
    op.output("write", outputs, KafkaSink([job.broker], job.output_topic, add_config=writing))
    return flow


def _new_recovery(folder: Path) -> RecoveryConfig:
    folder.mkdir()
    init_db_dir(folder, 1)
    return RecoveryConfig(folder)


def main() -> None:
    job = Job.from_command_line()
    cli_main(
        _flow(job),
        workers_per_process=1,
        epoch_interval=timedelta(seconds=COMMIT_INTERVAL_S),
        recovery_config=_new_recovery(job.workdir / "recovery"),
    )


if __name__ == "__main__":
    main()

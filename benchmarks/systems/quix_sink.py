"""Quix Streams against its grain: a `BatchingSink` that scores, and produces by a producer of its own.

Twice as fast as `quix.py`, because model and producer are called in batches. A sink is Quix's door to databases and
files, though: what it writes is outside of the dataframe, its serialisers and its delivery guarantee. So this is not
the system called ``quix``, but anybody may compare with it.
"""

from __future__ import annotations

from benchmarks.systems.common import ACKS, COMMIT_INTERVAL_S, LINGER_MS, SESSION_TIMEOUT_S, Job
from benchmarks.systems.scoring import open_score
from confluent_kafka import KafkaError, KafkaException, Message, Producer
from quixstreams import Application
from quixstreams.sinks import BatchingSink, SinkBatch

#: Most records per model call.
BATCH = 1024


def _fail(error: KafkaError | None, _: Message) -> None:
    raise KafkaException(error)


class ScoringSink(BatchingSink):  # type: ignore[misc] # not installed where mypy runs
    """Scores the events of a checkpoint in batches; Quix commits after `write` has returned."""

    def __init__(self, job: Job) -> None:
        super().__init__()
        self._score = open_score(job)
        self._topic = job.output_topic
        self._producer = Producer(
            {
                "bootstrap.servers": job.broker,
                "acks": ACKS,
                "compression.type": "none",
                "linger.ms": LINGER_MS,
                "queue.buffering.max.messages": 500_000,
                "on_delivery": _fail,
                "delivery.report.only.error": True,
            }
        )

    def write(self, batch: SinkBatch) -> None:
        """Score what one partition brought since the last commit, and wait until the broker has the outputs."""
        for items in batch.iter_chunks(BATCH):
            for output in self._score([item.value for item in items]):
                self._producer.produce(self._topic, output)
            self._producer.poll(0)
        if self._producer.flush(30):
            raise RuntimeError("the broker did not take the outputs within 30 s")


def main() -> None:
    job = Job.from_command_line()
    app = Application(
        broker_address=job.broker,
        consumer_group=job.group,
        auto_offset_reset="earliest",
        commit_interval=COMMIT_INTERVAL_S,
        # A sink writes at every commit: by time alone it would gather 60 000 events, and nothing would run meanwhile.
        commit_every=20_000,
        auto_create_topics=False,
        state_dir=job.workdir / "state",
        consumer_extra_config={
            "session.timeout.ms": SESSION_TIMEOUT_S * 1000,
            "fetch.queue.backoff.ms": 10,
            "fetch.wait.max.ms": 20,
            "check.crcs": False,
        },
        loglevel="WARNING",
    )
    source = app.topic(job.input_topic, value_deserializer="bytes")
    app.dataframe(source).sink(ScoringSink(job))
    app.run()


if __name__ == "__main__":
    main()

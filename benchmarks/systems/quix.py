"""Quix Streams as its guide shows it: `apply` to one event after the other, then `to_topic`.

Its ways to batch do not fit the job: count windows are kept per key in a state store, and sinks end a dataframe (see
`quix_sink.py`).
"""

from __future__ import annotations

from benchmarks.systems.common import ACKS, COMMIT_INTERVAL_S, LINGER_MS, SESSION_TIMEOUT_S, Job
from benchmarks.systems.scoring import open_score
from quixstreams import Application


def main() -> None:
    job = Job.from_command_line()
    score = open_score(job)
    app = Application(
        broker_address=job.broker,
        consumer_group=job.group,
        auto_offset_reset="earliest",
        commit_interval=COMMIT_INTERVAL_S,
        auto_create_topics=False,
        state_dir=job.workdir / "state",
        consumer_extra_config={
            "session.timeout.ms": SESSION_TIMEOUT_S * 1000,
            "fetch.queue.backoff.ms": 10,
            "fetch.wait.max.ms": 20,
            "check.crcs": False,
        },
        producer_extra_config={"acks": ACKS, "compression.type": "none", "linger.ms": LINGER_MS},
        loglevel="WARNING",
    )
    # Bytes in and out: orjson is faster than the JSON of its own serialisers.
    source = app.topic(job.input_topic, value_deserializer="bytes")
    target = app.topic(job.output_topic, value_serializer="bytes")
    # Expanded: a cancelled flight has no output.
    app.dataframe(source).apply(lambda value: score([value]), expand=True).to_topic(target)
    app.run()


if __name__ == "__main__":
    main()

"""Kafka Streams with ONNX Runtime for Java: source, score, sink, a record at a time. Its code: `java/kafka-streams/`.

At-least-once is its default: a commit flushes the producer first. A processor that gathers records for one model call
is outside of that guarantee (see `ScoreBatches.java`), so it is a system of its own, `kafka-streams-batch`.
"""

from __future__ import annotations

import os
from pathlib import Path

from benchmarks.systems.common import ACKS, COMMIT_INTERVAL_S, LINGER_MS, SESSION_TIMEOUT_S, Job

_BUILT = Path(__file__).resolve().parents[1] / "java" / "kafka-streams" / "target"

_NEVER_MS = 2**62

#: A fixed heap, so that Java does not take a quarter of the machine's memory because it is there; and the collector for
#: throughput, with which an event takes a tenth less CPU than with G1.
_JAVA_OPTIONS = ("-Xms512m", "-Xmx512m", "-XX:+UseParallelGC", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn")


def properties(job: Job, *, batched: bool) -> dict[str, object]:
    """Return what `Worker.java` reads. Kafka's clients refuse a fraction where they want a whole number."""
    commit_ms = int(COMMIT_INTERVAL_S * 1000)
    return {
        "application.id": job.group,
        "bootstrap.servers": job.broker,
        "state.dir": job.workdir / "state",
        "num.stream.threads": 1,
        "commit.interval.ms": _NEVER_MS if batched else commit_ms,
        "main.consumer.session.timeout.ms": SESSION_TIMEOUT_S * 1000,
        "main.consumer.auto.offset.reset": "earliest",
        "main.consumer.check.crcs": "false",
        "producer.acks": ACKS,
        "producer.compression.type": "none",
        "producer.linger.ms": int(LINGER_MS),
        # The default of 16 KB holds 200 outputs; librdkafka's is 1 MB.
        "producer.batch.size": 1_000_000,
        "model": job.model,
        "input": job.input_topic,
        "output": job.output_topic,
        "batched": str(batched).lower(),
        "commit.request.ms": commit_ms,
    }


def main(batched: bool = False) -> None:
    job = Job.from_command_line()
    file = job.workdir / "worker.properties"
    file.write_text("".join(f"{name}={value}\n" for name, value in properties(job, batched=batched).items()))
    java = ["java", *_JAVA_OPTIONS, f"-Djava.io.tmpdir={job.workdir}", "-cp", f"{_BUILT}/worker.jar:{_BUILT}/jars/*"]
    # This process becomes the worker: who measures it measures Java alone.
    os.execvp("java", [*java, "benchmarks.Worker", str(file)])


if __name__ == "__main__":
    main()

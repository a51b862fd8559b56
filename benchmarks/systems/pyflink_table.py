"""PyFlink: a query of the Table API from Kafka to Kafka, with a vectorized function that scores Arrow batches.

Its guide's page *Vectorized User-defined Functions* shows it: a Pandas series in, one of as many values out, and Flink
makes the batches. Checkpoints are on, one a second, at least once; with them its source commits the offsets. All of it
is one local cluster, in a JVM that this process starts; the function runs in this process.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from benchmarks.systems.common import ACKS, COMMIT_INTERVAL_S, LINGER_MS, Job

_JARS = Path(__file__).resolve().parents[1] / "java" / "pyflink" / "target" / "jars"

#: As for Kafka Streams; twice the heap, since Flink's own buffers are in it as well.
_JAVA_OPTIONS = "-Xms1g -Xmx1g -XX:+UseParallelGC"

#: Rows, and milliseconds, after which all that are under way are waited for. With the default of 1,000 rows it is half
#: as fast. Where latency is measured the time is less than the default, which is a second.
_BUNDLE, _BUNDLE_MS = 100_000, 10 if LINGER_MS <= 1 else 1000


def settings(job: Job, python: str) -> dict[str, object]:
    """Return what Flink is told."""
    return {
        "parallelism.default": 1,
        "pipeline.jars": ";".join(f"file://{jar}" for jar in sorted(_JARS.glob("*.jar"))),
        "pipeline.object-reuse": "true",
        "execution.checkpointing.interval": f"{COMMIT_INTERVAL_S:g} s",
        "execution.checkpointing.mode": "AT_LEAST_ONCE",
        "execution.checkpointing.dir": f"file://{job.workdir}/checkpoints",
        "python.executable": python,
        "python.client.executable": python,
        "python.fn-execution.bundle.size": _BUNDLE,
        "python.fn-execution.bundle.time": _BUNDLE_MS,
    }


def _table(name: str, options: dict[str, object]) -> str:
    said = ", ".join(f"'{key}' = '{value}'" for key, value in options.items())
    return f"CREATE TABLE {name} (record BYTES) WITH ('connector' = 'kafka', 'format' = 'raw', {said})"


def tables(job: Job) -> tuple[str, str]:
    """Return the statements that create the tables `events` and `outputs`."""
    source = {
        "topic": job.input_topic,
        "properties.bootstrap.servers": job.broker,
        "properties.group.id": job.group,
        "properties.check.crcs": "false",
        "scan.startup.mode": "earliest-offset",
    }
    sink = {
        "topic": job.output_topic,
        "properties.bootstrap.servers": job.broker,
        "properties.acks": ACKS,
        "properties.compression.type": "none",
        "properties.linger.ms": int(LINGER_MS),
        # As for Kafka Streams: the default of 16 KB holds 200 outputs.
        "properties.batch.size": 1_000_000,
        "sink.delivery-guarantee": "at-least-once",
    }
    return _table("events", source), _table("outputs", sink)


def _function(job: Job) -> Any:
    import pandas as pd
    from benchmarks.systems.scoring import Score, open_score
    from pyflink.table import DataTypes
    from pyflink.table.udf import FunctionContext, ScalarFunction, udf

    class Scored(ScalarFunction):
        """Made here, sent to where it runs, and opened there."""

        def open(self, context: FunctionContext) -> None:
            self._score: Score = open_score(job)

        def eval(self, records: pd.Series) -> pd.Series:
            return pd.Series(self._score(records.tolist()), dtype=object)

    return udf(Scored(), result_type=DataTypes.BYTES(), func_type="pandas")


def main() -> None:
    job = Job.from_command_line()
    # Both are read when pyflink starts its JVM.
    os.environ["JVM_ARGS"] = f"{_JAVA_OPTIONS} -Djava.io.tmpdir={job.workdir}"
    os.environ["FLINK_LOG_DIR"] = str(job.workdir)
    from pyflink.common import Configuration
    from pyflink.table import EnvironmentSettings, TableEnvironment

    config = Configuration()
    for name, value in settings(job, sys.executable).items():
        config.set_string(name, str(value))
    streaming = EnvironmentSettings.new_instance().in_streaming_mode().with_configuration(config).build()
    table = TableEnvironment.create(streaming)
    table.create_temporary_function("score", _function(job))
    for statement in tables(job):
        table.execute_sql(statement)
    table.execute_sql("INSERT INTO outputs SELECT score(record) FROM events").wait()


if __name__ == "__main__":
    main()

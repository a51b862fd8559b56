"""Stock Faust: an agent that takes 256 events at a time, scores them in one call, and sends each prediction.

`take` is faster here than the plain `async for event in stream` (`TAKE = 0`), because the model is called once for many
events; everything before and after the call is still paid per event.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import faust
from benchmarks.systems.common import ACKS, COMMIT_INTERVAL_S, SESSION_TIMEOUT_S, Job
from benchmarks.systems.scoring import open_score

#: Events scored together; 0 scores each on its own.
TAKE = 256

#: Seconds after which a batch that is not full goes on.
WITHIN_S = 0.1


def _app(job: Job) -> Any:
    return faust.App(
        job.group,
        broker=f"kafka://{job.broker}",
        store="memory://",
        datadir=job.workdir / "faust",
        broker_session_timeout=SESSION_TIMEOUT_S,
        broker_heartbeat_interval=SESSION_TIMEOUT_S / 3,
        broker_commit_interval=COMMIT_INTERVAL_S,
        consumer_auto_offset_reset="earliest",
        producer_acks={"all": -1}[ACKS],  # Faust knows numbers only
        producer_compression_type=None,
        # aiokafka batches what piles up during a request; to wait on top makes it no faster.
        producer_linger=0,
        # The topics are there. Web server and leader topic are off: they are no part of the job.
        topic_allow_declare=False,
        topic_disable_leader=True,
        web_enabled=False,
    )


def main() -> None:
    job = Job.from_command_line()
    score_all = open_score(job)
    app = _app(job)
    source = app.topic(job.input_topic, value_type=bytes, value_serializer="raw")
    target = app.topic(job.output_topic, value_type=bytes, value_serializer="raw")

    async def score(values: Sequence[bytes]) -> None:
        for output in score_all(values):
            await target.send(value=output)

    @app.agent(source)  # type: ignore[untyped-decorator]
    async def agent(stream: Any) -> None:
        if TAKE:
            async for values in stream.take(TAKE, within=WITHIN_S):
                await score(values)
        else:
            async for value in stream:
                await score([value])

    sys.argv[1:] = ["worker", "--without-web", "--loglevel", "warn"]
    app.main()


if __name__ == "__main__":
    main()

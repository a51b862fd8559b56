"""The process that sends at a rate: each record when it is due, whatever becomes of those before it (open loop).

``python -m benchmarks.generator BROKER TOPIC WORKLOAD FIRST N RATE LINGER_MS`` sends N records from number FIRST on,
and prints what `sending.Sent` holds. A rate of 0 is as fast as it can.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from itertools import islice
from typing import Any

from benchmarks.cluster import PARTITIONS
from benchmarks.workloads import WORKLOADS
from confluent_kafka import KafkaException, Producer

__all__ = ["main"]

#: How long it sleeps when nothing is due.
_TICK_S = 0.0005

#: Between readiness and the first record.
_LEAD_S = 0.2


def _fail(error: Any, _: Any) -> None:
    raise KafkaException(error)


def _send(producer: Producer, topic: str, records: Sequence[bytes], rate: float) -> tuple[float, float]:
    """Send all records, and return when the first was due, in seconds since 1970, and how late the latest was."""
    start_s = time.time() + (_LEAD_S if rate else 0)
    sent, late_s = 0, 0.0
    while sent < len(records):
        now_s = time.time() - start_s
        due = len(records) if rate == 0 else min(int(now_s * rate) + 1, len(records)) if now_s >= 0 else 0
        if due > sent and rate:
            late_s = max(late_s, now_s - sent / rate)
        while sent < due:
            try:
                producer.produce(topic, records[sent], partition=sent % PARTITIONS)
                sent += 1
            except BufferError:
                producer.poll(0.01)
        producer.poll(0)
        time.sleep(_TICK_S)
    return start_s, late_s


def main(broker: str, topic: str, workload: str, first: str, n: str, rate: str, linger_ms: str) -> None:
    records = list(islice(WORKLOADS[workload].records(int(first) + int(n)), int(first), None))
    producer = Producer(
        {
            "bootstrap.servers": broker,
            "acks": "all",
            "linger.ms": float(linger_ms),
            "queue.buffering.max.messages": 1_000_000,
            "queue.buffering.max.kbytes": 1_000_000,
            "on_delivery": _fail,
            "delivery.report.only.error": True,
        }
    )
    producer.list_topics(topic, 10)  # connected before the first is due
    start_s, late_s = _send(producer, topic, records, float(rate))
    if left := producer.flush(60):
        sys.exit(f"{left} records were not acknowledged within 60 s")
    sent_per_s = int(n) / (time.time() - start_s)
    print(json.dumps({"start_s": start_s, "late_ms": round(late_s * 1000, 3), "sent_per_s": round(sent_per_s, 1)}))


if __name__ == "__main__":
    main(*sys.argv[1:])

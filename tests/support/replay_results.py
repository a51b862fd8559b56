"""Results of replays that never were, for what is done with results."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

from modelstream.streams.replay.result import Environment, Latency, ReplayResult, Sample, StageFigures

LATENCY = Latency(n=20_000, mean_ms=2.9, p50_ms=2.7, p90_ms=4.3, p99_ms=6.4, p999_ms=19.4, max_ms=120.9)


def make_result(**changes: Any) -> ReplayResult:
    """Return a result with data for every plot, in which nothing went wrong."""
    curve = [(100 * (1 - 2 ** (-k / 5)), 1 + k / 50 + 0.005 * math.exp(k / 7)) for k in range(70)]
    values: dict[str, Any] = {
        "events": 20_000, "events_per_s": 1990.0, "p50_ms": 2.7, "p90_ms": 4.3, "p99_ms": 6.4, "p999_ms": 19.4,
        "max_ms": 120.9, "max_lag": 57, "mean_batch": 8.2, "cache_hit_rate": None, "cpu_us_per_event": 41.3,
        "peak_rss_mb": 322.4, "predictions": 19_500, "dead_letters": 0, "filtered": 500, "missing": 0, "duplicates": 0,
        "answers_per_s": 1995.0, "seconds": 10.05, "pipeline": "flights/pipeline.yaml", "file": "flights.ndjson",
        "speed": "60x", "arrivals": "recorded", "workers": 1, "partitions": 2, "warm_up": 0.1,
        "started_at": datetime(2026, 1, 2, 3, 4, 5, 678, UTC), "latency_clock": "log_append_time",
        "max_send_delay_ms": 1.25, "p99_send_delay_ms": 0.2, "append_latency": LATENCY, "consumer_latency": LATENCY,
        "latency_curve": (*curve, (100.0, 120.9)),
        "series": tuple(_sample(i) for i in range(1, 51)),
        "stages": (
            StageFigures(
                step_id="delay", batches=2378, rows=19_500, mean_rows=8.2, sizes={1: 400, 8: 1200, 16: 700, 64: 78},
                close_reasons={"idle": 2300, "size": 70, "drain": 8}, mean_queued_ms=0.31, mean_service_ms=0.42,
            ),
        ),
        "environment": Environment(
            cpu="A processor", cpus=2, memory_gb=24.0, system="Linux", python="3.12",
            versions={"modelstream": "0.1.0", "numpy": "2.3"}, broker="embedded",
        ),
    }  # fmt: skip
    return ReplayResult.model_validate(values | changes)


def _sample(i: int) -> Sample:
    wave = 1 + math.sin(i / 5) / 3
    known = i % 13 != 0  # some intervals have no prediction
    return Sample(
        time_s=i / 5, sent=400 * i, answered=400 * i - 20, lag=20 + i % 7, sent_per_s=2000 * wave,
        answered_per_s=1980 * wave, p50_ms=2.7 * wave if known else None, p99_ms=6.4 * wave if known else None,
        cpu_percent=40 * wave, rss_mb=290 + i / 2,
    )  # fmt: skip

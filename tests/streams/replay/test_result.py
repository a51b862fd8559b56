from datetime import UTC, datetime

import orjson
import pytest

from modelstream.models.errors import ConfigError
from modelstream.operators.cache_counters import CacheCounters
from modelstream.streams.replay.result import Environment, Latency, ReplayResult, Sample, StageFigures

LATENCY = Latency(n=3, mean_ms=2.0, p50_ms=1.5, p90_ms=2.5, p99_ms=3.5, p999_ms=4.5, max_ms=5.5)
FLAT = [
    "events", "events_per_s", "p50_ms", "p90_ms", "p99_ms", "p999_ms", "max_ms", "max_lag", "mean_batch",
    "cache_hit_rate", "cpu_us_per_event", "peak_rss_mb",
]  # fmt: skip


def result(**changes: object) -> ReplayResult:
    values: dict[str, object] = {
        "events": 4, "events_per_s": 1000.0, "p50_ms": 1.5, "p90_ms": 2.5, "p99_ms": 3.5, "p999_ms": 4.5,
        "max_ms": 5.5, "max_lag": 2, "mean_batch": 1.5, "cache_hit_rate": None, "cpu_us_per_event": None,
        "peak_rss_mb": 120.5, "predictions": 3, "dead_letters": 1, "filtered": 0, "missing": 0, "duplicates": 0,
        "answers_per_s": 1200.0, "seconds": 0.004, "pipeline": "p.yaml", "file": "f.ndjson", "speed": "60x",
        "arrivals": "recorded", "workers": 1, "partitions": 2, "warm_up": 0.25,
        "started_at": datetime(2026, 1, 2, 3, 4, 5, 678, UTC), "latency_clock": "log_append_time",
        "max_send_delay_ms": 0.25, "p99_send_delay_ms": 0.2, "append_latency": LATENCY, "consumer_latency": LATENCY,
        "latency_curve": ((0.0, 1.0), (100.0, 5.5)),
        "series": (Sample(time_s=0.5, sent=4, answered=4, lag=0, sent_per_s=8.0, answered_per_s=8.0),),
        "stages": (
            StageFigures(
                step_id="score", batches=2, rows=3, mean_rows=1.5, sizes={1: 1, 2: 1}, close_reasons={"idle": 2},
                cache=CacheCounters(hits=1, memory_hits=1, misses=2, level="memory"),
            ),
        ),
        "environment": Environment(
            cpu="c", cpus=2, memory_gb=1.5, system="s", python="3.12", versions={"numpy": "2"}, broker="embedded"
        ),
    }  # fmt: skip
    return ReplayResult.model_validate(values | changes)


def test_a_result_goes_to_json_and_back() -> None:
    written = result()
    assert ReplayResult.from_json(written.to_json()) == written


def test_the_figures_stand_flat_at_the_top_in_their_order() -> None:
    assert list(orjson.loads(result().to_json()))[: len(FLAT)] == FLAT


def test_what_was_not_measured_is_null() -> None:
    assert orjson.loads(result().to_json())["cache_hit_rate"] is None


@pytest.mark.parametrize(
    ("text", "said"),
    [(b"{", "is no JSON"), (b"{}", "is no result of a replay: events: field required"), (b"[1]", "is no result")],
)
def test_another_file_is_refused(text: bytes, said: str, tmp_path) -> None:
    file = tmp_path / "other.json"
    file.write_bytes(text)
    with pytest.raises(ConfigError, match=said) as caught:
        ReplayResult.read(file)
    assert str(file) in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path) -> None:
    with pytest.raises(ConfigError, match=r"gone\.json: cannot be read: No such file"):
        ReplayResult.read(tmp_path / "gone.json")


def test_complete_means_each_event_answered_once() -> None:
    assert result().complete
    assert not result(missing=1).complete
    assert not result(duplicates=1).complete
    assert result(missing=None).complete

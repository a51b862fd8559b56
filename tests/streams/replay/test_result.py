import orjson
import pytest
from support.replay_results import make_result

from modelstream.models.errors import ConfigError
from modelstream.operators.cache_counters import CacheCounters
from modelstream.streams.replay.result import ReplayResult

FLAT = [
    "events", "events_per_s", "p50_ms", "p90_ms", "p99_ms", "p999_ms", "max_ms", "max_lag", "mean_batch",
    "cache_hit_rate", "cpu_us_per_event", "peak_rss_mb",
]  # fmt: skip


def test_a_result_goes_to_json_and_back() -> None:
    cache = CacheCounters(hits=1, memory_hits=1, misses=2, level="memory")
    stage = make_result().stages[0].model_copy(update={"cache": cache})
    written = make_result(stages=(stage,), seed=7, interrupted=True)
    assert ReplayResult.from_json(written.to_json()) == written


def test_the_figures_stand_flat_at_the_top_in_their_order() -> None:
    assert list(orjson.loads(make_result().to_json()))[: len(FLAT)] == FLAT


def test_what_was_not_measured_is_null() -> None:
    assert orjson.loads(make_result().to_json())["cache_hit_rate"] is None


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

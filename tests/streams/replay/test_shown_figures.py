"""What is printed, and what the page shows, are the very figures of the result, each under its own name."""

from __future__ import annotations

import re
from typing import Any

import pytest
from support.replay_results import make_result

from modelstream.operators.cache_counters import CacheCounters
from modelstream.streams.cli.replay_text import print_result
from modelstream.streams.replay.report import Origin, _headline, to_html
from modelstream.streams.replay.result import Latency, ReplayResult

#: No two figures are alike, not even where a factor of 1,000 is lost.
APPEND = Latency(n=19_000, mean_ms=21.1, p50_ms=12.3, p90_ms=23.4, p99_ms=34.5, p999_ms=45.6, max_ms=567.8)
CONSUMER = Latency(n=19_000, mean_ms=22.2, p50_ms=13.1, p90_ms=24.2, p99_ms=35.3, p999_ms=46.4, max_ms=578.9)


def shown_result(**changes: Any) -> ReplayResult:
    flat = APPEND.model_dump(exclude={"n", "mean_ms"})
    figures: dict[str, Any] = {
        "events": 25_431, "predictions": 24_007, "filtered": 1_203, "dead_letters": 217, "missing": 4, "duplicates": 9,
        "events_per_s": 2_718.0, "answers_per_s": 3_141.0, "max_lag": 87, "mean_batch": 6.25, "cpu_us_per_event": 41.37,
        "peak_rss_mb": 322.0, "p99_send_delay_ms": 0.4, "max_send_delay_ms": 1.7, "machine_cpu_us_per_event": 250.0,
    }  # fmt: skip
    return make_result(**flat, append_latency=APPEND, consumer_latency=CONSUMER, **figures | changes)


def test_the_text_shows_each_figure_under_its_name(capsys: pytest.CaptureFixture[str]) -> None:
    cache = CacheCounters(hits=50, duplicates=10, coalesced=5, misses=30, bypassed=5)
    stage = shown_result().stages[0].model_copy(update={"mean_rows": 6.3, "cache": cache})
    print_result(shown_result(stages=(stage,)))
    lines = capsys.readouterr().out.splitlines()
    of = {what: value for value, _, what in (line.strip().partition("  ") for line in lines)}

    def value_of(start: str) -> str:
        [found] = [value for what, value in of.items() if what.startswith(start)]
        return found

    names = ("events in", "predictions out", "filtered", "dead letters", "missing", "duplicate")
    assert list(map(value_of, names)) == ["25,431", "24,007", "1,203", "217", "4", "9"]
    assert (value_of("events per second"), value_of("predictions per second")) == ("2,718", "3,141")
    assert (value_of("events waiting"), value_of("rows in a micro-batch of delay")) == ("87", "6.3")
    assert (value_of("µs of CPU per event"), value_of("MB of memory")) == ("41.37", "322")
    # 250 µs of 25,431 events, of two processors for 10.05 s
    assert (value_of("of the 2 processors"), value_of("of its rows had")) == ("32%", "65.0%")
    assert value_of("ms that the generator was behind, p99 / max") == "0.4 / 1.7"
    [heads, *rows] = [line.split() for line in lines if "p99.9" in line or "on Kafka" in line or "consumer" in line]
    assert heads[-5:] == ["p50", "p90", "p99", "p99.9", "max"]
    assert [row[-5:] for row in rows] == [
        ["12.3", "23.4", "34.5", "45.6", "568"],
        ["13.1", "24.2", "35.3", "46.4", "579"],
    ]


def test_the_page_shows_each_figure_under_its_name() -> None:
    page = to_html(shown_result(), Origin("modelstream replay", "pipeline: p"))
    big = dict(re.findall(r"<dt>(.*?)</dt><dd class=\"value\">(.*?)</dd>", page))
    told = {"Throughput": "2,718/s", "p50": "12.3 ms", "p99": "34.5 ms", "p99.9": "45.6 ms", "Highest lag": "87"}
    told |= {"CPU per event": "41.4 µs", "Peak memory": "322 MB", "Mean batch": "6.25"}
    assert big == told
    rows = dict(re.findall(r"<tr><th scope=\"row\">(.*?)</th>((?:<td>.*?</td>)+)</tr>", page))
    cells = {name: re.findall(r"<td>(.*?)</td>", row) for name, row in rows.items()}
    for name, count in (
        ("Events sent", "25,431"), ("Predictions", "24,007"), ("Dead letters", "217"), ("Filtered", "1,203"),
        ("Missing", "4"), ("Duplicates", "9"),
    ):  # fmt: skip
        assert cells[name] == [count]
    by_name = {name: cells[name] for name in ("mean", "p50", "p90", "p99", "p99.9", "max")}
    assert by_name == {
        "mean": ["21.1", "22.2"], "p50": ["12.3", "13.1"], "p90": ["23.4", "24.2"], "p99": ["34.5", "35.3"],
        "p99.9": ["45.6", "46.4"], "max": ["568", "579"],
    }  # fmt: skip
    assert cells["Steady rate"][0].startswith("3,141/s")
    assert re.search(r"^0\.4 ms .*max 1\.7 ms", cells["Generator"][0])
    *_, last = _headline(shown_result(cache_hit_rate=0.65))
    assert (last.name, last.value) == ("Cache hits", "65.0 %")

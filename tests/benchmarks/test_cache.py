from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from benchmarks import cache
from click.testing import CliRunner


def test_few_keys_are_frequent_and_many_are_rare() -> None:
    keys = cache.zipf_keys(100_000, 1000, 1.1, np.random.default_rng(1))
    counts = np.bincount(keys, minlength=1000)
    assert counts.argmax() == 0
    assert counts[0] / counts[9] == pytest.approx(10**1.1, rel=0.1)
    assert (counts[500:] > 0).mean() > 0.9


@pytest.mark.redis
def test_a_short_run(redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "_N_KEYS", 5000)
    file = tmp_path / "result.json"
    arguments = ["--rows", "50000", "--rounds", "1", "--redis", redis_url, "--json", str(file)]
    result = CliRunner().invoke(cache.main, arguments)
    assert result.exit_code == 0, result.output
    found = json.loads(file.read_text())
    assert [run["stream"] for run in found["runs"]] == ["zipf", "unique"]
    assert all(run["ratio"] > 0 for run in found["runs"])
    assert found["runs"][1]["counters"]["hits"] == 0
    assert set(found["summary"]) == {"memory_hit_us", "redis_hit_us", "zipf", "unique"}


@pytest.mark.parametrize(
    ("zipf", "unique", "what"),
    [
        (2.0, 0.97, None),
        (1.9999, 0.97, "zipf: ratio 1.9999 is below 2"),
        (3.0, 0.9699, "unique: ratio 0.9699 is below 0.97"),
        (float("nan"), 0.5, "zipf: ratio nan is below 2; unique: ratio 0.5000 is below 0.97"),
    ],
)
def test_the_check_names_what_was_missed(zipf: float, unique: float, what: str | None) -> None:
    assert cache.missed({"zipf": {"ratio": zipf}, "unique": {"ratio": unique}}) == what


@pytest.mark.parametrize(("options", "exit_code"), [([], 0), (["--check"], 1)])
def test_only_with_the_check_does_a_miss_fail(
    monkeypatch: pytest.MonkeyPatch, options: list[str], exit_code: int
) -> None:
    counters = {"hits": 1, "misses": 1, "duplicates": 0, "coalesced": 0, "bypassed": 0, "level": "full"}
    monkeypatch.setattr(cache, "_compare", lambda _, __, stream, ___: cache.Run(stream, 2, 1, 1, 1, 1, 1, counters))
    monkeypatch.setattr(cache, "_hit_us", lambda *_: 1.0)
    arguments = ["--rows", "1", "--rounds", "1", "--redis", "redis://nobody.invalid"]
    result = CliRunner().invoke(cache.main, [*arguments, *options])
    assert result.exit_code == exit_code, result.output
    assert ("Error: zipf: ratio 1.0000 is below 2" in result.output) == bool(exit_code)

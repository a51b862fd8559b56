"""``modelstream capacity``: what it says of a search, whatever replays give."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
from click.testing import CliRunner, Result
from support.replay_results import make_result

from modelstream.streams.cli import capacity
from modelstream.streams.cli.replay_setting import ReplaySetting


class Events(list[int]):
    """Stands for the events made ready."""

    def cycled(self, n_events: int) -> Events:
        """Return so many."""
        return Events(range(n_events))


@pytest.fixture
def search(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Return a function that runs the command over given results; None stands for Ctrl-C."""

    @contextmanager
    def opened(setting: ReplaySetting) -> Iterator[Any]:
        yield SimpleNamespace(partitions=1, broker_name="embedded"), Events(range(100))

    def run(*results: Any) -> Result:
        left = iter(results)
        monkeypatch.setattr(ReplaySetting, "open", opened)
        monkeypatch.setattr(
            capacity,
            "observe",
            lambda *args, **options: SimpleNamespace(
                ended_by=KeyboardInterrupt() if (one := next(left)) is None else None, of=one
            ),
        )
        monkeypatch.setattr(capacity, "sum_up", lambda observation, target, labels: observation.of)
        return CliRunner().invoke(capacity.command, ["p.yaml", "e.ndjson", "--json", str(tmp_path / "out.json")])

    return run


def test_a_generator_that_is_late_each_time_ends_the_search_soon_with_advice(search: Any, tmp_path: Path) -> None:
    late = make_result(p99_ms=300.0, p99_send_delay_ms=290.0)
    done = search(*[late] * 8)
    assert done.exit_code == 1, done.output
    assert done.output.startswith(
        "p99 within 100 ms, --p99-ms to change; at most 13 rates, one to three probes of 10 s each\n"
    )
    assert "the machine is too busy, or raise --p99-ms" in done.output
    assert len(orjson.loads((tmp_path / "out.json").read_bytes())["probes"]) == 6


def test_a_rate_that_kept_up_once_of_three_times_is_not_the_result(search: Any, tmp_path: Path) -> None:
    good = make_result(p99_ms=20.0, p99_send_delay_ms=1.0, series=())
    slow = good.model_copy(update={"p99_ms": 300.0})
    done = search(good, good, good, slow, good, slow, *[good] * 99)
    assert done.exit_code == 0, done.output
    found = orjson.loads((tmp_path / "out.json").read_bytes())
    first, *again = [probe["rate_per_s"] for probe in found["probes"]]
    assert again[0] == again[1] == again[2] > first
    assert first < found["rate_per_s"] < again[0]


def test_ctrl_c_keeps_what_was_found(search: Any, tmp_path: Path) -> None:
    good = make_result(p99_ms=20.0, p99_send_delay_ms=1.0, series=())
    done = search(good, good, good, None)
    assert done.exit_code == 130, done.output
    assert "sustained so far: " in done.output
    assert "stopped before the end" in done.output
    found = orjson.loads((tmp_path / "out.json").read_bytes())
    assert found["interrupted"]
    assert found["rate_per_s"] == found["probes"][0]["rate_per_s"]

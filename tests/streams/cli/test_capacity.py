"""``modelstream capacity``: what it says of a search, whatever replays give."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import orjson
import pytest
from click.testing import CliRunner, Result
from support.replay_results import make_result

from modelstream.models.errors import ModelStreamError
from modelstream.streams.cli import capacity
from modelstream.streams.cli.replay_setting import ReplaySetting


class Events(list[int]):
    """Stands for the events made ready."""

    def cycled(self, n_events: int) -> Events:
        """Return so many."""
        return Events(range(n_events))


@pytest.fixture
def schedules() -> list[Any]:
    """Return what will hold the schedules of the replays."""
    return []


@pytest.fixture
def search(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, schedules: list[Any]) -> Any:
    """Return a function that runs the command over given results; an exception ends the replay."""

    @contextmanager
    def opened(setting: ReplaySetting) -> Iterator[Any]:
        yield SimpleNamespace(partitions=1, broker_name="embedded"), Events(range(100))

    def run(*results: Any, options: Sequence[str] = ()) -> Result:
        left = iter(results)
        monkeypatch.setattr(ReplaySetting, "open", opened)

        def observe(target: Any, events: Any, schedule: Any, **options: Any) -> Any:
            one = next(left)
            schedules.append(schedule)
            return SimpleNamespace(ended_by=one if isinstance(one, BaseException) else None, of=one)

        monkeypatch.setattr(capacity, "observe", observe)
        monkeypatch.setattr(capacity, "sum_up", lambda observation, target, labels: observation.of)
        arguments = ["p.yaml", "e.ndjson", "--json", str(tmp_path / "out.json"), *options]
        return CliRunner().invoke(capacity.command, arguments)

    return run


def test_a_generator_that_is_late_each_time_ends_the_search_soon_with_advice(search: Any, tmp_path: Path) -> None:
    late = make_result(p99_ms=300.0, p99_send_delay_ms=290.0)
    done = search(*[late] * 8)
    assert done.exit_code == 1, done.output
    assert done.output.startswith(
        "p99 within 100 ms, --p99-ms to change; after full speed, twice, at most 13 rates, "
        "one to three probes of 10 s each\n"
    )
    assert "the machine is too busy, or raise --p99-ms" in done.output
    assert len(orjson.loads((tmp_path / "out.json").read_bytes())["probes"]) == 6


def test_of_the_rate_at_full_speed_it_is_said_which_one_it_is(search: Any) -> None:
    fast = make_result(events_per_s=500.0, answers_per_s=1995.0, predictions=20_000)
    said = search(fast, fast, KeyboardInterrupt()).output
    assert "1,995 events/s at full speed, the steady rate, first 25% left out\n" in said
    most_filtered = make_result(events_per_s=5000.0, answers_per_s=1995.0)
    assert "5,000 events/s at full speed, start included\n" in search(fast, most_filtered, KeyboardInterrupt()).output


def test_a_rate_that_kept_up_once_of_three_times_is_not_the_result(
    search: Any, schedules: list[Any], tmp_path: Path
) -> None:
    good = make_result(p99_ms=20.0, p99_send_delay_ms=1.0, series=())
    slow = good.model_copy(update={"p99_ms": 300.0})
    done = search(good, good, good, slow, good, slow, *[good] * 99)
    assert done.exit_code == 0, done.output
    found = orjson.loads((tmp_path / "out.json").read_bytes())
    first, *again = [probe["rate_per_s"] for probe in found["probes"]]
    assert again[0] == again[1] == again[2] > first
    assert "not sustained: 1 of 3 probes kept up" in done.output
    second, third, fourth = (schedule.due_us for schedule in schedules[3:6])
    assert len(second) == len(third) == len(fourth)
    assert not (np.array_equal(second, third) or np.array_equal(third, fourth) or np.array_equal(second, fourth))
    assert first < found["rate_per_s"] < again[0]


def test_a_probe_has_the_events_of_its_time_and_the_result_the_cost_of_its_rate(
    search: Any, schedules: list[Any], tmp_path: Path
) -> None:
    good = make_result(answers_per_s=1000.0, p99_ms=20.0, p99_send_delay_ms=1.0, series=(), cpu_us_per_event=41.3)
    dear = good.model_copy(update={"cpu_us_per_event": 72.0})
    # From 60 % of full speed up by half: two are sustained, the third is not, nor the one between.
    results = [good, good, good, dear, *[good.model_copy(update={"duplicates": 1})] * 2]
    done = search(*results, options=["--probe-s", "4", "--price-per-core-hour", "36", "--precision", "0.4"])
    assert done.exit_code == 0, done.output
    found = orjson.loads((tmp_path / "out.json").read_bytes())
    probes = found["probes"]
    assert [round(probe["rate_per_s"]) for probe in probes] == [1194, 1791, 2686, 2194]
    assert found["full_speed_per_s"] == 1990.0
    for probe, schedule in zip(probes, schedules[2:], strict=True):
        assert len(schedule.due_us) == int(probe["rate_per_s"] * 4)
        assert schedule.due_us[-1] == pytest.approx(4e6, rel=0.1)  # at random, always the same
    # 72 µs an event are as many seconds a million; an hour of a core costs 36, so a second a hundredth.
    assert (found["rate_per_s"], found["cpu_s_per_million"]) == (1791.0, 72.0)
    assert found["cost_per_million"] == pytest.approx(0.72)
    assert "sustained: 1,791 events/s by one worker, p99 within 100 ms" in done.output
    assert "a million events: 72.00 CPU seconds of the workers, which cost 0.72" in done.output


def test_ctrl_c_keeps_what_was_found(search: Any, tmp_path: Path) -> None:
    good = make_result(p99_ms=20.0, p99_send_delay_ms=1.0, series=(), predictions=20_000)
    done = search(good, good, good, KeyboardInterrupt())
    assert done.exit_code == 130, done.output
    assert "sustained so far: " in done.output
    assert "stopped before the end" in done.output
    found = orjson.loads((tmp_path / "out.json").read_bytes())
    assert found["interrupted"]
    assert found["rate_per_s"] == found["probes"][0]["rate_per_s"]


def test_a_failure_keeps_what_was_found_too(search: Any, tmp_path: Path) -> None:
    good = make_result(p99_ms=20.0, p99_send_delay_ms=1.0, series=(), predictions=20_000)
    done = search(good, good, good, ModelStreamError("the worker ended"))
    assert isinstance(done.exception, ModelStreamError)
    assert "sustained so far: " in done.output
    found = orjson.loads((tmp_path / "out.json").read_bytes())
    assert (found["failure"], found["interrupted"]) == ("the worker ended", False)
    assert found["rate_per_s"] == found["probes"][0]["rate_per_s"]


def test_dead_letters_alone_end_the_search_at_once(search: Any) -> None:
    done = search(make_result(predictions=0, filtered=0, dead_letters=9, first_dead_letter="no time"))
    assert isinstance(done.exception, ModelStreamError)
    assert "no predictions, but dead letters, the first: no time" in str(done.exception)
    assert "no rate is sustained" not in done.output


def test_events_without_an_answer_end_it_since_a_later_probe_would_take_late_answers_for_its_own(
    search: Any, tmp_path: Path
) -> None:
    good = make_result(p99_ms=20.0, p99_send_delay_ms=1.0, series=(), predictions=20_000)
    done = search(good, good, good, good.model_copy(update={"missing": 7}))
    assert str(done.exception).startswith(
        "7 of 20,000 events had no answer when nothing had come for 30 s; give fewer with a lower --probe-s"
    )
    assert "sustained so far: " in done.output
    kept_up, ended = orjson.loads((tmp_path / "out.json").read_bytes())["probes"]
    assert (kept_up["problems"], ended["problems"]) == ([], ["7 events are missing"])
    at_full_speed = search(good, good.model_copy(update={"missing": 7}))
    assert str(at_full_speed.exception).startswith("7 of 20,000 events had no answer")


def test_a_rate_whose_generator_was_in_time_gives_the_search_hope(search: Any, tmp_path: Path) -> None:
    late = make_result(p99_ms=300.0, p99_send_delay_ms=290.0)
    slow = late.model_copy(update={"p99_send_delay_ms": 1.0})
    done = search(late, late, *[late] * 2, *[slow] * 2, *[late] * 2, *[slow] * 2, KeyboardInterrupt())
    assert done.exit_code == 130

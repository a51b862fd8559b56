"""``modelstream replay --offline``: no broker, a virtual clock, and results that are equal to the last byte."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click
import orjson
import pytest
from click.testing import CliRunner
from support.onnx_factory import affine, write_model

from modelstream.models.errors import ConfigError
from modelstream.streams.cli.replay import command
from modelstream.streams.replay.result import ReplayResult

PIPELINE = """\
pipeline: trial
source: {topic: trial.events, key: tail, event_id: id, event_time: at}
stages:
  - {id: wanted, filter: {present: [seq]}}
  - {id: score, infer: {models: [triple], batch: {max_size: 8}}}
sink: {topic: trial.predictions, dead_letter: trial.dead}
broker: nowhere.invalid:9092
"""
N = 2000


@pytest.fixture
def project(tmp_path: Path) -> tuple[Path, Path]:
    """Return a pipeline whose broker is away, and a file of events, a millisecond of event time apart."""
    write_model(tmp_path / "models", "triple", affine([3.0]), '[inputs.x]\nfields = ["seq"]\n')
    pipeline, file = tmp_path / "trial.yaml", tmp_path / "events.ndjson"
    pipeline.write_text(PIPELINE)
    events: list[dict[str, Any]] = [{"id": f"e{i}", "seq": i, "tail": "k", "at": 1000 + i} for i in range(N)]
    events[7]["seq"], events[8]["seq"] = None, "text"
    file.write_bytes(b"".join(orjson.dumps(event) + b"\n" for event in events))
    return pipeline, file


def replay(*arguments: object, code: int = 0) -> str:
    done = CliRunner().invoke(command, [*map(str, arguments), "--offline", "--no-progress"])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == code, done.output
    return done.output if code else done.stdout


def test_runs_with_the_same_costs_are_equal_to_the_last_byte(project: tuple[Path, Path], tmp_path: Path) -> None:
    first, second, costs = (tmp_path / name for name in ("first.json", "second.json", "costs.json"))
    said = replay(*project, "--speed", "1x", "--save-costs", costs, "--json", first)
    assert "by the virtual clock" in said
    assert "at 1x, as recorded" in said
    assert "Computed, not measured. Times are virtual: " in said
    assert re.search(r"events per second over all \S+ s of virtual time", said)
    replay(*project, "--speed", "1x", "--costs", costs, "--json", second)
    assert first.read_bytes() == second.read_bytes()

    result = ReplayResult.read(first)
    assert (result.events, result.predictions, result.filtered, result.dead_letters) == (N, N - 2, 1, 1)
    [(reason, n_letters)] = result.dead_letter_reasons.items()
    assert n_letters == 1
    assert f"    {reason}" in said
    assert f"the first dead letter: event 9, {reason}: " in said
    assert (result.latency_clock, result.consumer_latency and result.consumer_latency.n) == ("virtual", N * 3 // 4)
    assert result.events_per_s == pytest.approx(1000, rel=0.01)
    [stage] = result.stages
    assert stage.step_id == "score"
    assert stage.rows == N - 1
    assert sum(stage.sizes.values()) == sum(stage.close_reasons.values()) == stage.batches
    assert result.series[-1].answered == N - 1


def test_of_events_out_of_order_it_is_said_by_how_much(project: tuple[Path, Path], tmp_path: Path) -> None:
    file, out = tmp_path / "mixed.ndjson", tmp_path / "out.json"
    first, *others = project[1].read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join([*others, first]))  # the first one comes last, 1,999 ms after its time
    said = replay(project[0], file, "--speed", "2x", "--json", out)
    assert "sent at the most 1,000 ms after its own time (1,999 ms of event time)" in " ".join(said.split())
    result = ReplayResult.read(out)
    assert (result.clamped_events, result.max_clamped_ms) == (1, 999.5)


def test_costs_say_how_long_it_takes(project: tuple[Path, Path], tmp_path: Path) -> None:
    given, out = tmp_path / "costs.json", tmp_path / "out.json"
    nothing = {"fixed_s": 0.0, "per_row_s": 0.0}
    stages = {"wanted": nothing, "score": {"fixed_s": 0.004, "per_row_s": 0.0}}
    given.write_bytes(
        orjson.dumps({"fetch": nothing, "decode": nothing, "stages": stages, "produce": nothing, "linger_s": 0.001})
    )
    replay(*project, "--costs", given, "--json", out, "--warm-up", "0")
    result = ReplayResult.read(out)
    assert result.consumer_latency is not None
    assert (result.warm_up, result.consumer_latency.n) == (0.0, N - 2)
    # All at once: 1,999 rows in batches of 8, which take 4 ms each.
    assert result.stages[0].batches == 250
    assert result.seconds == pytest.approx(250 * 0.004 + 0.001)


def test_the_options_of_the_pace_are_those_of_the_result(project: tuple[Path, Path], tmp_path: Path) -> None:
    pipeline, file = project
    costs, out = tmp_path / "costs.json", tmp_path / "out.json"
    file.write_bytes(b"".join(orjson.dumps({"id": i, "seq": i, "at": at}) + b"\n" for i, at in enumerate((0, 9, 3, 9))))

    def replayed(*options: str) -> ReplayResult:
        known = ["--costs", costs] if costs.exists() else ["--save-costs", costs]
        replay(pipeline, file, *options, *known, "--json", out)
        return ReplayResult.read(out)

    even = replayed("--rate", "1000/s", "--arrivals", "even")
    assert (even.speed, even.arrivals, even.seed, even.clamped_events) == ("1000/s", "even", None, 0)
    recorded = replayed("--rate", "1000/s", "--arrivals", "recorded")
    assert (recorded.arrivals, recorded.clamped_events) == ("recorded", 1)
    first, again, other = (replayed("--rate", "1000/s", "--seed", seed) for seed in ("7", "7", "8"))
    assert (first.arrivals, first.seed, other.seed) == ("poisson", 7, 8)
    assert first == again
    assert first.series != other.series


def test_what_does_not_go_together_is_refused(project: tuple[Path, Path], tmp_path: Path) -> None:
    for options, problem in (
        (["--workers", "2"], "one worker and one partition"),
        (["--diff", project[0]], "leave --capture and --diff out"),
    ):
        done = CliRunner().invoke(command, [*map(str, (*project, *options)), "--offline"])
        assert done.exit_code == click.UsageError.exit_code
        assert problem in " ".join(done.stderr.split())
    done = CliRunner().invoke(command, [*map(str, project), "--save-costs", str(tmp_path / "x")])
    assert "are for --offline" in done.stderr
    with pytest.raises(ConfigError, match="cannot be read"):
        replay(*project, "--costs", tmp_path / "none.json")


def test_dead_letters_and_no_prediction_are_a_failure(project: tuple[Path, Path], tmp_path: Path) -> None:
    file = tmp_path / "others.ndjson"
    file.write_bytes(b'{"other": 1}\n' * 3)
    with pytest.raises(ConfigError, match="none of 3 events can be read with a time in 'at'"):
        replay(project[0], file, "--speed", "60x")
    said = replay(project[0], file, "--speed", "max", code=1)
    assert "error: No predictions. There are dead letters alone" in said

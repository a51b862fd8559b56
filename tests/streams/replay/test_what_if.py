"""What-if: predictions by hand, and that they are those of an offline run with real models."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray
from support.onnx_factory import affine, write_model
from support.replay_results import make_result

from modelstream.models.errors import ConfigError
from modelstream.streams.cli.what_if import command
from modelstream.streams.pipeline import BuiltPipeline, Pipeline, infer, load_pipeline
from modelstream.streams.replay.calibration import Calibration
from modelstream.streams.replay.costs import Costs, Line
from modelstream.streams.replay.environment import describe_environment
from modelstream.streams.replay.offline import run_offline
from modelstream.streams.replay.result_keys import stage_specs, work_options
from modelstream.streams.replay.what_if import Setting, WhatIf, at_full_speed, at_pace, grid, with_setting
from modelstream.streams.worker_limits import limits_of

MS = 1e-3
N = 600
COSTS = Costs(
    fetch=Line(fixed_s=0.05 * MS), decode=Line(per_row_s=0.001 * MS), produce=Line(per_row_s=0.002 * MS),
    stages={"weigh": Line(fixed_s=1 * MS, per_row_s=0.05 * MS)}, linger_s=1 * MS, path_out_s=2 * MS,
)  # fmt: skip
DUE_US = np.sort(np.random.default_rng(3).uniform(0, 300_000, N).astype(np.int64))
VALUES: list[bytes | None] = [orjson.dumps({"x": [i, 1]}) for i in range(N)]


def predict(
    built: BuiltPipeline, values: list[bytes | None], due_us: NDArray[np.int64], costs: Costs, setting: Setting
) -> WhatIf:
    """Predict where nothing was measured."""
    found = at_pace(built, values, due_us, setting, costs)
    return Calibration(costs, costs).what_if(setting, found, at_full_speed(built, values, setting, costs))


@pytest.fixture
def make_pipeline(tmp_path: Path) -> Callable[..., Pipeline]:
    write_model(tmp_path / "models", "weigh", affine([1.0, 2.0]), '[inputs.x]\nfield = "x"\n')

    def make(**batch: Any) -> Pipeline:
        return Pipeline("p", {"topic": "in"}, folder=tmp_path).then("weigh", infer(["weigh"], batch=batch)).to("out")

    return make


@pytest.mark.parametrize(
    "setting", [{}, {"max_size": 4}, {"max_wait_ms": 5}, {"target_p99_ms": 10}, {"in_flight": 2, "threads": 2}]
)
def test_it_is_what_an_offline_run_of_that_setting_takes(
    make_pipeline: Callable[..., Pipeline], setting: dict[str, float]
) -> None:
    found = predict(make_pipeline(max_size=64).build(), VALUES, DUE_US, COSTS, setting)
    keys = {name: value for name, value in setting.items() if name != "threads"}
    built = make_pipeline(**{"max_size": 64} | keys).build()
    # A target brings its own linger with it; else the costs know it better.
    lingers = {"linger_s": limits_of(built.spec).linger_ms * MS} if "target_p99_ms" in setting else {}
    run = run_offline(built, VALUES, [None] * N, DUE_US, COSTS.model_copy(update=lingers))
    p50, p99 = np.percentile(run.latency_s[N // 4 :] * 1000, [50, 99])
    assert (found.p50_ms, found.p99_ms) == pytest.approx((p50, p99))
    assert found.mean_batch == pytest.approx(N / len(run.batches))


def test_priorities_by_a_header_or_a_field_change_nothing_where_no_record_has_one(
    make_pipeline: Callable[..., Pipeline], tmp_path: Path
) -> None:
    plain = predict(make_pipeline().build(), VALUES, DUE_US, COSTS, {})
    for priority in ({"header": "tier"}, {"field": "tier"}):
        source: Any = {"topic": "in", "priority": priority}
        pipeline = Pipeline("p", source, folder=tmp_path).then("weigh", infer(["weigh"])).to("out")
        assert predict(pipeline.build(), VALUES, DUE_US, COSTS, {}) == plain


def test_larger_batches_give_more_throughput_and_a_wait_costs_latency(
    make_pipeline: Callable[..., Pipeline],
) -> None:
    built = make_pipeline().build()
    small, large, waiting = (
        predict(built, VALUES, DUE_US, COSTS, setting)
        for setting in grid({"max_size": [4, 64]}) + grid({"max_size": [64], "max_wait_ms": [20]})
    )
    # 1 ms and 0.05 ms a row, and 0.003 around it.
    assert small.throughput_per_s == pytest.approx(4 / (1 + 4 * 0.053) * 1000, rel=0.02)
    assert large.throughput_per_s == pytest.approx(64 / (1 + 64 * 0.053) * 1000, rel=0.02)
    assert waiting.p50_ms > large.p50_ms + 5
    assert waiting.throughput_per_s == pytest.approx(large.throughput_per_s)


def test_threads_are_what_batches_in_flight_share(make_pipeline: Callable[..., Pipeline]) -> None:
    built = make_pipeline(max_size=64, in_flight=4).build()
    one, two = (predict(built, VALUES, DUE_US, COSTS, {"threads": threads}).throughput_per_s for threads in (1, 2))
    # Of 64 rows the model takes 4.2 ms, and the rest around it 0.24, which it does not wait for.
    assert one == pytest.approx(64 / 4.2 * 1000, rel=0.03)
    assert two == pytest.approx(2 * one, rel=0.03)
    assert with_setting(built, {"threads": 3}).threads == 3


def test_the_way_through_kafka_takes_no_throughput(make_pipeline: Callable[..., Pipeline]) -> None:
    built = make_pipeline().build()
    far = COSTS.model_copy(update={"path_in_s": 0.03, "path_out_s": 0.1})
    assert predict(built, VALUES, DUE_US, far, {}).throughput_per_s == pytest.approx(
        predict(built, VALUES, DUE_US, COSTS, {}).throughput_per_s, rel=1e-3
    )


def test_a_target_brings_the_workers_shorter_linger(make_pipeline: Callable[..., Pipeline]) -> None:
    slow = COSTS.model_copy(update={"linger_s": 5 * MS})
    few_us = np.arange(N) * 20_000  # one at a time: each prediction waits for the whole linger
    free, aimed = make_pipeline().build(), make_pipeline(target_p99_ms=10).build()
    with_target = predict(free, VALUES, few_us, slow, {"target_p99_ms": 10})
    assert predict(free, VALUES, few_us, slow, {}).p50_ms - with_target.p50_ms == pytest.approx(4.5)
    quick = COSTS.model_copy(update={"linger_s": 0.5 * MS})
    without = predict(aimed, VALUES, few_us, quick, {"target_p99_ms": None})
    assert without.p50_ms - predict(aimed, VALUES, few_us, quick, {}).p50_ms == pytest.approx(4.5)


def test_what_cannot_be_asked_is_told(make_pipeline: Callable[..., Pipeline]) -> None:
    with pytest.raises(ConfigError, match="max_sise: is no setting that can be asked about; known here: max_size, "):
        grid({"max_sise": [1]})
    with pytest.raises(ConfigError, match="65 settings are too many"):
        grid({"max_size": list(range(1, 66))})
    with pytest.raises(ConfigError, match=r"batch.max_size: "):
        predict(make_pipeline().build(), VALUES, DUE_US, COSTS, {"max_size": 0})
    for threads in (0, -3, 1.5):
        with pytest.raises(ConfigError, match=r"threads: "):
            predict(make_pipeline().build(), VALUES, DUE_US, COSTS, {"threads": threads})


def test_the_command_prints_every_setting_and_marks_the_best(
    make_pipeline: Callable[..., Pipeline], tmp_path: Path
) -> None:
    pipeline, events, costs, out = (tmp_path / name for name in ("p.yaml", "e.ndjson", "costs.json", "out.json"))
    pipeline.write_text(make_pipeline().to_yaml())
    events.write_bytes(b"".join(value + b"\n" for value in VALUES if value))
    costs.write_bytes(COSTS.to_json())
    arguments = [pipeline, events, "max_size=64,512", "target_p99_ms=none,20", "--rate", "2000/s"]
    done = CliRunner().invoke(command, list(map(str, [*arguments, "--costs", costs, "--json", out])))
    assert done.exit_code == 0, done.output
    for shown in ("as it is", "least p99", "none", "64"):
        assert shown in done.stdout
    said = orjson.loads(out.read_bytes())
    assert [one["setting"] for one in said["settings"]] == [
        {"max_size": size, "target_p99_ms": target} for size in (64, 512) for target in (None, 20)
    ]
    assert said["now"]["setting"] == {}
    assert load_pipeline(pipeline).name == "p"
    measured = tmp_path / "measured.json"
    paced = {"speed": "2000/s", "arrivals": "poisson", "environment": describe_environment("embedded")}
    for changes, note in (
        (paced, "Compare events/s"),
        ({"arrivals": "max"}, "Compare p50 and p99"),
        (None, "Compare the"),
    ):
        spec = load_pipeline(pipeline).spec
        said = {"events": N, "stage_specs": stage_specs(spec), "work_options": work_options(spec)}
        measured.write_bytes(make_result(stages=(), **said, **changes or {}).to_json())
        told = [*arguments, "--costs", costs, *([] if changes is None else ["--measured", measured])]
        done = CliRunner().invoke(command, list(map(str, told)))
        assert done.stdout.splitlines()[-1].startswith(note), done.output
        assert ("measured " in done.stdout) == (changes is not None)
        is_elsewhere = changes is not None and "environment" not in changes
        assert ("note: measured on another machine (A processor, 2 proc" in done.stderr) == is_elsewhere
    for wrong, problem in (
        (["max_size"], "is no setting"),
        (["max_size=a"], "is no setting"),
        ([], "Missing argument"),
    ):
        told = CliRunner().invoke(command, list(map(str, [pipeline, events, *wrong, "--rate", "1/s"])))
        assert (told.exit_code, problem in told.stderr) == (2, True)
    assert "either --rate or --speed" in CliRunner().invoke(command, list(map(str, arguments[:3]))).stderr
    by_times = CliRunner().invoke(command, list(map(str, [*arguments[:3], "--speed", "60x", "--costs", costs])))
    assert isinstance(by_times.exception, ConfigError)
    assert str(by_times.exception).startswith("source.event_time: the pipeline names none")
    recorded = ["--speed", "60x", "--set", "source.event_time=at"]
    assert CliRunner().invoke(command, list(map(str, [*arguments[:3], *recorded, "--costs", costs]))).exit_code == 0

"""Calibration: a prediction of the setting that was measured comes to what was measured, and others move with it."""

from __future__ import annotations

from typing import Any

import pytest
from support.replay_results import make_result

from modelstream.models.errors import ConfigError
from modelstream.streams.pipeline import Pipeline, infer
from modelstream.streams.replay.arrivals import Pace
from modelstream.streams.replay.calibration import Calibration, calibrate
from modelstream.streams.replay.costs import Costs, Line
from modelstream.streams.replay.result import ReplayResult, StageFigures
from modelstream.streams.replay.result_keys import stage_specs, work_options
from modelstream.streams.replay.what_if import AtPace, WhatIf

MS = 1e-3
COSTS = Costs(
    fetch=Line(fixed_s=0.5 * MS), decode=Line(per_row_s=0.01 * MS), produce=Line(per_row_s=0.02 * MS),
    stages={"weigh": Line(fixed_s=1 * MS, per_row_s=0.05 * MS)}, path_out_s=2 * MS,
)  # fmt: skip
PACE = Pace(rate_per_s=2000)
N = 20_000
SPEC = Pipeline("p", "in").then("weigh", infer(["weigh"], batch={"max_size": 64})).to("out").spec


def _served_s(costs: Costs, rows: int) -> float:
    return sum(line.seconds(rows) for line in (costs.fetch, costs.stages["weigh"], costs.produce))


def _at_pace(costs: Costs, rows: int = 10) -> AtPace:
    """Predict as if all micro-batches had so many rows, with a p99 of twice the median."""
    p50_ms = (_served_s(costs, rows) + costs.path_out_s) * 1000
    return AtPace(p50_ms, 2 * p50_ms, rows)


def _at_full_speed(costs: Costs, rows: int = 10) -> float:
    return rows / _served_s(costs, rows)


def _calibrate(*measured: ReplayResult) -> Calibration:
    return calibrate(COSTS, _at_pace, _at_full_speed, measured, PACE, SPEC, N)


def _predict(calibration: Calibration, rows: int = 10) -> WhatIf:
    return calibration.what_if({}, _at_pace(calibration.paced, rows), _at_full_speed(calibration.full, rows))


def _measured(**changes: Any) -> ReplayResult:
    said = {"events": N, "stage_specs": stage_specs(SPEC), "work_options": work_options(SPEC)}
    return make_result(**{"stages": (), **said, **changes})


def _full_speed(**changes: Any) -> ReplayResult:
    return _measured(
        **{"speed": "max", "arrivals": "max", "predictions": N, "filtered": 0, "events_per_s": 1.0, **changes}
    )


def _at_the_rate(service_ms: float | None = None, **changes: Any) -> ReplayResult:
    stage = StageFigures(
        step_id="weigh", batches=50, rows=500, mean_rows=10, sizes={16: 50}, close_reasons={"idle": 50},
        mean_service_ms=service_ms,
    )  # fmt: skip
    return _measured(**{"stages": (stage,), "speed": "2000/s", "arrivals": "poisson", **changes})


def test_nothing_measured_changes_nothing() -> None:
    found = _calibrate()
    assert (found.paced, found.full) == (COSTS, COSTS)
    assert _predict(found) == WhatIf({}, *_at_pace(COSTS)[:2], _at_full_speed(COSTS), 10)


def test_the_setting_that_was_measured_is_predicted_as_it_was_measured() -> None:
    rate = _at_full_speed(COSTS) / 2
    measured = (_at_the_rate(3.4, p50_ms=30, p99_ms=100), _full_speed(answers_per_s=rate))
    for given in (measured, measured[::-1]):
        found = _predict(_calibrate(*given))
        assert (found.p50_ms, found.p99_ms) == pytest.approx((30, 100))
        assert found.throughput_per_s == pytest.approx(rate, rel=1e-3)


def test_work_takes_as_much_longer_at_the_rate_as_its_micro_batches_did() -> None:
    # 1 ms and ten rows of 0.05, and 0.02 each to produce them: 1.7 ms
    found = _calibrate(_at_the_rate(5.1, p50_ms=30, p99_ms=40))
    assert found.paced.stages["weigh"].fixed_s == pytest.approx(3 * MS)
    assert found.paced.fetch.fixed_s == pytest.approx(1.5 * MS)
    assert found.full == COSTS
    assert _predict(found, rows=20).p50_ms == pytest.approx(30 + 10 * 3 * 0.07)


def test_a_stage_that_waits_takes_no_longer_because_micro_batches_do() -> None:
    waiting = COSTS.model_copy(update={"stages": {"call": Line(fixed_s=20 * MS), **COSTS.stages}})

    def at_pace(costs: Costs) -> AtPace:
        p50_ms = _at_pace(costs).p50_ms + costs.stages["call"].seconds(10) * 1000
        return AtPace(p50_ms, 2 * p50_ms, 10)

    measured = [_at_the_rate(5.1, p50_ms=30, p99_ms=60)]
    found = calibrate(waiting, at_pace, _at_full_speed, measured, PACE, SPEC, N)
    assert found.paced.stages["call"].fixed_s == 20 * MS
    assert found.paced.stages["weigh"].fixed_s == pytest.approx(3 * MS)
    assert at_pace(found.paced).p50_ms == pytest.approx(30)


def test_filtered_events_count_as_work_at_full_speed() -> None:
    rate = _at_full_speed(COSTS) / 2
    few = _calibrate(_full_speed(answers_per_s=0.8 * rate, predictions=0.8 * N, filtered=0.2 * N))
    assert _predict(few).throughput_per_s == pytest.approx(rate, rel=1e-3)
    # Of few predictions the rate says little, so the whole one tells.
    most = _calibrate(_full_speed(answers_per_s=9.0, predictions=0.1 * N, filtered=0.9 * N, events_per_s=rate))
    assert _predict(most).throughput_per_s == pytest.approx(rate, rel=1e-3)


def test_without_service_times_work_takes_as_long_as_at_full_speed() -> None:
    found = _calibrate(_at_the_rate(None, p50_ms=30), _full_speed(answers_per_s=_at_full_speed(COSTS) / 2))
    assert found.paced.stages["weigh"].fixed_s == pytest.approx(2 * MS, rel=1e-3)


def test_pauses_come_on_top_of_every_p99_which_is_never_below_the_median() -> None:
    slow, quick = (_calibrate(_at_the_rate(p50_ms=30, p99_ms=p99)) for p99 in (75, 30))
    other = _predict(slow, rows=20)
    assert other.p99_ms == pytest.approx(2 * other.p50_ms + 15)
    assert _predict(quick).p99_ms == pytest.approx(30)
    less = _predict(quick, rows=1)
    assert less.p99_ms == less.p50_ms


def test_the_same_stages_are_the_same_pipeline_whatever_its_name_and_topics() -> None:
    other = Pipeline("q", "elsewhere").then("weigh", infer(["weigh"], batch={"max_size": 64})).to("there").spec
    said = {"stage_specs": stage_specs(other), "work_options": work_options(other)}
    _calibrate(_at_the_rate(p50_ms=30, p99_ms=75, pipeline="elsewhere.yaml", **said))


def test_at_full_speed_there_may_be_more_events() -> None:
    _calibrate(_full_speed(events=3 * N, answers_per_s=400.0))


def test_more_threads_give_no_more_than_the_processors_are_enough_for() -> None:
    # Two processors, and 4 ms of theirs for each event.
    one = _full_speed(answers_per_s=400.0, machine_cpu_us_per_event=4000.0)
    found = _calibrate(one)
    assert _predict(found).throughput_per_s == pytest.approx(400, rel=1e-3)
    assert found.what_if({}, _at_pace(COSTS), 10_000.0).throughput_per_s == pytest.approx(500)
    # What was reached is possible, however much was in use besides.
    busy = _calibrate(one.model_copy(update={"machine_cpu_us_per_event": 6000.0}))
    assert _predict(busy).throughput_per_s == pytest.approx(400, rel=1e-3)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"workers": 2}, "of 2 workers"),
        ({"workers": None}, "of running workers"),
        ({"speed": "4000/s"}, "at 4000/s, poisson, and asked is 2000/s, poisson"),
        ({"arrivals": "even"}, "at 2000/s, even, and asked is"),
        (
            {"stage_specs": ({"id": "weigh", "infer": {"models": ["weigh"]}},)},
            r'of another pipeline: it had .*"models":\["weigh"\]}} where this one has .*"batch":{"max_size":64}',
        ),
        ({"stage_specs": (*stage_specs(SPEC), {"id": "more"})}, 'it had {"id":"more"} where this one has null'),
        ({"events": N - 1}, "of 19,999 events, and asked is about 20,000; give both the same --limit"),
        ({"stage_specs": None}, "does not say what its pipeline was; replay again"),
        ({"work_options": None}, "does not say what its pipeline was; replay again"),
        *(
            ({"work_options": work_options(SPEC) | {name: was}}, f"it had {name} {told} where this one has {ours}")
            for name, was, told, ours in (
                ("threads", 2, "2", "null"),
                ("sink.flight_record", True, "true", "false"),
                ("source.event_time", "at", '"at"', "null"),
                ("delivery", "exactly_once", '"exactly_once"', '"at_least_once"'),
            )
        ),
        ({"latency_clock": "virtual"}, "made without a broker; replay on one"),
        ({"interrupted": True}, "stopped before the end"),
        ({"seconds": 0.4}, "took 0.40 s, and less than 0.5 s tells too little; replay more events"),
    ],
)
def test_what_was_measured_of_something_else_is_refused(changes: dict[str, Any], problem: str) -> None:
    one = _measured(**{"speed": "2000/s", "arrivals": "poisson", **changes})
    with pytest.raises(ConfigError, match=f"--measured: .*{problem}"):
        _calibrate(one)

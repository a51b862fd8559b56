"""Runs under a virtual clock: boundaries by hand, the same each time, and the predictions of `simulate`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from support.onnx_factory import affine, write_model

from modelstream.models.errors import ConfigError
from modelstream.operators.batch import EventBatch
from modelstream.streams.build import BuiltStage
from modelstream.streams.in_process import InProcess
from modelstream.streams.pipeline import Pipeline, filter_events, infer
from modelstream.streams.replay import offline
from modelstream.streams.replay.costs import Costs, Line, measure_costs, read_costs
from modelstream.streams.replay.offline import OfflineRun, run_offline
from modelstream.streams.worker_limits import limits_of

NOTHING = Line()
MS = 1e-3


@pytest.fixture
def make_pipeline(tmp_path: Path) -> Callable[..., Pipeline]:
    write_model(tmp_path / "models", "weigh", affine([1.0, 2.0]), '[inputs.x]\nfield = "x"\n')

    def make(flight_record: bool = False, **batch: Any) -> Pipeline:
        source = {"topic": "in", "event_id": "id", "event_time": "at"}
        pipeline = Pipeline("p", source, folder=tmp_path, threads=2)  # however many processors there are
        pipeline = pipeline.then("known", filter_events(present=["x"])).then("weigh", infer(["weigh"], batch=batch))
        return pipeline.to("out", flight_record=flight_record)

    return make


def records(n: int) -> list[bytes | None]:
    return [orjson.dumps({"id": i, "at": 0, "x": [i, 1]}) for i in range(n)]


def run(
    pipeline: Pipeline,
    due_ms: list[float],
    line: Line,
    values: list[bytes | None] | None = None,
    *,
    limits: dict[str, Any] | None = None,
    **costs: Any,
) -> OfflineRun:
    due_us = (np.array(due_ms) * 1000).astype(np.int64)
    given = {"fetch": NOTHING, "decode": NOTHING, "produce": NOTHING, **costs}
    values = records(len(due_ms)) if values is None else values
    stages = {"known": NOTHING, "weigh": line}
    engine_limits = replace(limits_of(pipeline.spec), **{"gather_ms": 1e-6, **(limits or {})})
    all_costs = Costs(stages=stages, **given)
    return run_offline(pipeline.build(), values, [b"k"] * len(values), due_us, all_costs, engine_limits)


def sizes_and_reasons(found: OfflineRun) -> list[tuple[int, str]]:
    return [(batch.n_rows, batch.reason) for batch in found.batches]


def test_what_comes_while_a_batch_is_computed_is_the_next_one(make_pipeline: Callable[..., Pipeline]) -> None:
    found = run(make_pipeline(max_size=2), [0, 0.5, 0.7, 0.8, 2.5, 9], Line(fixed_s=1 * MS))
    assert sizes_and_reasons(found) == [(1, "idle"), (2, "full"), (1, "idle"), (1, "idle"), (1, "idle")]
    assert found.latency_s * 1000 == pytest.approx([1, 1.5, 1.3, 2.2, 1.5, 1])
    assert found.seconds * 1000 == pytest.approx(10)
    assert [batch.finished_s * 1000 for batch in found.batches] == pytest.approx([1, 2, 3, 4, 10])


def test_a_fetch_soon_after_another_waits_for_what_comes_meanwhile(make_pipeline: Callable[..., Pipeline]) -> None:
    found = run(make_pipeline(), [0, 1, 2, 9], Line(fixed_s=0.5 * MS), limits={"gather_ms": 4})
    assert sizes_and_reasons(found) == [(1, "idle"), (2, "idle"), (1, "idle")]
    assert found.latency_s * 1000 == pytest.approx([0.5, 3.5, 2.5, 0.5])


def test_costs_around_the_model_and_the_linger_count(make_pipeline: Callable[..., Pipeline]) -> None:
    found = run(
        make_pipeline(), [0, 0.25, 20], Line(fixed_s=1 * MS, per_row_s=0.5 * MS),
        fetch=Line(fixed_s=0.25 * MS), decode=Line(per_row_s=0.125 * MS), produce=Line(fixed_s=0.125 * MS),
        path_in_s=1 * MS, linger_s=5 * MS, path_out_s=2 * MS,
    )  # fmt: skip
    # There at 1 ms, computed until 3; the second waits for the first, and goes with it when the linger is over.
    assert found.latency_s * 1000 == pytest.approx([10, 9.75, 10])


def test_a_wait_ends_by_its_deadline_or_by_a_full_batch(make_pipeline: Callable[..., Pipeline]) -> None:
    found = run(make_pipeline(max_size=3, max_wait_ms=5), [0, 1, 20, 21, 22], Line(fixed_s=1 * MS))
    assert sizes_and_reasons(found) == [(2, "deadline"), (3, "full")]
    assert found.latency_s * 1000 == pytest.approx([6, 5, 3, 2, 1])


def test_batches_in_flight_overlap_and_come_in_their_order(make_pipeline: Callable[..., Pipeline]) -> None:
    line, due_ms = Line(fixed_s=1 * MS, per_row_s=1 * MS), [0, 0.5, 0.6, 0.7]
    alone = run(make_pipeline(), due_ms, line)
    assert alone.latency_s * 1000 == pytest.approx([2, 5.5, 5.4, 5.3])
    found = run(make_pipeline(in_flight=2), due_ms, line)
    assert sizes_and_reasons(found) == [(1, "idle"), (1, "idle"), (2, "idle")]
    assert found.latency_s * 1000 == pytest.approx([2, 2, 4.4, 4.3])
    assert [position for position, _ in found.predictions] == [0, 1, 2, 3]


@pytest.mark.parametrize("batch", [{}, {"max_size": 7}, {"in_flight": 2}, {"target_p99_ms": 20, "max_wait_ms": 1}])
def test_runs_are_equal_and_predict_as_simulate_does(
    make_pipeline: Callable[..., Pipeline], batch: dict[str, Any]
) -> None:
    values = [*records(300), b"{", None, b'{"id": 1, "at": 0}', b'{"id": 2, "at": 0, "x": [1]}', *records(3)]
    due_ms = np.sort(np.random.default_rng(1).exponential(20, len(values))).tolist()
    pipeline = make_pipeline(flight_record=True, **batch)
    line = Line(fixed_s=0.3 * MS, per_row_s=0.01 * MS)
    first, second = (run(pipeline, due_ms, line, values) for _ in range(2))
    assert first.batches == second.batches
    assert len({batch.n_rows for batch in first.batches}) > 2
    assert (first.predictions, first.dead_letters) == (second.predictions, second.dead_letters)
    assert np.array_equal(first.latency_s, second.latency_s, equal_nan=True)

    simulated = pipeline.simulate(values)
    assert [orjson.loads(value) for _, value in first.predictions] == [
        {**record, "key": "k"} for record in simulated.predictions
    ]
    told = ("offset", "stage", "reason", "detail", "exception")
    assert [[letter[name] for name in told] for letter in first.dead_letters] == [
        [letter[name] for name in told] for letter in simulated.dead_letters
    ]
    assert (first.n_filtered, len(first.dead_letters)) == (1, 3)
    assert np.isnan(first.latency_s).sum() == 4
    assert np.isnan(first.answered_s).sum() == 1


def test_a_target_counts_what_a_worker_counts_after_the_batch(
    make_pipeline: Callable[..., Pipeline], monkeypatch: pytest.MonkeyPatch
) -> None:
    counted_s: list[float] = []

    class Noted(InProcess):
        def __init__(self, *arguments: Any, downstream_s: float, **more: Any) -> None:
            counted_s.append(downstream_s)
            super().__init__(*arguments, downstream_s=downstream_s, **more)

    monkeypatch.setattr(offline, "InProcess", Noted)
    for batch in ({"target_p99_ms": 20}, {}):
        run(make_pipeline(**batch), [0], NOTHING, linger_s=7 * MS, path_out_s=50 * MS)
    # The linger that it has, and 2 ms: nobody tells a worker how far its consumers are.
    assert counted_s == pytest.approx([0.003, 0.007])


def test_a_fetch_ends_at_its_bytes_though_more_is_there(make_pipeline: Callable[..., Pipeline]) -> None:
    n_bytes = len(records(1)[0] or b"") + len(b"k")
    two = run(make_pipeline(), [0] * 5, Line(fixed_s=1 * MS), limits={"fetch_max_bytes": 2 * n_bytes, "gather_ms": 4})
    assert sizes_and_reasons(two) == [(2, "idle"), (2, "idle"), (1, "idle")]
    assert two.latency_s * 1000 == pytest.approx([1, 1, 2, 2, 3])  # no pause: something was left behind
    alone = run(make_pipeline(), [0] * 3, Line(), limits={"fetch_max_bytes": 1})
    assert sizes_and_reasons(alone) == [(1, "idle")] * 3


def test_no_fetch_while_too_many_bytes_are_under_way(make_pipeline: Callable[..., Pipeline]) -> None:
    n_bytes = len(records(1)[0] or b"") + len(b"k")
    pipeline, due_ms, line = make_pipeline(in_flight=2), [0, 0.5], Line(fixed_s=1 * MS)
    roomy = run(pipeline, due_ms, line, limits={"max_bytes_in_flight": n_bytes + 1})
    assert roomy.latency_s * 1000 == pytest.approx([1, 1])
    tight = run(pipeline, due_ms, line, limits={"max_bytes_in_flight": n_bytes})
    assert tight.latency_s * 1000 == pytest.approx([1, 1.5])


def test_all_at_once_come_in_full_batches(make_pipeline: Callable[..., Pipeline]) -> None:
    costs = Costs(fetch=NOTHING, decode=NOTHING, stages={"known": NOTHING, "weigh": Line(fixed_s=1.0)}, produce=NOTHING)
    found = run_offline(make_pipeline(max_size=10).build(), records(40), [None] * 40, None, costs)
    assert sizes_and_reasons(found) == [(10, "full")] * 4
    assert found.seconds == 4.0


def test_the_time_ends_no_sooner_than_the_events(make_pipeline: Callable[..., Pipeline]) -> None:
    values: list[bytes | None] = [*records(1), *(orjson.dumps({"id": i, "at": 0}) for i in range(3))]
    due_ms = [1000.0, 1100.0, 1200.0, 2000.0]
    for first in (0, 1):  # all but one filtered, and all of them
        found = run(make_pipeline(), due_ms[first:], Line(fixed_s=1 * MS), values[first:])
        assert found.n_filtered == 3
        assert found.seconds == pytest.approx((2000 - due_ms[first]) / 1000)


def test_no_events_take_no_time(make_pipeline: Callable[..., Pipeline]) -> None:
    found = run(make_pipeline(), [], NOTHING)
    assert (found.predictions, found.batches, found.seconds) == ([], [], 0.0)


def test_costs_are_those_of_the_clock(make_pipeline: Callable[..., Pipeline]) -> None:
    now_s = 0.0

    def clock() -> float:
        nonlocal now_s
        now_s += 0.001
        return now_s

    costs = measure_costs(make_pipeline().build(), records(100), [None] * 100, clock)
    assert set(costs.stages) == {"known", "weigh"}
    for line in (costs.decode, *costs.stages.values()):
        assert line.seconds(64) == pytest.approx(0.001)


def test_the_costs_of_a_call_and_of_a_row_are_told_apart_soon_also_of_one_event_that_is_slow(
    make_pipeline: Callable[..., Pipeline],
) -> None:
    built = make_pipeline().build()
    n_rows, now_s = 0, 0.0

    def weigh(batch: EventBatch) -> EventBatch:
        nonlocal n_rows, now_s
        n_rows = max(n_rows, len(batch))
        now_s += 0.1 + 0.2 * len(batch)
        return batch

    def add(batch: EventBatch) -> EventBatch:
        nonlocal now_s
        now_s += 1e-5 + 1e-6 * len(batch)
        return batch

    slow = replace(built, stages=(BuiltStage("weigh", weigh), BuiltStage("add", add)))
    costs = measure_costs(slow, records(1), [None], lambda: now_s)
    weighing, adding = costs.stages["weigh"], costs.stages["add"]
    assert (weighing.fixed_s, weighing.per_row_s) == pytest.approx((0.1, 0.2), rel=0.01)
    # 1,024 rows of it would take minutes; what follows it is measured on the few all the same.
    assert n_rows < 20
    assert now_s < 10
    assert (adding.fixed_s, adding.per_row_s) == pytest.approx((1e-5, 1e-6), rel=0.01)


def test_costs_are_kept_in_a_file(tmp_path: Path) -> None:
    costs = Costs(decode=Line(per_row_s=1e-6), stages={"a": Line(fixed_s=0.1)}, produce=NOTHING, linger_s=0.005)
    file = tmp_path / "costs.json"
    file.write_bytes(costs.to_json())
    assert read_costs(file, ["a"]) == costs
    with pytest.raises(ConfigError, match=r"costs.json: has the costs of stages \['a'\], and the pipeline has \['b'\]"):
        read_costs(file, ["b"])
    file.write_text('{"decode": {"fixed_s": -1}}')
    with pytest.raises(ConfigError, match=r"costs.json: decode.fixed_s: .*greater than or equal to 0"):
        read_costs(file, ["a"])
    file.write_text("{")
    with pytest.raises(ConfigError, match="is no JSON"):
        read_costs(file, ["a"])
    with pytest.raises(ConfigError, match="cannot be read"):
        read_costs(tmp_path / "none.json", ["a"])

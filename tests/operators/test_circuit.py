"""When a model is left alone: by batches, whichever calls they took, and never for one bad row among good ones."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelstream.models.contract import FieldSpec
from modelstream.models.errors import InferenceError, InferenceTimeout
from modelstream.operators.batch import EventBatch, Settled
from modelstream.operators.circuit import Circuit
from modelstream.operators.infer import Infer
from modelstream.operators.operator import run_isolated


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Moody:
    """A model that fails on the rows that it is told to fail on, or on all."""

    name, version, required_fields = "moody", "2", (FieldSpec("x", "float64"),)

    def __init__(self, error: type[InferenceError] = InferenceError) -> None:
        self.bad: set[int] | None = set()
        self.error = error
        self.n_calls = 0

    def predict(self, columns, n_rows):
        if n_rows:
            self.n_calls += 1
            if self.bad is None or self.bad & set(columns["x"].tolist()):
                raise self.error(self.name, self.version, "no mood")
        return {"value": columns["x"]}


def make(model: Moody, max_failures: int = 3, *, answers_first: bool = True) -> tuple[Infer, Circuit, Clock]:
    clock = Clock()
    circuit = Circuit(model.name, model.version, max_failures, rest_s=5, clock=clock)
    infer = Infer("stage", [model], circuit=lambda _: circuit)
    if answers_first:
        run(infer, -1)
        model.n_calls = 0
    return infer, circuit, clock


def run(infer: Infer, *rows: int) -> Settled:
    return run_isolated(infer, EventBatch.of_events([{"x": row} for row in rows]))


def reasons(settled: Settled) -> list[str]:
    return [] if settled.rejected is None else [fault.reason for fault in settled.rejected.faults.values()]


@given(
    st.lists(st.tuples(st.integers(2, 64), st.integers(0, 63)), max_size=20),
    st.sampled_from([InferenceError, InferenceTimeout]),
)
def test_one_bad_row_a_batch_never_opens_it(batches: list[tuple[int, int]], error: type[InferenceError]) -> None:
    model = Moody(error)
    infer, circuit, _ = make(model, max_failures=1)
    for n_rows, bad in batches:
        model.bad = {bad % n_rows}
        settled = run(infer, *range(n_rows))
        assert reasons(settled) == ["model_failed"]
        assert len(settled.kept) == n_rows - 1
        assert not circuit.is_open


def test_it_opens_after_whole_batches_and_then_rejects_at_once() -> None:
    model = Moody()
    infer, circuit, clock = make(model)
    model.bad = None
    for i in range(3):
        assert not circuit.is_open
        assert reasons(run(infer, *range(i + 1))) == ["model_failed"] * (i + 1)
    assert circuit.is_open
    n_calls, clock.now = model.n_calls, 2.0
    settled = run(infer, 1, 2, 3)
    assert model.n_calls == n_calls
    assert settled.rejected is not None
    fault = settled.rejected.faults[2]
    assert (fault.reason, fault.exception) == ("model_unavailable", "ModelUnavailable")
    assert fault.detail == (
        "model moody@2: is left alone after 3 failed batches in a row, the last with: no mood; "
        "it is tried again in 3.0 s"
    )


def test_a_good_batch_in_between_starts_anew() -> None:
    model = Moody()
    infer, circuit, _ = make(model)
    for bad in (None, None, {1}, None, None):
        model.bad = bad
        run(infer, 0, 1, 2)
    assert not circuit.is_open


def test_one_batch_probes_and_closes_it() -> None:
    model = Moody()
    infer, circuit, clock = make(model, max_failures=1)
    model.bad = None
    run(infer, 1)
    clock.now, n_calls = 5.0, model.n_calls
    assert reasons(run(infer, 1, 2)) == ["model_failed"] * 2  # the probe, row by row, and the good row
    assert (circuit.is_open, model.n_calls) == (True, n_calls + 4)
    assert reasons(run(infer, 1)) == ["model_unavailable"]  # it rests again
    clock.now, model.bad = 10.0, {2}
    assert reasons(run(infer, 1, 2, 3)) == ["model_failed"]  # a bad row does not make the probe fail
    assert not circuit.is_open


@pytest.mark.parametrize(("max_failures", "n_calls"), [(1, 3), (3, 7), (5, 11)])
def test_a_model_that_hangs_is_not_tried_row_by_row(max_failures: int, n_calls: int) -> None:
    model = Moody(InferenceTimeout)
    infer, circuit, clock = make(model, max_failures)
    model.bad = None
    settled = run(infer, *range(1024))
    assert circuit.is_open
    assert model.n_calls == n_calls
    assert len(reasons(settled)) == 1024
    assert set(reasons(settled)) <= {"model_unavailable", "model_failed"}
    clock.now = 5.0
    run(infer, *range(1024))
    assert model.n_calls == n_calls + 3  # a probe that hangs ends after a part and both of its halves


def test_single_rows_that_hang_count_each() -> None:
    model = Moody(InferenceTimeout)
    infer, circuit, _ = make(model)
    model.bad = None
    for row in range(3):
        assert not circuit.is_open
        run(infer, row)
    assert circuit.is_open


def test_without_a_batch_around_it_each_call_counts() -> None:
    model = Moody()
    infer, circuit, _ = make(model, max_failures=2)
    model.bad = None
    for _ in range(2):
        with pytest.raises(InferenceError):
            infer(EventBatch.of_events([{"x": 1}]))
    assert circuit.is_open


@pytest.mark.parametrize("answers_first", [True, False])
def test_bad_rows_in_batches_of_their_own_never_open_it(answers_first: bool) -> None:
    model = Moody()
    infer, circuit, _ = make(model, max_failures=1, answers_first=answers_first)
    model.bad = set(range(20))
    for row in range(20):
        assert reasons(run(infer, row)) == ["model_failed"]
    assert reasons(run(infer, *range(20))) == ["model_failed"] * 20
    assert not circuit.is_open
    assert len(run(infer, 20, 21).kept) == 2


def test_a_model_that_hangs_from_the_start_is_left_alone() -> None:
    model = Moody(InferenceTimeout)
    infer, circuit, _ = make(model, max_failures=2, answers_first=False)
    model.bad = None
    for row in range(2):
        run(infer, row)
    assert circuit.is_open

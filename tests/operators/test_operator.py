from __future__ import annotations

from collections.abc import Callable
from math import ceil, log2

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelstream.models.errors import CacheUnavailable, InferenceError, OperatorError
from modelstream.operators.batch import EventBatch
from modelstream.operators.operator import run_isolated


class Counting:
    """An operator that calls back, and counts the calls."""

    step_id = "step"

    def __init__(self, work: Callable[[EventBatch], None]) -> None:
        self.n_calls = 0
        self._work = work

    def __call__(self, batch: EventBatch) -> EventBatch:
        self.n_calls += 1
        self._work(batch)
        batch.columns["seen"] = np.array([event["row"] for event in batch.events])
        return batch


def fail_on(bad: set[int], error: BaseException) -> Counting:
    def work(batch: EventBatch) -> None:
        if any(event["row"] in bad for event in batch.events):
            raise error

    return Counting(work)


def batch_of(n_rows: int) -> EventBatch:
    return EventBatch.of_events([{"row": row} for row in range(n_rows)], source="source")


@given(st.integers(1, 70).flatmap(lambda n: st.tuples(st.just(n), st.sets(st.integers(0, n - 1)))))
def test_exactly_the_failing_rows_are_rejected(case: tuple[int, set[int]]) -> None:
    n_rows, bad = case
    settled = run_isolated(fail_on(bad, ValueError("no")), batch_of(n_rows))
    good = [row for row in range(n_rows) if row not in bad]
    assert [event["row"] for event in settled.kept.events] == good
    assert settled.kept.lineage.record_index.tolist() == good
    assert settled.filtered is None
    rejected = settled.rejected
    assert (rejected.lineage.record_index.tolist() if rejected else []) == sorted(bad)
    if rejected is not None:
        assert {(f.stage, f.reason, f.detail, f.exception) for f in rejected.faults.values()} == {
            ("step", "operator_failed", "ValueError: no", "ValueError")
        }
    if good:
        assert settled.kept.columns["seen"].tolist() == good  # type: ignore[union-attr]


@given(st.integers(1, 1024).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n - 1))))
def test_one_failing_row_costs_few_calls(case: tuple[int, int]) -> None:
    n_rows, bad = case
    operator = fail_on({bad}, ValueError("no"))
    run_isolated(operator, batch_of(n_rows))
    assert operator.n_calls <= 2 * ceil(log2(n_rows)) + 1


@pytest.mark.parametrize(
    ("error", "reason", "name", "detail"),
    [
        (InferenceError("m", "1", "no"), "model_failed", "InferenceError", "model m@1: no"),
        (OperatorError("step", "no"), "operator_failed", "OperatorError", "stage 'step': no"),
        (SystemExit(3), "operator_failed", "SystemExit", "SystemExit: 3"),
        (RecursionError(), "operator_failed", "RecursionError", "RecursionError"),
        (KeyError("reading"), "operator_failed", "KeyError", "KeyError: 'reading'"),
    ],
)
def test_the_fault_tells_what_was_raised(error: BaseException, reason: str, name: str, detail: str) -> None:
    rejected = run_isolated(fail_on({1}, error), batch_of(3)).rejected
    assert rejected is not None
    fault = rejected.faults[0]
    assert (fault.reason, fault.exception, fault.detail) == (reason, name, detail)


def test_an_exception_that_cannot_say_what_it_is_is_one_rows_all_the_same() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text")

    rejected = run_isolated(fail_on({1}, Mute()), batch_of(3)).rejected
    assert rejected is not None
    assert [fault.detail for fault in rejected.faults.values()] == ["Mute"]


def test_a_transient_failure_is_no_fault_of_the_rows() -> None:
    with pytest.raises(CacheUnavailable):
        run_isolated(fail_on({1}, CacheUnavailable()), batch_of(3))


def test_an_interrupt_ends_the_work() -> None:
    with pytest.raises(KeyboardInterrupt):
        run_isolated(fail_on({1}, KeyboardInterrupt()), batch_of(3))


def test_an_operator_is_not_asked_about_nothing() -> None:
    operator = fail_on(set(), ValueError())
    assert len(run_isolated(operator, batch_of(0)).kept) == 0
    assert operator.n_calls == 0


def test_rows_filtered_in_the_halves_are_counted() -> None:
    def work(batch: EventBatch) -> None:
        batch.filter_out(np.array([event["row"] % 2 == 0 for event in batch.events]))
        if any(event["row"] == 3 for event in batch.events):
            raise ValueError("no")

    settled = run_isolated(Counting(work), batch_of(6))
    assert [event["row"] for event in settled.kept.events] == [1, 5]
    assert settled.filtered is not None
    assert settled.filtered.record_index.tolist() == [0, 2, 4]
    assert settled.rejected is not None
    assert settled.rejected.lineage.record_index.tolist() == [3]


def test_events_of_which_a_stage_makes_other_columns_go_on_in_batches_of_their_own() -> None:
    def work(batch: EventBatch) -> None:
        if len({event["row"] % 3 for event in batch.events}) > 1:
            raise ValueError("not all at once")
        batch.columns[f"only-{batch.events[0]['row'] % 3}"] = np.zeros(len(batch))

    settled = run_isolated(Counting(work), batch_of(4))
    assert settled.rejected is None
    assert [[event["row"] for event in kept.events] for kept in settled.all_kept] == [[0], [1], [2], [3]]
    made = [{name for name in kept.columns if name.startswith("only")} for kept in settled.all_kept]
    assert made == [{"only-0"}, {"only-1"}, {"only-2"}, {"only-0"}]

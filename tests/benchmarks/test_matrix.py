"""All systems in turn: who runs in which round, and what becomes of one that fails."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from benchmarks import matrix
from benchmarks.checks import RunFailed
from benchmarks.measurement import Run
from benchmarks.workloads import WORKLOADS

Measure = Callable[..., matrix.Found]


@pytest.fixture
def measure(monkeypatch: pytest.MonkeyPatch) -> Measure:
    """Return a function that runs a matrix of systems, of which one may fail, without a broker."""

    def run(systems: list[str], failing: str = "", **more: Any) -> matrix.Found:
        def run_one(system: str, round_: int, n: int) -> Run:
            if system == failing and round_ == 2:
                raise RunFailed("1 lost\nand a log")
            return Run("mlp-20", system, round_, n, 100.0, 1.0, 1.0, 1.0, "polling", True, 0)

        @contextmanager
        def prepared(*_: Any) -> Iterator[Any]:
            yield SimpleNamespace(run=run_one, workload=WORKLOADS["mlp-20"])

        monkeypatch.setattr(matrix, "prepared", prepared)
        return matrix.run_matrix(None, WORKLOADS["mlp-20"], systems, events=50_000, rounds=3, **more)  # type: ignore[arg-type]

    return run


def test_systems_take_turns_and_slow_ones_get_fewer_events(measure: Measure) -> None:
    found = measure(["loop", "modelstream", "faust"])
    assert [(run.round, run.system) for run in found.runs[:4]] == [
        (1, "loop"), (1, "modelstream"), (1, "faust"), (2, "loop"),
    ]  # fmt: skip
    assert {run.system: run.events for run in found.runs} == {"loop": 50_000, "modelstream": 50_000, "faust": 2_000}


def test_peers_may_run_less_often(measure: Measure) -> None:
    found = measure(["loop", "quix"], peer_rounds=1)
    assert [run.system for run in found.runs] == ["loop", "quix", "loop", "loop"]


def test_a_peer_that_fails_is_named_and_the_others_go_on(measure: Measure) -> None:
    found = measure(["loop", "quix"], failing="quix")
    assert [run.system for run in found.runs] == ["loop", "quix", "loop", "loop"]
    assert found.unavailable == {"quix": "failed in round 2: 1 lost"}


def test_what_all_are_compared_with_may_not_fail(measure: Measure) -> None:
    with pytest.raises(RunFailed, match="modelstream on mlp-20, round 2: 1 lost"):
        measure(["loop", "modelstream"], failing="modelstream")

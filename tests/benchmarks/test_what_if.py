"""How far predictions are off: from figures by hand to the exit code."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
from benchmarks import what_if

PREDICTED = {"p50_ms": 12.0, "p99_ms": 30.0, "throughput_per_s": 900.0}


def compared(predicted: dict[str, float]) -> dict[str, Any]:
    paced = [{"p50_ms": p50, "p99_ms": 3 * p50} for p50 in (10.0, 99.0, 8.0)]
    full = [{"full_speed_per_s": rate} for rate in (500.0, 1000.0, 5000.0)]
    return what_if._compare({"max_size": 64}, predicted, paced, full)


def test_a_prediction_is_compared_with_the_medians() -> None:
    row = compared(PREDICTED)
    assert row["measured"] == {"p50_ms": 10.0, "p99_ms": 30.0, "throughput_per_s": 1000.0}
    assert row["off"] == {"p50_ms": 0.2, "p99_ms": 0.0, "throughput_per_s": -0.1}


@pytest.mark.parametrize(
    ("predicted", "bound", "code"),
    [
        ({}, "0.21", 0),
        ({}, "0.19", 1),
        ({"throughput_per_s": 600.0}, "0.3", 1),
        ({"throughput_per_s": 600.0}, "0.4", 0),
    ],
)
def test_the_worst_figure_decides(
    monkeypatch: pytest.MonkeyPatch, predicted: dict[str, float], bound: str, code: int
) -> None:
    rows = [compared({"p50_ms": 10.0, "p99_ms": 30.0, "throughput_per_s": 1000.0}), compared(PREDICTED | predicted)]

    class Comparison:
        def __init__(self, *_: object) -> None:
            pass

        def rows(self, _: int) -> list[dict[str, Any]]:
            return rows

    monkeypatch.setattr(what_if, "open_broker", lambda _: nullcontext(""))
    monkeypatch.setattr(what_if, "_Comparison", Comparison)
    assert what_if.main(["--bound", bound]) == code

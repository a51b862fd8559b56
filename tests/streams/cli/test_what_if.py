"""``modelstream what-if``: what its table says of the figures."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from support.replay_results import make_result

from modelstream.streams.cli.what_if import _print
from modelstream.streams.replay.result import ReplayResult
from modelstream.streams.replay.what_if import WhatIf


def shown(
    capsys: pytest.CaptureFixture[str], *figures: tuple[float, float], results: Sequence[ReplayResult] = ()
) -> str:
    found = [
        WhatIf({"max_size": float(i)}, p50_ms=1.0, p99_ms=p99_ms, throughput_per_s=per_s, mean_batch=2.0)
        for i, (p99_ms, per_s) in enumerate(figures)
    ]
    _print(found[0], found, "100/s", [*results])
    return capsys.readouterr().out


def test_of_rows_that_are_alike_none_is_the_best(capsys: pytest.CaptureFixture[str]) -> None:
    alike = shown(capsys, (5.0, 900.0), (5.01, 900.2))
    assert "least p99" not in alike
    assert "most events/s" not in alike
    assert shown(capsys, (5.0, 900.0), (4.0, 950.0)).count("least p99") == 1


def test_of_rows_that_are_alike_all_are_the_best_where_others_are_worse(capsys: pytest.CaptureFixture[str]) -> None:
    two_of_three = shown(capsys, (5.0, 900.0), (4.0, 950.0), (6.0, 950.3))
    assert (two_of_three.count("least p99"), two_of_three.count("most events/s")) == (1, 2)


def test_what_no_replay_has_calibrated_is_said_to_be_relative(capsys: pytest.CaptureFixture[str]) -> None:
    full = make_result(arrivals="max", answers_per_s=812.0, events_per_s=800.0, predictions=20_000)
    paced = make_result(p99_ms=6.4)
    assert "relative until calibrated with --measured" in shown(capsys, (5.0, 900.0))
    said = shown(capsys, (5.0, 900.0), results=[full])
    assert "Compare p50 and p99 with each other only" in said
    assert "812" in said
    assert "6.4" not in said
    said = shown(capsys, (5.0, 900.0), results=[paced])
    assert "Compare events/s with each other only" in said
    assert "6.4" in said
    assert "Compare" not in shown(capsys, (5.0, 900.0), results=[paced, full])


@pytest.mark.parametrize(("mean_batch", "is_said"), [(2.0, False), (2.5, False), (2.51, True), (1.66, True)])
def test_micro_batches_of_other_sizes_than_the_measured_ones_are_remarked(
    capsys: pytest.CaptureFixture[str], mean_batch: float, is_said: bool
) -> None:
    said = shown(capsys, (5.0, 900.0), results=[make_result(mean_batch=mean_batch)])
    assert ("other rows" in said) == is_said
    assert (f"A measured micro-batch has {mean_batch:,.1f} rows, a predicted one 2.0" in said) == is_said


def test_a_row_is_a_line_of_a_terminal_of_80_columns(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    setting = {"max_size": 1024.0, "max_wait_ms": None, "in_flight": 2.0}
    figures = {"p50_ms": 9.7, "mean_batch": 7.8}
    found = [
        WhatIf(setting, p99_ms=13.7, throughput_per_s=133_095.0, **figures),
        WhatIf(setting, p99_ms=9.7, throughput_per_s=87_944.0, **figures),
    ]
    _print(found[0], found, "2000/s", [])
    fastest, quickest = [line for line in map(str.rstrip, capsys.readouterr().out.splitlines()) if "1024" in line]
    assert fastest.endswith("most events/s")
    assert quickest.endswith("least p99")

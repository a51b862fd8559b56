"""``modelstream what-if``: what its table says of the figures."""

from __future__ import annotations

import pytest

from modelstream.streams.cli.what_if import _print
from modelstream.streams.replay.what_if import WhatIf


def shown(capsys: pytest.CaptureFixture[str], *figures: tuple[float, float], is_measured: bool = False) -> str:
    found = [
        WhatIf({"max_size": float(i)}, p50_ms=1.0, p99_ms=p99_ms, throughput_per_s=per_s, mean_batch=2.0)
        for i, (p99_ms, per_s) in enumerate(figures)
    ]
    _print(found[0], found, "100/s", is_measured=is_measured)
    return capsys.readouterr().out


def test_of_rows_that_are_alike_none_is_the_best(capsys: pytest.CaptureFixture[str]) -> None:
    alike = shown(capsys, (5.0, 900.0), (5.01, 900.2))
    assert "least p99" not in alike
    assert "most events/s" not in alike
    assert shown(capsys, (5.0, 900.0), (4.0, 950.0)).count("least p99") == 1


def test_figures_that_no_replay_has_calibrated_are_said_to_be_relative(capsys: pytest.CaptureFixture[str]) -> None:
    assert "relative until calibrated with --measured" in shown(capsys, (5.0, 900.0))
    assert "--measured" not in shown(capsys, (5.0, 900.0), is_measured=True)

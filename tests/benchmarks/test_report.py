"""The figures told of several runs."""

from __future__ import annotations

import pytest
from benchmarks.measurement import Run
from benchmarks.report import missed, print_table, summarise


def _run(system: str, events_per_s: float, cpu_us: float = 1.0) -> Run:
    return Run(
        workload="mlp-20",
        system=system,
        round=1,
        events=10,
        events_per_s=events_per_s,
        cpu_us_per_event=cpu_us,
        peak_rss_mb=100.0,
        rss_growth_mb=1.0,
        clock="log_append_time",
        committed=True,
        exit_code=0,
    )


def test_medians_by_system_and_the_ratio_of_medians() -> None:
    runs = [_run("loop", 100, 3), _run("quix", 20), _run("loop", 300, 1), _run("quix", 30), _run("loop", 200, 2)]
    assert summarise(runs) == {
        "loop": {"events_per_s": 200, "cpu_us_per_event": 2, "peak_rss_mb": 100, "ratio_to_loop": 1},
        "quix": {"events_per_s": 25, "cpu_us_per_event": 1, "peak_rss_mb": 100, "ratio_to_loop": 0.125},
    }


def test_without_a_loop_there_is_no_ratio(capsys) -> None:
    runs = [_run("faust", 4000)]
    summary = summarise(runs)
    assert summary["faust"]["ratio_to_loop"] is None
    print_table(summary, runs)
    assert "4,000" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("rate", "what"),
    [(80, None), (79, "the ratio of modelstream to loop, 0.7900, is below 0.8")],
)
def test_a_ratio_below_what_it_must_be_is_named(rate: float, what: str | None) -> None:
    assert missed(summarise([_run("loop", 100), _run("modelstream", rate)]), 0.8) == what


@pytest.mark.parametrize("system", ["loop", "modelstream"])
def test_without_both_there_is_nothing_to_compare(system: str) -> None:
    assert missed(summarise([_run(system, 100)]), 0.8) == "there is no ratio of modelstream to loop"

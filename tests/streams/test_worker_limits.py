"""Limits and threads that a pipeline gives a worker."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from modelstream.streams.cli.replay_offline import outside_costs
from modelstream.streams.pipeline import Pipeline, infer
from modelstream.streams.settings import EngineLimits
from modelstream.streams.worker_limits import downstream_s, limits_of, pool_threads


def pipeline(*batches: dict[str, Any], **options: Any) -> Pipeline:
    made = Pipeline("p", {"topic": "in"}, **options)
    for i, batch in enumerate(batches):
        made = made.then(f"s{i}", infer([f"m{i}"], batch=batch))
    return made.to("out")


def test_a_target_of_any_stage_shortens_how_long_is_gathered() -> None:
    with_target = pipeline({}, {"target_p99_ms": 20}, {"target_p99_ms": 60}).spec
    found = [limits_of(spec) for spec in (pipeline({}).spec, with_target)]
    assert [(limits.gather_ms, limits.linger_ms) for limits in found] == [(4, 5), (1, 1)]
    shorter = limits_of(with_target, EngineLimits(gather_ms=0.3, linger_ms=0.2))
    assert (shorter.gather_ms, shorter.linger_ms) == (0.3, 0.2)
    assert downstream_s(limits_of(with_target)) == pytest.approx(0.003)
    assert outside_costs(with_target)["linger_s"] == 0.001


@pytest.mark.parametrize(
    ("target_ms", "gather_ms", "linger_ms"),
    [(1, 0.5, 0.5), (10, 0.5, 0.5), (50, 2.5, 2.5), (90, 4, 4.5), (60_000, 4, 5)],
)
def test_what_is_gathered_is_a_share_of_the_target(target_ms: float, gather_ms: float, linger_ms: float) -> None:
    limits = limits_of(pipeline({"target_p99_ms": target_ms}).spec)
    assert (limits.gather_ms, limits.linger_ms) == pytest.approx((gather_ms, linger_ms))


@pytest.mark.parametrize(
    ("options", "keys", "limit_s"),
    [
        ({}, {}, 5),
        ({}, {"timeout_ms": 10_000}, 30),
        ({"delivery": "exactly_once", "transaction_interval_ms": 100}, {}, 5),
        # Rows are finished at the commit: an open transaction looks like no progress.
        ({"delivery": "exactly_once", "transaction_interval_ms": 30_000}, {}, 90),
    ],
)
def test_a_partition_may_stand_still_for_three_times_the_longest_wait(
    options: dict[str, Any], keys: dict[str, Any], limit_s: float
) -> None:
    spec = Pipeline("p", {"topic": "in"}, **options).then("score", infer(["m"], **keys)).to("out").spec
    assert limits_of(spec, EngineLimits(stall_timeout_s=5)).stall_timeout_s == limit_s


@pytest.mark.parametrize(("in_flight", "n"), [([1], 0), ([1, 2], 2), ([2, 3], 5), ([8, 8], 6)])
def test_only_stages_with_several_batches_in_flight_have_threads(in_flight: list[int], n: int) -> None:
    spec = pipeline(*({"in_flight": each} for each in in_flight)).spec
    assert pool_threads(SimpleNamespace(spec=spec, threads=6)) == n  # type: ignore[arg-type]

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelstream.models.errors import ConfigError
from modelstream.streams.replay.arrivals import Pace, parse_speed

times = st.lists(st.integers(-(10**13), 10**13), min_size=1, max_size=50).map(lambda values: np.array(values, np.int64))


@pytest.mark.parametrize(("text", "speed"), [("1x", 1.0), ("600", 600.0), ("0.25x", 0.25), ("max", None)])
def test_a_speed_is_read(text: str, speed: float | None) -> None:
    assert parse_speed(text) == speed


@pytest.mark.parametrize("text", ["", "x", "0x", "-1x", "fast", "1x2", "1e3x"])
def test_what_is_no_speed_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no speed; write 1x, 60x or max"):
        parse_speed(text)


@given(times, st.floats(0.01, 10_000))
def test_recorded_times_never_fall_and_keep_their_distances(times_ms: np.ndarray, speed: float) -> None:
    schedule = Pace(speed=speed).schedule(len(times_ms), times_ms)
    assert schedule.due_us is not None
    assert schedule.due_us[0] == 0
    assert (np.diff(schedule.due_us) >= 0).all()
    latest = np.maximum.accumulate(times_ms)
    assert schedule.due_us == pytest.approx((latest - times_ms[0]) * (1000 / speed), abs=1.5, rel=1e-9)
    assert schedule.max_clamped_us == pytest.approx((latest - times_ms).max() * (1000 / speed), abs=1, rel=1e-9)
    assert schedule.n_clamped == sum(time < times_ms[:i].max() for i, time in enumerate(times_ms) if i)


@given(st.integers(1, 2000), st.floats(0.5, 200_000), st.integers(0, 2**32))
def test_random_arrivals_come_again_with_their_seed(n: int, rate: float, seed: int) -> None:
    pace = Pace(rate_per_s=rate, arrivals="poisson", seed=seed)
    first, again = pace.schedule(n).due_us, pace.schedule(n).due_us
    assert first is not None
    assert again is not None
    assert (first == again).all()
    assert (np.diff(first) >= 0).all()


def test_random_arrivals_have_the_mean_and_the_spread_of_a_poisson_process() -> None:
    due_us = Pace(rate_per_s=1000, arrivals="poisson").schedule(100_000).due_us
    assert due_us is not None
    gaps = np.diff(due_us)
    assert gaps.mean() == pytest.approx(1000, rel=0.02)
    assert gaps.std() == pytest.approx(1000, rel=0.02)


def test_a_rate_stretches_recorded_times_to_its_mean() -> None:
    pace = Pace(rate_per_s=2, arrivals="recorded")
    due_us = pace.schedule(4, np.array([0, 10, 10, 40])).due_us
    assert due_us is not None
    # Four events at two a second take two seconds, and the gaps keep their proportions.
    assert due_us.tolist() == [0, 500_000, 500_000, 2_000_000]


def test_recorded_times_that_are_all_the_same_have_no_rate() -> None:
    with pytest.raises(ConfigError, match="all events have the same time"):
        Pace(rate_per_s=2, arrivals="recorded").schedule(2, np.array([5, 5]))


@pytest.mark.parametrize(
    ("pace", "text", "kind"),
    [
        (Pace(), "max", "max"),
        (Pace(speed=60), "60x", "recorded"),
        (Pace(rate_per_s=5000), "5000/s", "poisson"),
        (Pace(rate_per_s=0.5, arrivals="even"), "0.5/s", "even"),
    ],
)
def test_a_pace_says_what_it_is(pace: Pace, text: str, kind: str) -> None:
    assert (str(pace), pace.kind) == (text, kind)

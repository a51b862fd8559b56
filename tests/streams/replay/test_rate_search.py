"""The search for a rate: how close, how many tries, and when it gives up."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from modelstream.streams.replay.rate_search import find_highest, most_rates


@given(st.floats(10, 1e6), st.floats(0.05, 50), st.floats(0.01, 0.5))
def test_the_search_ends_as_close_to_the_limit_as_it_should(limit: float, guess: float, precision: float) -> None:
    tried: list[float] = []

    def is_sustained(rate: float) -> bool:
        tried.append(rate)
        return rate <= limit

    found = find_highest(is_sustained, guess * limit, precision=precision)
    assert found is not None
    assert found <= limit <= found * (1 + precision)
    assert len(tried) <= most_rates(precision)
    assert len(set(tried)) == len(tried)


def test_where_nothing_is_sustained_the_search_gives_up() -> None:
    tried: list[float] = []
    assert find_highest(lambda rate: bool(tried.append(rate)), 1000) is None
    assert len(tried) <= 10


def test_where_a_lower_rate_tells_nothing_more_the_search_gives_up_at_once() -> None:
    tried: list[float] = []
    assert find_highest(lambda rate: bool(tried.append(rate)), 1000, is_hopeless=lambda: len(tried) == 3) is None
    assert tried == [1000, 500, 250]


@given(st.lists(st.booleans(), min_size=60, max_size=60))
def test_whatever_the_probes_say_the_search_ends(answers: list[bool]) -> None:
    """Noise may answer anything; what is returned was sustained when it was tried."""
    sustained: list[float] = []
    left = iter([*answers, *[False] * 1000])

    def is_sustained(rate: float) -> bool:
        if next(left):
            sustained.append(rate)
            return True
        return False

    found = find_highest(is_sustained, 1000)
    assert found is None or found in sustained

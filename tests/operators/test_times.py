from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelstream.operators.times import FIRST_MS, LAST_MS, format_times, parse_time_ms, parse_times

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def iso(ms: int, unit: str, zone: str) -> str:
    return str(np.datetime64(ms, "ms").astype(f"datetime64[{unit}]")) + zone


in_range = st.integers(FIRST_MS, LAST_MS)
zones = st.sampled_from(["", "Z", "+00:00", "+05:30", "-11:00"])
units = st.sampled_from(["D", "m", "s", "ms", "us"])
texts = st.builds(iso, in_range, units, zones)
same_form = st.builds(
    lambda times, unit, zone: [iso(ms, unit, zone) for ms in times], st.lists(in_range, min_size=1), units, zones
)
junk = st.sampled_from(
    ["", "now", "NaT", "today", "2013-02-30T00:00:00Z", "2013-01-01T24:61:00Z", "+013-01-01T00:00:00"]
)
numbers = st.integers(FIRST_MS - 10, LAST_MS + 10) | st.floats(allow_nan=False)
anything = st.lists(texts | junk | st.text(max_size=25) | numbers | st.booleans() | st.none(), min_size=1, max_size=3)


@given(same_form | anything | st.lists(numbers, min_size=1))
def test_a_batch_of_times_is_each_time(values: list[Any]) -> None:
    try:
        times = parse_times(values)
    except (TypeError, ValueError):
        return
    assert times.dtype == "datetime64[ms]"
    assert times.view(np.int64).tolist() == [parse_time_ms(value) for value in values]


@pytest.mark.parametrize("zone", ["", "Z", "+00:00"])
@pytest.mark.parametrize("fraction", ["", ".123", ".123999"])
def test_the_usual_forms_are_read_at_once(zone: str, fraction: str) -> None:
    text = f"2013-01-01T10:15:07{fraction}{zone}"
    expected = np.datetime64(f"2013-01-01T10:15:07{fraction[:4]}", "ms")
    assert parse_times([text, text]).tolist() == [expected, expected]


@given(in_range, st.integers(-23 * 60, 23 * 60))
def test_one_time_agrees_with_datetime(ms: int, offset_min: int) -> None:
    try:
        local = (EPOCH + timedelta(milliseconds=ms)).astimezone(timezone(timedelta(minutes=offset_min)))
    except OverflowError:
        return
    assert parse_time_ms(local.isoformat()) == ms


@pytest.mark.parametrize("value", [True, None, [], {}, "", "now", "NaT", "2013-13-01", float("nan"), float("inf")])
@pytest.mark.parametrize("neighbour", ["2013-01-01T00:00:00Z", 1_000])
def test_what_is_no_time_is_refused(value: Any, neighbour: Any) -> None:
    with pytest.raises(ValueError):
        parse_time_ms(value)
    with pytest.raises((TypeError, ValueError)):
        parse_times([neighbour, value])


@pytest.mark.parametrize("value", [FIRST_MS - 1, LAST_MS + 1, 1e300, -1e300, "0001-01-01T00:00:00+01:00"])
def test_times_out_of_range_are_refused(value: float | str) -> None:
    with pytest.raises(ValueError, match="years"):
        parse_time_ms(value)
    with pytest.raises((TypeError, ValueError)):
        parse_times([0, value])


@pytest.mark.parametrize("day", ["2013-01-01", "9999-12-31"])  # The last day is beyond what orjson writes.
def test_a_fraction_is_written_only_where_there_is_one(day: str) -> None:
    times = np.array([f"{day}T10:15", f"{day}T10:15:00.25"], "datetime64[ms]")
    assert format_times(times) == [f"{day}T10:15:00Z", f"{day}T10:15:00.250000Z"]


@given(st.lists(in_range | st.sampled_from([0, LAST_MS, LAST_MS - 999]), min_size=1, max_size=20))
def test_text_of_times_gives_them_again_and_depends_on_no_neighbour(ms: list[int]) -> None:
    times = np.array(ms, "datetime64[ms]")
    written = format_times(times)
    assert [parse_time_ms(text) for text in written] == ms
    assert written == [format_times(times[i : i + 1])[0] for i in range(len(ms))]
    assert {len(text) for text in written} <= {len("2013-01-01T00:00:00Z"), len("2013-01-01T00:00:00.000000Z")}

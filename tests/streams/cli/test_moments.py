"""Moments on the command line."""

from __future__ import annotations

import time

import click
import pytest

from modelstream.streams.cli.moments import TimeType


def moment(text):
    return TimeType().convert(text, None, None)


@pytest.mark.parametrize("text", ["2h", "-2h", "120m", "-7200 s"])
def test_how_long_ago(text):
    before = time.time()
    found = moment(text) + 7_200_000
    assert int(before * 1000) <= found <= time.time() * 1000


def test_iso_8601_is_utc_unless_it_says_otherwise():
    assert moment("1970-01-01T00:00:01") == moment("1970-01-01T01:00:01+01:00") == 1000


@pytest.mark.parametrize("text", ["soon", "--2h", "2", ""])
def test_what_is_no_moment_says_how_to_write_one(text):
    with pytest.raises(click.BadParameter, match="is no time; write how long ago, as 30m, 2h or 7d"):
        moment(text)

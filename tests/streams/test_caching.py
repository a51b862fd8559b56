"""Which Redis a worker takes, and what it says where that does not answer."""

from __future__ import annotations

import logging

import pytest

from modelstream.models.errors import ConfigError
from modelstream.streams.caching import cache_settings, warn_if_away
from modelstream.streams.settings import RedisSettings
from modelstream.streams.spec import PipelineSpec, parse_spec


def spec(*, cached: bool = True, redis: str | None = None) -> PipelineSpec:
    asking = {"models": ["m"], "cache": {} if cached else None}
    return parse_spec(
        {
            "pipeline": "p",
            "source": {"topic": "in"},
            "stages": [{"id": "first", "infer": {"models": ["k"]}}, {"id": "ask", "infer": asking}],
            "sink": {"topic": "out"},
            "redis": redis,
        }
    )


def test_the_option_comes_before_the_environment_and_the_file() -> None:
    environ = {"MODELSTREAM_REDIS": "redis://b"}
    assert cache_settings(spec(redis="redis://c"), "redis://a", environ) == RedisSettings("redis://a")
    assert cache_settings(spec(redis="redis://c"), None, environ) == RedisSettings("redis://b")
    assert cache_settings(spec(redis="redis://c"), None, {}) == RedisSettings("redis://c")


def test_a_cache_needs_the_name_of_a_redis() -> None:
    with pytest.raises(ConfigError, match=r"stages\[1\]\.infer\.cache: needs a Redis") as raised:
        cache_settings(spec(), None, {})
    assert raised.value.path == "stages[1].infer.cache"


def test_no_cache_needs_none() -> None:
    assert cache_settings(spec(cached=False), "redis://a", {}) is None
    assert cache_settings(spec(cached=False), None, {}) is None


def test_a_redis_that_is_away_is_a_warning_without_its_password(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        warn_if_away(RedisSettings("redis://me:s3cret@127.0.0.1:1/0"))
    assert "Redis does not answer: " in caplog.text
    assert "refused" in caplog.text
    assert "s3cret" not in caplog.text


@pytest.mark.redis
def test_a_redis_that_answers_is_no_news(redis_url: str, caplog: pytest.LogCaptureFixture) -> None:
    warn_if_away(RedisSettings(redis_url))
    assert not caplog.records

"""``modelstream demo`` and its cache; the integration tests look at what it counts."""

from __future__ import annotations

import contextlib
import io

import orjson
import pytest
from redis import Redis
from rich.console import Console

from modelstream.models.errors import ConfigError
from modelstream.streams.cli.demo import _cache_url
from modelstream.streams.embedded import EmbeddedCache


@pytest.mark.embedded
@pytest.mark.redis
def test_a_redis_of_ones_own_keeps_the_answers(run, redis_url, tmp_path):
    file = tmp_path / "summary.json"
    # How to be let in at a Kafka of one's own is nothing to the embedded one.
    elsewhere = {"MODELSTREAM_KAFKA_SECURITY_PROTOCOL": "SSL"}
    done = run("demo", "--events", 1_000, "--redis", redis_url, "--json", file, **elsewhere)
    assert done.returncode == 0, done.stderr
    summary = orjson.loads(file.read_bytes())
    assert summary["cache_hits"] + summary["cache_misses"] == summary["predictions"]
    assert f"{summary['cache_hits']:,} / {summary['cache_misses']:,}" in done.stdout
    with Redis.from_url(redis_url) as client:
        assert client.dbsize() > 0


def test_without_an_embedded_cache_it_goes_on(monkeypatch):
    def nothing_installed(self):
        raise ConfigError("", "no embedded cache is installed")

    monkeypatch.setattr(EmbeddedCache, "find_binary", nothing_installed)
    written = io.StringIO()
    with contextlib.ExitStack() as stack:
        assert _cache_url(None, {}, Console(file=written), stack) is None
    assert "going on without a cache: no embedded cache is installed" in written.getvalue()


def test_a_redis_that_is_none_is_refused():
    with contextlib.ExitStack() as stack, pytest.raises(ConfigError, match="--redis: must be a URL"):
        _cache_url("localhost", {}, Console(file=io.StringIO()), stack)

from __future__ import annotations

import pytest

from modelstream.operators.redis_url import RedisUrl


@pytest.mark.parametrize(
    ("text", "kind", "hosts", "master", "base"),
    [
        ("redis://cache", "server", (("cache", 6379),), "", "redis://cache:6379/"),
        ("rediss://u:p@cache:1/2?a=b", "server", (("cache", 1),), "", "rediss://u:p@cache:1/2?a=b"),
        ("redis://[::1]:7000", "server", (("::1", 7000),), "", "redis://[::1]:7000/"),
        ("redis://:s@cr:t@cache", "server", (("cache", 6379),), "", "redis://:s@cr:t@cache:6379/"),
        ("unix:///run/redis.sock?db=1", "server", (), "", "unix:///run/redis.sock?db=1"),
        ("redis+cluster://a,b:1", "cluster", (("a", 6379), ("b", 1)), "", "redis://a:6379/"),
        ("rediss+cluster://u:p@a/0?x=y", "cluster", (("a", 6379),), "", "rediss://u:p@a:6379/0?x=y"),
        ("redis+sentinel://a,b:1/my%20master", "sentinel", (("a", 26379), ("b", 1)), "my master", "redis://a:26379/"),
        ("rediss+sentinel://:p@a/m/3", "sentinel", (("a", 26379),), "m", "rediss://:p@a:26379/3"),
    ],
)
def test_parts(text: str, kind: str, hosts: tuple[tuple[str, int], ...], master: str, base: str) -> None:
    url = RedisUrl.parse(text)
    assert (url.kind, url.hosts, url.master, url.base) == (kind, hosts, master, base)
    assert "base" not in repr(url)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "not the URL"),
        ("cache:6379", "not the URL"),
        ("http://cache", "not the URL"),
        ("redis://", "a host must be"),
        ("redis://a:s3cret", "a host must be"),
        ("redis://a:0", "a host must be"),
        ("redis://a:65536", "a host must be"),
        ("unix://", "the path of a socket"),
        ("redis://a,b", "several hosts"),
        ("redis+cluster://a,,b", "a host must be"),
        ("redis+cluster://a/1", "only database 0"),
        ("redis+sentinel://a", "name of the master"),
        ("redis+sentinel://a/", "name of the master"),
        ("redis://:s3cret/@a", "a host must be"),
    ],
)
def test_what_is_none(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem) as raised:
        RedisUrl.parse(text)
    assert "s3cret" not in str(raised.value)

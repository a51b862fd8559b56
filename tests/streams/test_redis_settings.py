"""Which Redis is taken, what is secret about it, and what the environment adds to its URL."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from modelstream.models.errors import ConfigError
from modelstream.operators.redis_url import RedisUrl
from modelstream.streams import settings
from modelstream.streams.redis_settings import RedisSettings, redis_problem


def url(option: str | None = None, in_file: str | None = None, **environ: str) -> str | None:
    found = RedisSettings.resolve(option=option, in_file=in_file, environ=environ)
    return found and found.url


def test_option_before_environment_before_file() -> None:
    assert url("redis://a", "redis://c", MODELSTREAM_REDIS="redis://b") == "redis://a"
    assert url(None, "redis://c", MODELSTREAM_REDIS="redis://b") == "redis://b"
    assert url(None, "redis://c") == "redis://c"
    assert url(None, None, MODELSTREAM_REDIS="") is None


def test_settings_have_it_too() -> None:
    assert settings.RedisSettings is RedisSettings


@pytest.mark.parametrize(
    "text",
    [
        "redis://:s3cret@cache:6379/0",
        "rediss://me:s3@cret@cache:6379/0",
        "unix://me:s3cret@/run/redis.sock?db=1",
        "redis://cache?password=s3cret",
        "redis+sentinel://:s3cret@cache,other/m/0?sentinel_password=s3cret",
        "rediss+cluster://me:s3cret@cache,other",
    ],
)
def test_secrets_are_not_shown(text: str) -> None:
    assert redis_problem(text) is None
    shown = repr(RedisSettings(text))
    assert not re.search("s3|cret", shown)
    assert "cache" in shown or "/run/redis.sock" in shown


@pytest.mark.parametrize("text", ["cache", "cache:6379", "http://cache", "redis://", "redis://a:s3cret", "unix://"])
def test_a_wrong_url_is_not_shown_either(text: str) -> None:
    assert redis_problem(text)
    with pytest.raises(ConfigError) as caught:
        url(MODELSTREAM_REDIS=text)
    assert str(caught.value) == (
        "MODELSTREAM_REDIS: must be a URL such as redis://HOST:6379/0 "
        "(also rediss://, unix://, redis+cluster://, redis+sentinel://)"
    )


def test_what_is_wrong_with_several_hosts() -> None:
    assert redis_problem("redis://a,b") == "several hosts need the scheme redis+cluster:// or redis+sentinel://"
    assert redis_problem("redis+cluster://a/3") == "a cluster has only database 0"
    assert "needs the name of the master" in (redis_problem("redis+sentinel://a") or "")


def test_a_login_from_the_environment(tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text("p@ss/w0rd?\n")
    found = url(
        in_file="rediss+cluster://a,b:7000",
        MODELSTREAM_REDIS_USERNAME="cache user",
        MODELSTREAM_REDIS_PASSWORD_FILE=str(secret),
    )
    assert found == "rediss+cluster://cache%20user:p%40ss%2Fw0rd%3F@a,b:7000"
    assert RedisUrl.parse(found).hosts == (("a", 6379), ("b", 7000))
    assert url("redis://a/0", MODELSTREAM_REDIS_PASSWORD="x") == "redis://:x@a/0"
    assert url("unix:///run/redis.sock", MODELSTREAM_REDIS_PASSWORD="x") == "unix://:x@/run/redis.sock"


@pytest.mark.parametrize("text", ["redis://:s3cret@a/0", "redis://a/0?password=s3cret"])
def test_a_password_does_not_stand_on_a_command_line(text: str) -> None:
    assert url(MODELSTREAM_REDIS=text) == text
    with pytest.raises(ConfigError) as caught:
        url(text)
    assert str(caught.value).startswith("--redis: user name and password do not belong on a command line")
    assert "s3cret" not in str(caught.value)


def test_certificates_from_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "ca.crt"
    file.write_text("")
    found = url("rediss://a/0?ssl_check_hostname=false", MODELSTREAM_REDIS_SSL_CA_LOCATION=str(file))
    assert found is not None
    assert found.startswith("rediss://a/0?ssl_check_hostname=false&ssl_ca_certs=")


@pytest.mark.parametrize(
    ("environ", "problem"),
    [
        ({"MODELSTREAM_REDIS_PASWORD": "s3cret"}, "MODELSTREAM_REDIS_PASWORD: unknown environment variable; did you"),
        ({"MODELSTREAM_REDIS_USERNAME": "me"}, "MODELSTREAM_REDIS_USERNAME: needs MODELSTREAM_REDIS_PASSWORD"),
        (
            {"MODELSTREAM_REDIS_PASSWORD": "s3cret", "MODELSTREAM_REDIS": "redis://:s3cret@a"},
            "MODELSTREAM_REDIS_PASSWORD: is set, but the URL of MODELSTREAM_REDIS has a login of its own",
        ),
        (
            {"MODELSTREAM_REDIS_PASSWORD": "s3cret", "MODELSTREAM_REDIS_PASSWORD_FILE": "/none"},
            "MODELSTREAM_REDIS_PASSWORD_FILE: is set, and MODELSTREAM_REDIS_PASSWORD too; set one of them",
        ),
        (
            {"MODELSTREAM_REDIS_PASSWORD_FILE": "/none"},
            "MODELSTREAM_REDIS_PASSWORD_FILE: /none cannot be read:",
        ),
        ({"MODELSTREAM_REDIS_PASSWORD_FILE": "/dev/null"}, "MODELSTREAM_REDIS_PASSWORD_FILE: /dev/null is empty"),
        ({"MODELSTREAM_REDIS_SSL_CA_LOCATION": "/none"}, "MODELSTREAM_REDIS_SSL_CA_LOCATION: is set, but the URL of"),
        (
            {"MODELSTREAM_REDIS_SSL_CA_LOCATION": "/none", "MODELSTREAM_REDIS": "rediss://a"},
            "MODELSTREAM_REDIS_SSL_CA_LOCATION: no such file: /none",
        ),
    ],
)
def test_what_is_wrong_with_the_environment(environ: dict[str, str], problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        url(**{"MODELSTREAM_REDIS": "redis://a", **environ})
    assert str(caught.value).startswith(problem)
    assert "s3cret" not in str(caught.value)

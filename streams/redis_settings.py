"""Where Redis is, and how to be let in."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit, urlunsplit

from modelstream.models.errors import ConfigError, did_you_mean
from modelstream.operators.redis_url import RedisUrl
from modelstream.streams.given import first_given, read_secret

__all__ = ["RedisSettings", "redis_problem"]

_PREFIX = "MODELSTREAM_REDIS_"
#: Environment variables beside MODELSTREAM_REDIS, less their common prefix.
_VARIABLES = ("USERNAME", "PASSWORD", "PASSWORD_FILE", "SSL_CA_LOCATION")


def redis_problem(url: str) -> str | None:
    """Return what is wrong with the URL of a Redis, or None; the text shows no password.

    Examples
    --------
    >>> redis_problem("redis://localhost:6379/0")
    >>> redis_problem("redis+sentinel://one,two")
    'a URL redis+sentinel:// needs the name of the master: redis+sentinel://HOST/MASTER/0'
    >>> redis_problem("localhost:6379")
    'must be a URL such as redis://HOST:6379/0 (also rediss://, unix://, redis+cluster://, redis+sentinel://)'
    """
    try:
        RedisUrl.parse(url)
    except ValueError as error:
        text = str(error)
        if text.startswith(("several", "a URL redis+", "a cluster")):
            return text
        return (
            "must be a URL such as redis://HOST:6379/0 (also rediss://, unix://, redis+cluster://, redis+sentinel://)"
        )
    return None


@dataclass(frozen=True, slots=True)
class RedisSettings:
    """Where Redis is.

    Parameters
    ----------
    url : str
        ``redis://…``, ``rediss://…``, ``unix://…``, ``redis+cluster://…`` or ``redis+sentinel://…``, the last two with
        TLS too (``rediss+cluster://…``); it may hold a user name, a password and options.

    Examples
    --------
    >>> RedisSettings("redis://:secret@cache:6379/0")
    RedisSettings(url='redis://***@cache:6379/0')
    """

    url: str

    @classmethod
    def resolve(cls, *, option: str | None, in_file: str | None, environ: Mapping[str, str]) -> RedisSettings | None:
        """Return the settings of this run, or None where no Redis is named.

        Parameters
        ----------
        option : str or None
            What ``--redis`` says.
        in_file : str or None
            ``redis`` in the pipeline file.
        environ : mapping of str to str
            ``MODELSTREAM_REDIS``, and ``MODELSTREAM_REDIS_…``: see `docs/cache.md`.

        Raises
        ------
        ConfigError
            The URL or another value is wrong, or ``--redis`` holds a password; the message shows neither the URL nor
            a secret.
        """
        found = first_given(
            ("--redis", option), ("MODELSTREAM_REDIS", environ.get("MODELSTREAM_REDIS")), ("redis", in_file)
        )
        if found is None:
            return None
        path, url = found
        if problem := redis_problem(url):
            raise ConfigError(path, problem)
        if option and _holds_login(url):
            raise ConfigError(
                path,
                "user name and password do not belong on a command line, where others see them; "
                f"set MODELSTREAM_REDIS to this URL, or {_PREFIX}PASSWORD, or {_PREFIX}PASSWORD_FILE",
            )
        return cls(_with_login(url, path, environ))

    def __repr__(self) -> str:
        # redis-py takes a password before the @ or in the query. Greedy: a password may itself hold an @.
        shown = re.sub(r"\?.*", "?***", re.sub(r"^([\w+]+://).*@", r"\1***@", self.url))
        return f"RedisSettings(url={shown!r})"


def _holds_login(url: str) -> bool:
    parts = urlsplit(url)
    return "@" in parts.netloc or "password" in parts.query


def _with_login(url: str, path: str, environ: Mapping[str, str]) -> str:
    """Return the URL with what the environment says of user name, password and certificates."""
    for name in environ:
        if name.startswith(_PREFIX) and name.removeprefix(_PREFIX) not in _VARIABLES:
            hint = did_you_mean(name, [_PREFIX + variable for variable in _VARIABLES])
            raise ConfigError(name, f"unknown environment variable{hint}")
    given: dict[str, Any] = {name: environ.get(_PREFIX + name) or None for name in _VARIABLES}
    user = given["USERNAME"]
    password = read_secret(_PREFIX + "PASSWORD", given["PASSWORD"], given["PASSWORD_FILE"])
    ca_location = given["SSL_CA_LOCATION"]
    if not (user or password or ca_location):
        return url
    parts = urlsplit(url)
    if user or password:
        if user and not password:
            raise ConfigError(_PREFIX + "USERNAME", f"needs {_PREFIX}PASSWORD, or {_PREFIX}PASSWORD_FILE")
        if "@" in parts.netloc:
            raise ConfigError(_PREFIX + "PASSWORD", f"is set, but the URL of {path} has a login of its own")
        parts = parts._replace(netloc=f"{quote(user or '', safe='')}:{quote(password or '', safe='')}@{parts.netloc}")
    if ca_location:
        if not parts.scheme.startswith("rediss"):
            raise ConfigError(_PREFIX + "SSL_CA_LOCATION", f"is set, but the URL of {path} is not rediss://")
        if not Path(ca_location).is_file():
            raise ConfigError(_PREFIX + "SSL_CA_LOCATION", f"no such file: {ca_location}")
        query = "&".join(filter(None, [parts.query, urlencode({"ssl_ca_certs": ca_location})]))
        parts = parts._replace(query=query)
    return urlunsplit(parts)

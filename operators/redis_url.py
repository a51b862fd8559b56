"""What the URL of a Redis says: one server, the nodes of a cluster, or sentinels that know the master."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import unquote, urlsplit

__all__ = ["RedisUrl"]

_SCHEMES: dict[str, tuple[Literal["server", "cluster", "sentinel"], str, int]] = {
    "redis": ("server", "redis", 6379),
    "rediss": ("server", "rediss", 6379),
    "redis+cluster": ("cluster", "redis", 6379),
    "rediss+cluster": ("cluster", "rediss", 6379),
    "redis+sentinel": ("sentinel", "redis", 26379),
    "rediss+sentinel": ("sentinel", "rediss", 26379),
}
_HOST = re.compile(r"(?:\[([0-9a-fA-F:.]+)\]|([^\s:/@,\[\]]+))(?::(\d{1,5}))?")


@dataclass(frozen=True, slots=True)
class RedisUrl:
    """The parts of a URL.

    Parameters
    ----------
    kind : {"server", "cluster", "sentinel"}
        What the hosts are.
    hosts : tuple of (str, int)
        Host and port of each; none for a Unix socket.
    master : str
        Of sentinels: the name of the master that they watch.
    base : str
        A URL that redis-py understands, of the first host: scheme, user, password, database and options. It is not
        shown.

    Examples
    --------
    >>> url = RedisUrl.parse("redis+sentinel://:secret@one:26379,two/predictions/1")
    >>> url
    RedisUrl(kind='sentinel', hosts=(('one', 26379), ('two', 26379)), master='predictions')
    >>> url.base
    'redis://:secret@one:26379/1'
    """

    kind: Literal["server", "cluster", "sentinel"]
    hosts: tuple[tuple[str, int], ...]
    master: str = ""
    base: str = field(default="", repr=False)

    @classmethod
    def parse(cls, text: str) -> RedisUrl:
        """Return the parts of a URL.

        Raises
        ------
        ValueError
            If it is none of a Redis; the message does not show it.
        """
        parts = urlsplit(text)
        if parts.scheme == "unix":
            if not parts.path:
                raise ValueError("a URL unix:// needs the path of a socket")
            return cls("server", (), base=text)
        if parts.scheme not in _SCHEMES:
            raise ValueError("not the URL of a Redis")
        kind, scheme, port = _SCHEMES[parts.scheme]
        login, at, hosts_text = parts.netloc.rpartition("@")
        hosts = tuple(_host(one, port) for one in hosts_text.split(","))
        if kind == "server" and len(hosts) > 1:
            raise ValueError("several hosts need the scheme redis+cluster:// or redis+sentinel://")
        master, path = "", parts.path.strip("/")
        if kind == "sentinel":
            master, _, path = path.partition("/")
            if not master:
                raise ValueError("a URL redis+sentinel:// needs the name of the master: redis+sentinel://HOST/MASTER/0")
        if kind == "cluster" and path not in ("", "0"):
            raise ValueError("a cluster has only database 0")
        host, first_port = hosts[0]
        shown = f"[{host}]" if ":" in host else host
        base = f"{scheme}://{login}{at}{shown}:{first_port}/{path}{'?' if parts.query else ''}{parts.query}"
        return cls(kind, hosts, unquote(master), base)


def _host(text: str, default_port: int) -> tuple[str, int]:
    match = _HOST.fullmatch(text)
    port = int(match[3] or default_port) if match else 0
    if match is None or not 0 < port < 65536:
        raise ValueError("a host must be HOST or HOST:PORT, several with commas between")
    return match[1] or match[2], port

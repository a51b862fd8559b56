"""Where Kafka is, and how to be let in: one setting for both clients of a worker, aiokafka and librdkafka."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from modelstream.models.errors import ConfigError, did_you_mean
from modelstream.streams.given import first_given, read_secret
from modelstream.streams.oauth import TokenSource, endpoint_problem
from modelstream.streams.tls import Tls

__all__ = ["BrokerSettings", "bootstrap_problem"]

_ADDRESS = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^\s:/@,\[\]]+):(\d{1,5})")
_PROTOCOLS = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
_OAUTH = "OAUTHBEARER"
_MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", _OAUTH)
_PREFIX = "MODELSTREAM_KAFKA_"

# How long clients wait at the most before they try to connect again. At librdkafka's 10 s, a broker that was away for
# half a minute is back for up to 10 s more before it is noticed (8 to 10 s measured, 1 s with this). Its setup of a
# connection, 30 s by default, may not outlast a request.
_RECONNECT = {"reconnect.backoff.max.ms": 1000, "socket.connection.setup.timeout.ms": 10_000}


def bootstrap_problem(bootstrap: str) -> str | None:
    """Return what is wrong with a list of broker addresses, or None.

    Examples
    --------
    >>> bootstrap_problem("kafka-1:9092,[::1]:9092")
    >>> bootstrap_problem("kafka://localhost")
    "must be HOST:PORT, or several with commas between, not 'kafka://localhost'"
    """
    parts = [_ADDRESS.fullmatch(part.strip()) for part in bootstrap.split(",")]
    if all(part and 0 < int(part.group(2)) < 65536 for part in parts):
        return None
    shown = re.sub(r"[^/,]*@", "***@", bootstrap)  # whoever writes a user name there writes a password too
    return f"must be HOST:PORT, or several with commas between, not {shown!r}"


@dataclass(frozen=True, slots=True)
class BrokerSettings:
    """Where Kafka is, and how to be let in.

    Parameters
    ----------
    bootstrap : str
        Addresses ``HOST:PORT``, with commas between.
    security_protocol : str
        As librdkafka's ``security.protocol``: ``PLAINTEXT``, ``SSL``, ``SASL_PLAINTEXT`` or ``SASL_SSL``.
    sasl_mechanism : str, optional
        ``PLAIN``, ``SCRAM-SHA-256``, ``SCRAM-SHA-512`` or ``OAUTHBEARER``.
    username, password : str, optional
        For the first three.
    tokens : TokenSource, optional
        For ``OAUTHBEARER``.
    tls : Tls
        Certificates, for the protocols with ``SSL``.

    Examples
    --------
    >>> BrokerSettings("localhost:9092").librdkafka()["bootstrap.servers"]
    'localhost:9092'
    """

    bootstrap: str
    security_protocol: str = "PLAINTEXT"
    sasl_mechanism: str | None = None
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    tokens: TokenSource | None = None
    tls: Tls = field(default_factory=Tls)

    @classmethod
    def resolve(cls, *, option: str | None, in_file: str | None, environ: Mapping[str, str]) -> BrokerSettings:
        """Return the settings of this run.

        Parameters
        ----------
        option : str or None
            What ``--broker`` says.
        in_file : str or None
            ``broker`` in the pipeline file.
        environ : mapping of str to str
            ``MODELSTREAM_BROKER``, and for security ``MODELSTREAM_KAFKA_…``: see `docs/security.md`.

        Raises
        ------
        ConfigError
            No broker is named, or a value is wrong; no message shows a secret.
        """
        found = first_given(
            ("--broker", option), ("MODELSTREAM_BROKER", environ.get("MODELSTREAM_BROKER")), ("broker", in_file)
        )
        if found is None:
            raise ConfigError(
                "broker", "no broker named; give --broker HOST:PORT, set MODELSTREAM_BROKER, or name it in the file"
            )
        path, bootstrap = found
        if problem := bootstrap_problem(bootstrap):
            raise ConfigError(path, problem)
        return cls(",".join(part.strip() for part in bootstrap.split(",")), **_security(environ))

    @property
    def uses_sasl(self) -> bool:
        """Whether the broker asks for a login."""
        return self.security_protocol.startswith("SASL_")

    @property
    def uses_tls(self) -> bool:
        """Whether the connection is encrypted."""
        return self.security_protocol.endswith("SSL")

    @property
    def has_login(self) -> bool:
        """Whether the broker knows who this client is."""
        return self.security_protocol != "PLAINTEXT"

    @property
    def principal(self) -> str:
        """Who this client is to the broker's access control lists, unless the broker maps names to others."""
        if self.uses_sasl:
            return f"User:{self.tokens.principal if self.tokens else self.username}"
        return f"User:{(self.uses_tls and self.tls.subject) or 'ANONYMOUS'}"

    def librdkafka(self) -> dict[str, Any]:
        """Return the settings as librdkafka's configuration properties, secrets among them."""
        config: dict[str, Any] = {"bootstrap.servers": self.bootstrap, **_RECONNECT}
        if self.has_login:
            config["security.protocol"] = self.security_protocol
        if self.uses_sasl:
            config["sasl.mechanism"] = self.sasl_mechanism or "PLAIN"
        if self.uses_sasl and self.tokens is not None:
            config["oauth_cb"] = self.tokens.for_librdkafka
        elif self.uses_sasl:
            config["sasl.username"] = self.username or ""
            config["sasl.password"] = self.password or ""
        return config | (self.tls.librdkafka() if self.uses_tls else {})

    def faust(self) -> Any:
        """Return the settings as Faust's credentials, secrets among them; None for a plain connection."""
        if not self.has_login:
            return None
        # Here, so that reading a pipeline does not wait for Faust's import.
        from faust.auth import OAuthCredentials, SASLCredentials, SSLCredentials

        logging.getLogger("aiokafka.conn").addFilter(_NO_LOGINS)
        context = self.tls.context() if self.uses_tls else None
        if not self.uses_sasl:
            return SSLCredentials(context)
        if self.tokens is not None:
            return OAuthCredentials(oauth_cb=self.tokens.for_aiokafka(), ssl_context=context)
        return SASLCredentials(
            username=self.username, password=self.password, mechanism=self.sasl_mechanism, ssl_context=context
        )


class _LoginFilter(logging.Filter):
    """Drops one kind of message: at level debug aiokafka logs every request, those with the password in it too."""

    def filter(self, record: logging.LogRecord) -> bool:
        arguments = record.args if isinstance(record.args, tuple) else ()
        return not any(type(argument).__name__.startswith("SaslAuthenticate") for argument in arguments)


_NO_LOGINS = _LoginFilter()

_OAUTH_VARIABLES = tuple(
    f"SASL_OAUTHBEARER_{name}"
    for name in ("TOKEN_ENDPOINT_URL", "CLIENT_ID", "CLIENT_SECRET", "CLIENT_SECRET_FILE", "SCOPE")
)
_TLS_VARIABLES = (
    "SSL_CA_LOCATION",
    "SSL_CERTIFICATE_LOCATION",
    "SSL_KEY_LOCATION",
    "SSL_KEY_PASSWORD",
    "SSL_KEY_PASSWORD_FILE",
    "SSL_ENDPOINT_IDENTIFICATION_ALGORITHM",
)
#: Environment variables of `BrokerSettings`, less their common prefix: librdkafka's properties of these names.
_VARIABLES = (
    "SECURITY_PROTOCOL",
    "SASL_MECHANISM",
    "SASL_USERNAME",
    "SASL_PASSWORD",
    "SASL_PASSWORD_FILE",
    *_OAUTH_VARIABLES,
    *_TLS_VARIABLES,
)

_Given = dict[str, str | None]


def _security(environ: Mapping[str, str]) -> dict[str, Any]:
    for name in environ:
        if name.startswith(_PREFIX) and name.removeprefix(_PREFIX) not in _VARIABLES:
            hint = did_you_mean(name, [_PREFIX + variable for variable in _VARIABLES])
            raise ConfigError(name, f"unknown environment variable{hint}")
    given: _Given = {name: environ.get(_PREFIX + name) or None for name in _VARIABLES}
    protocol = _one_of("SECURITY_PROTOCOL", given["SECURITY_PROTOCOL"], _PROTOCOLS) or "PLAINTEXT"
    return {"security_protocol": protocol, "tls": _tls(given, protocol), **_sasl(given, protocol)}


def _sasl(given: _Given, protocol: str) -> dict[str, Any]:
    mechanism = _one_of("SASL_MECHANISM", given["SASL_MECHANISM"], _MECHANISMS)
    password = _secret(given, "SASL_PASSWORD")
    oauth = _oauth(given)
    logs_in = bool(given["SASL_USERNAME"] or password)
    if not protocol.startswith("SASL_"):
        if mechanism or logs_in or oauth:
            # Silently not logging in would be found out only from the broker's refusal.
            raise ConfigError(_PREFIX + "SECURITY_PROTOCOL", f"SASL is set up, but {protocol} does not use it")
        return {}
    mechanism = mechanism or "PLAIN"
    if mechanism == _OAUTH:
        if logs_in:
            raise ConfigError(_PREFIX + "SASL_MECHANISM", f"{mechanism} takes tokens, no user name and no password")
        if oauth is None:
            names = " and ".join(_PREFIX + name for name in _OAUTH_VARIABLES[:3])
            raise ConfigError(_PREFIX + "SASL_MECHANISM", f"{mechanism} needs {names}")
        return {"sasl_mechanism": mechanism, "tokens": oauth}
    if oauth is not None:
        raise ConfigError(_PREFIX + "SASL_MECHANISM", f"tokens are set up, but {mechanism} does not use them")
    if not (given["SASL_USERNAME"] and password):
        raise ConfigError(
            _PREFIX + "SECURITY_PROTOCOL",
            f"{protocol} needs {_PREFIX}SASL_USERNAME, and {_PREFIX}SASL_PASSWORD or {_PREFIX}SASL_PASSWORD_FILE",
        )
    return {"sasl_mechanism": mechanism, "username": given["SASL_USERNAME"], "password": password}


def _oauth(given: _Given) -> TokenSource | None:
    secret = _secret(given, "SASL_OAUTHBEARER_CLIENT_SECRET")
    if not any(given[name] for name in _OAUTH_VARIABLES):
        return None
    endpoint, client_id = (given[name] for name in _OAUTH_VARIABLES[:2])
    for name, value in zip(_OAUTH_VARIABLES, (endpoint, client_id, secret), strict=False):
        if not value:
            raise ConfigError(_PREFIX + name, f"is not set; {_OAUTH} needs it")
    assert endpoint and client_id and secret
    if problem := endpoint_problem(endpoint):
        raise ConfigError(_PREFIX + _OAUTH_VARIABLES[0], problem)
    return TokenSource(endpoint, client_id, secret, given["SASL_OAUTHBEARER_SCOPE"])


def _tls(given: _Given, protocol: str) -> Tls:
    algorithm = given["SSL_ENDPOINT_IDENTIFICATION_ALGORITHM"]
    if algorithm is not None and algorithm.lower() not in ("https", "none"):
        raise ConfigError(
            _PREFIX + "SSL_ENDPOINT_IDENTIFICATION_ALGORITHM",
            f"must be https, or none where the broker's certificate need not name its host, not {algorithm!r}",
        )
    tls = Tls(
        given["SSL_CA_LOCATION"],
        given["SSL_CERTIFICATE_LOCATION"],
        given["SSL_KEY_LOCATION"],
        _secret(given, "SSL_KEY_PASSWORD"),
        (algorithm or "https").lower() == "https",
    )
    if tls == Tls():
        return tls
    if (tls.key_location or tls.key_password) and not tls.certificate_location:
        raise ConfigError(_PREFIX + "SSL_CERTIFICATE_LOCATION", "is not set, but the key of a certificate is")
    if problem := tls.file_problem():
        raise ConfigError(f"{_PREFIX}SSL_{problem[0].upper()}", problem[1])
    if not protocol.endswith("SSL"):
        # Else what is meant to be encrypted would go in the clear.
        raise ConfigError(_PREFIX + "SECURITY_PROTOCOL", f"TLS is set up, but {protocol} does not use it")
    return tls


def _secret(given: _Given, name: str) -> str | None:
    return read_secret(_PREFIX + name, given[name], given[f"{name}_FILE"])


def _one_of(variable: str, value: str | None, known: tuple[str, ...]) -> str | None:
    if value is None or value.upper() in known:
        return value and value.upper()
    hint = did_you_mean(value.upper(), known)
    raise ConfigError(_PREFIX + variable, f"must be one of {', '.join(known)}, not {value!r}{hint}")

"""What is not the pipeline's business: where Kafka and Redis are, the secrets for them, and the engine's limits.

Each value is looked for in this order: the command-line option, the environment, the pipeline file. Secrets come from
the environment or from files only, and no ``repr`` shows them.

Usage::

    broker = BrokerSettings.resolve(option="kafka-1:9092,kafka-2:9092", in_file=spec.broker, environ=os.environ)
    redis = RedisSettings.resolve(option=None, in_file=spec.redis, environ=os.environ)
    limits = EngineLimits(linger_ms=5)
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from modelstream.models.errors import ConfigError, did_you_mean
from modelstream.streams.given import first_given, read_secret
from modelstream.streams.redis_settings import RedisSettings, redis_problem

__all__ = ["BrokerSettings", "EngineLimits", "RedisSettings", "bootstrap_problem", "redis_problem"]

_ADDRESS = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^\s:/@,\[\]]+):(\d{1,5})")
_PROTOCOLS = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
_MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
_PREFIX = "MODELSTREAM_KAFKA_"


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
        ``PLAIN``, ``SCRAM-SHA-256`` or ``SCRAM-SHA-512``.
    username, password : str, optional
        For SASL.
    ca_location : str, optional
        File with the certificates to trust instead of the system's.

    Examples
    --------
    >>> BrokerSettings("localhost:9092").librdkafka()
    {'bootstrap.servers': 'localhost:9092'}
    """

    bootstrap: str
    security_protocol: str = "PLAINTEXT"
    sasl_mechanism: str | None = None
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    ca_location: str | None = None

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
            ``MODELSTREAM_BROKER``, and for security ``MODELSTREAM_KAFKA_…``: see `docs/pipeline.md`.

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
        """Whether the broker asks for a user name and a password."""
        return self.security_protocol.startswith("SASL_")

    def librdkafka(self) -> dict[str, str]:
        """Return the settings as librdkafka's configuration properties, the password among them."""
        config = {"bootstrap.servers": self.bootstrap}
        if self.security_protocol != "PLAINTEXT":
            config["security.protocol"] = self.security_protocol
        if self.uses_sasl:
            config["sasl.mechanism"] = self.sasl_mechanism or "PLAIN"
            config["sasl.username"] = self.username or ""
            config["sasl.password"] = self.password or ""
        if self.ca_location:
            config["ssl.ca.location"] = self.ca_location
        return config

    def faust(self) -> Any:
        """Return the settings as Faust's credentials, the password among them; None for a plain connection."""
        if self.security_protocol == "PLAINTEXT":
            return None
        # Here, so that reading a pipeline does not wait for Faust's import.
        import ssl

        from faust.auth import SASLCredentials, SSLCredentials

        context = ssl.create_default_context(cafile=self.ca_location) if self.security_protocol[-3:] == "SSL" else None
        if not self.uses_sasl:
            return SSLCredentials(context)
        return SASLCredentials(
            username=self.username, password=self.password, mechanism=self.sasl_mechanism, ssl_context=context
        )


#: Environment variables of `BrokerSettings`, less their common prefix.
_VARIABLES = (
    "SECURITY_PROTOCOL",
    "SASL_MECHANISM",
    "SASL_USERNAME",
    "SASL_PASSWORD",
    "SASL_PASSWORD_FILE",
    "SSL_CA_LOCATION",
)


def _security(environ: Mapping[str, str]) -> dict[str, Any]:
    for name in environ:
        if name.startswith(_PREFIX) and name.removeprefix(_PREFIX) not in _VARIABLES:
            hint = did_you_mean(name, [_PREFIX + variable for variable in _VARIABLES])
            raise ConfigError(name, f"unknown environment variable{hint}")
    given = {name: environ.get(_PREFIX + name) or None for name in _VARIABLES}
    protocol = _one_of("SECURITY_PROTOCOL", given["SECURITY_PROTOCOL"], _PROTOCOLS) or "PLAINTEXT"
    mechanism = _one_of("SASL_MECHANISM", given["SASL_MECHANISM"], _MECHANISMS)
    password = read_secret(_PREFIX + "SASL_PASSWORD", given["SASL_PASSWORD"], given["SASL_PASSWORD_FILE"])
    sasl = protocol.startswith("SASL_")
    if sasl and not (given["SASL_USERNAME"] and password):
        raise ConfigError(
            _PREFIX + "SECURITY_PROTOCOL",
            f"{protocol} needs {_PREFIX}SASL_USERNAME, and {_PREFIX}SASL_PASSWORD or {_PREFIX}SASL_PASSWORD_FILE",
        )
    if not sasl and (mechanism or given["SASL_USERNAME"] or password):
        # Silently not logging in would be found out only from the broker's refusal.
        raise ConfigError(_PREFIX + "SECURITY_PROTOCOL", f"SASL is set up, but {protocol} does not use it")
    ca_location = given["SSL_CA_LOCATION"]
    if ca_location and not Path(ca_location).is_file():
        raise ConfigError(_PREFIX + "SSL_CA_LOCATION", f"no such file: {ca_location}")
    return {
        "security_protocol": protocol,
        "sasl_mechanism": (mechanism or "PLAIN") if sasl else None,
        "username": given["SASL_USERNAME"],
        "password": password,
        "ca_location": ca_location,
    }


def _one_of(variable: str, value: str | None, known: tuple[str, ...]) -> str | None:
    if value is None or value.upper() in known:
        return value and value.upper()
    hint = did_you_mean(value.upper(), known)
    raise ConfigError(_PREFIX + variable, f"must be one of {', '.join(known)}, not {value!r}{hint}")


@dataclass(frozen=True, slots=True)
class EngineLimits:
    """How much the engine holds at once, and how long it waits.

    All are upper bounds or periods; each must be positive.

    Examples
    --------
    >>> EngineLimits(linger_ms=5).linger_ms
    5
    """

    #: Records of one fetch, over all partitions. A fetch takes what is there, so it is so large only under lag; then
    #: every batch pays for its hops between threads. With two partitions, of the throughput at 8,192: 0.9 at 4,096,
    #: 0.75 at 2,048 (measured).
    fetch_max_records: int = 8192
    #: Milliseconds a broker waits for data before it answers an empty fetch.
    fetch_wait_max_ms: int = 100
    #: Events between the fetch and the producer, over all partitions: two of the largest fetches, so that the data
    #: thread never idles.
    max_rows_in_flight: int = 16_384
    #: Bytes of raw records between the fetch and the producer; decoded events take about 10 times as much memory.
    max_bytes_in_flight: int = 32 * 1024 * 1024
    #: Records that the producer holds until the broker has them: about a second's worth, some 100 MB at the most.
    max_unsent_records: int = 200_000
    #: Bytes of one prediction record; a larger one becomes a dead letter. Kafka's default limit is 1 MiB.
    max_output_bytes: int = 1_000_000
    #: Seconds between commits. A killed worker repeats at most this much work plus what was in flight.
    commit_interval_s: float = 1.0
    #: Seconds to finish what is in flight at SIGTERM or revocation. With the last flush and commit it must stay below
    #: the 10 s after which Kubernetes and Compose kill.
    drain_timeout_s: float = 5.0
    #: Seconds a commit waits for the broker to confirm the outputs before it is left to the next commit.
    confirm_timeout_s: float = 2.0
    #: Seconds that an output may wait for the broker's confirmation before the worker gives up on it.
    delivery_timeout_s: float = 60.0
    #: Milliseconds the producer gathers records. Never 0: a produce request per few records starves the broker
    #: (p50 of 1.3 s at 20,000 events per second).
    linger_ms: float = 5
    #: Seconds without a heartbeat after which Kafka gives a worker's partitions away; Kafka's own minimum is 6.
    session_timeout_s: float = 6.0

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if not value > 0:
                raise ConfigError(item.name, f"must be above 0, not {value}")

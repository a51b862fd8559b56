"""An Apache Kafka that lets nobody in without a password, a token or a certificate, and nobody do what no ACL allows.

Besides the listeners of `LISTENERS` it has the plain one of every test broker, whose users may do everything: the
tests' own tools come in there.
"""

from __future__ import annotations

import json
import time
from base64 import urlsafe_b64encode
from collections.abc import Iterable, Mapping
from pathlib import Path

from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)
from support.certificates import Authority
from support.kafka_server import ApacheKafka
from support.kafka_tools import DEADLINE_S, admin_client

from modelstream.streams.embedded import free_port

LISTENERS = {"MUTUAL": "SSL", "ENCRYPTED": "SASL_SSL", "OPEN": "SASL_PLAINTEXT"}
#: A user who may do everything.
OPERATOR = "operator"
#: The users of the tests' one broker, with their passwords.
PASSWORDS = {OPERATOR: "operator-pa55", "worker": "worker-pa55"}
_MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER")
_UNSECURED = (
    "org.apache.kafka.common.security.oauthbearer.internals.unsecured.OAuthBearerUnsecuredValidatorCallbackHandler"
)

_RESOURCES = {
    "topic": ResourceType.TOPIC,
    "group": ResourceType.GROUP,
    "transactional_id": ResourceType.TRANSACTIONAL_ID,
}


class SecuredKafka(ApacheKafka):
    """Apache Kafka with an authorizer, TLS, client certificates and four SASL mechanisms.

    Parameters
    ----------
    folder : Path
        Where the certificates are written: its own names the host ``localhost``, and nothing else.
    users : mapping of str to str
        Names and passwords for PLAIN and SCRAM.
    """

    def __init__(self, folder: Path, users: Mapping[str, str]) -> None:
        self.authority = Authority(folder)
        self._users = dict(users)
        self._ports = {name: free_port() for name in LISTENERS}
        port, controller_port = free_port(), free_port()
        server = self.authority.issue("localhost", host="localhost")
        keystore = folder / "keystore.pem"
        keystore.write_bytes(server.key.read_bytes() + server.certificate.read_bytes())
        secured = {f"{name}://localhost:{at}" for name, at in self._ports.items()}
        settings = {
            "listeners": ",".join(
                [f"PLAINTEXT://127.0.0.1:{port}", f"CONTROLLER://127.0.0.1:{controller_port}", *secured]
            ),
            "advertised.listeners": ",".join([f"PLAINTEXT://127.0.0.1:{port}", *secured]),
            "controller.quorum.voters": f"1@127.0.0.1:{controller_port}",
            "listener.security.protocol.map": ",".join(
                ["PLAINTEXT:PLAINTEXT", "CONTROLLER:PLAINTEXT", *(f"{name}:{kind}" for name, kind in LISTENERS.items())]
            ),
            "inter.broker.listener.name": "PLAINTEXT",
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": f"User:ANONYMOUS;User:{OPERATOR}",
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(keystore),
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": str(self.authority.certificate),
            "listener.name.mutual.ssl.client.auth": "required",
        }
        for name in ("encrypted", "open"):
            settings |= _sasl(f"listener.name.{name}", self._users)
        super().__init__(port, settings)

    def address(self, listener: str) -> str:
        """Return the address of a listener of `LISTENERS`."""
        return f"localhost:{self._ports[listener]}"

    def make_scram_users(self) -> None:
        """Make the users known to SCRAM; PLAIN has them from the start."""
        admin = admin_client(self.bootstrap)
        credentials = [
            # Kafka's minimum of iterations: what they cost is not what is tested.
            UserScramCredentialUpsertion(user, ScramCredentialInfo(mechanism, 4096), password.encode())
            for user, password in self._users.items()
            for mechanism in (ScramMechanism.SCRAM_SHA_256, ScramMechanism.SCRAM_SHA_512)
        ]
        # A user may not stand twice in one request.
        for credential in credentials:
            for future in admin.alter_user_scram_credentials([credential]).values():
                future.result(DEADLINE_S)

    def allow(self, principal: str, kind: str, name: str, operations: Iterable[AclOperation]) -> None:
        """Let a principal do something with a ``topic``, a ``group`` or a ``transactional_id``."""
        bindings = [
            AclBinding(
                _RESOURCES[kind], name, ResourcePatternType.LITERAL, principal, "*", each, AclPermissionType.ALLOW
            )
            for each in operations
        ]
        admin = admin_client(self.bootstrap)
        for future in admin.create_acls(bindings).values():
            future.result(DEADLINE_S)
        # The controller has them; the broker, which is asked here, follows.
        deadline = time.monotonic() + DEADLINE_S
        while len(admin.describe_acls(_all_of(principal, kind, name)).result(DEADLINE_S)) < len(bindings):
            assert time.monotonic() < deadline, f"the broker does not know the rights of {principal}"
            time.sleep(0.02)

    def forbid(self, principal: str, kind: str, name: str) -> None:
        """Take back all that was allowed a principal with this topic or group."""
        admin = admin_client(self.bootstrap)
        for future in admin.delete_acls([_all_of(principal, kind, name)]).values():
            assert future.result(DEADLINE_S)


def _all_of(principal: str, kind: str, name: str) -> AclBindingFilter:
    return AclBindingFilter(
        _RESOURCES[kind], name, ResourcePatternType.LITERAL, principal, "*", AclOperation.ANY, AclPermissionType.ANY
    )


def _sasl(listener: str, users: Mapping[str, str]) -> dict[str, str]:
    module = "org.apache.kafka.common.security"
    known = " ".join(f'user_{name}="{password}"' for name, password in users.items())
    return {
        f"{listener}.sasl.enabled.mechanisms": ",".join(_MECHANISMS),
        f"{listener}.plain.sasl.jaas.config": f"{module}.plain.PlainLoginModule required {known};",
        f"{listener}.scram-sha-256.sasl.jaas.config": f"{module}.scram.ScramLoginModule required;",
        f"{listener}.scram-sha-512.sasl.jaas.config": f"{module}.scram.ScramLoginModule required;",
        f"{listener}.oauthbearer.sasl.jaas.config": f"{module}.oauthbearer.OAuthBearerLoginModule required;",
        f"{listener}.oauthbearer.sasl.server.callback.handler.class": _UNSECURED,
    }


def plain_login(user: str, password: str) -> dict[str, str]:
    """Return the environment of a worker that logs in to the listener ``OPEN`` by PLAIN."""
    return {
        "MODELSTREAM_KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT",
        "MODELSTREAM_KAFKA_SASL_MECHANISM": "PLAIN",
        "MODELSTREAM_KAFKA_SASL_USERNAME": user,
        "MODELSTREAM_KAFKA_SASL_PASSWORD": password,
    }


def unsigned_token(subject: str, issued_at: float, expires_at: float, **claims: object) -> str:
    """Return a token as Kafka's unsecured validator takes it: a JSON web token without a signature."""
    head = {"alg": "none"}
    body = {"sub": subject, "iat": issued_at, "exp": expires_at, **claims}
    parts = [urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in (head, body)]
    return ".".join([*parts, ""])

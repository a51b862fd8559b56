"""TLS to Kafka from one setting: whom to trust, and the certificate by which the broker knows this client."""

from __future__ import annotations

import re
import socket
import ssl
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Tls"]

# As Java, and so Kafka, writes what `ssl` gives the long names.
_SHORT_NAMES = {
    "commonName": "CN",
    "organizationName": "O",
    "organizationalUnitName": "OU",
    "localityName": "L",
    "stateOrProvinceName": "ST",
    "countryName": "C",
    "domainComponent": "DC",
}

# How long a broker may take for a handshake that is only to find out what is wrong.
_HANDSHAKE_TIMEOUT_S = 3.0


@dataclass(frozen=True, slots=True)
class Tls:
    """Certificates, as files in PEM.

    Parameters
    ----------
    ca_location : str, optional
        Certificates to trust instead of the system's.
    certificate_location, key_location : str, optional
        Certificate of this client and its private key; the key may stand in the file of the certificate.
    key_password : str, optional
        Of the private key.
    checks_host_name : bool
        Whether the broker's certificate must name the host that it was reached by.
    """

    ca_location: str | None = None
    certificate_location: str | None = None
    key_location: str | None = None
    key_password: str | None = field(default=None, repr=False)
    checks_host_name: bool = True

    def librdkafka(self) -> dict[str, str]:
        """Return the settings as librdkafka's configuration properties, the key's password among them."""
        config = {
            "ssl.ca.location": self.ca_location,
            "ssl.certificate.location": self.certificate_location,
            "ssl.key.location": self.key_location or self.certificate_location,
            "ssl.key.password": self.key_password,
            # librdkafka's default is to check it, as Kafka's is.
            "ssl.endpoint.identification.algorithm": None if self.checks_host_name else "none",
        }
        return {name: value for name, value in config.items() if value is not None}

    def context(self) -> ssl.SSLContext:
        """Return the settings as Python has them.

        Raises
        ------
        ssl.SSLError
            A file does not hold what it should; see `file_problem`.
        """
        context = ssl.create_default_context(cafile=self.ca_location)
        context.check_hostname = self.checks_host_name
        if self.certificate_location is not None:
            # Never None as password: OpenSSL would ask for it on the terminal.
            context.load_cert_chain(self.certificate_location, self.key_location, self.key_password or "")
        return context

    def file_problem(self) -> tuple[str, str] | None:
        """Return which of the fields is wrong, and what is wrong with its file; None where all are right."""
        for name in ("ca_location", "certificate_location", "key_location"):
            file = getattr(self, name)
            if file and not Path(file).is_file():
                return name, f"no such file: {file}"
        try:
            Tls(self.ca_location).context()
        except (ssl.SSLError, OSError):
            return "ca_location", f"{self.ca_location} holds no certificates in PEM"
        try:
            Tls(None, self.certificate_location, self.key_location, self.key_password).context()
        except (ssl.SSLError, OSError) as error:
            if getattr(error, "reason", None) == "KEY_VALUES_MISMATCH":
                return "key_location", f"{self.key_location} is not the key of {self.certificate_location}"
            key = self.key_location or self.certificate_location
            return "key_location", (
                f"{key} and {self.certificate_location} hold no private key and certificate in PEM, "
                + ("or the password is not the key's" if self.key_password else "or the key has a password")
            )
        return None

    @property
    def subject(self) -> str | None:
        """Subject of the client's certificate as Kafka writes it, None where there is no certificate."""
        if self.certificate_location is None:
            return None
        try:
            # Python has no public way to read a certificate that no server has sent; this one is as old as `ssl`.
            from _ssl import _test_decode_cert  # type: ignore[attr-defined]

            names = _test_decode_cert(self.certificate_location)["subject"]
        except (ImportError, KeyError, OSError):
            return self.certificate_location
        # RFC 2253, as in Java: last name first.
        pairs = [(_SHORT_NAMES.get(name, name), value) for ((name, value), *_) in reversed(names)]
        return ",".join(f"{name}=" + re.sub(r'([,+"\\<>;])', r"\\\1", value) for name, value in pairs)

    def handshake_problem(self, bootstrap: str) -> str | None:
        """Return why the certificate of the first broker is not accepted; None where it is, or nobody says."""
        host, _, port = bootstrap.split(",")[0].rpartition(":")
        host = host.strip("[]")
        try:
            with (
                socket.create_connection((host, int(port)), _HANDSHAKE_TIMEOUT_S) as connection,
                self.context().wrap_socket(connection, server_hostname=host),
            ):
                return None
        except ssl.SSLCertVerificationError as error:
            return error.verify_message.rstrip(".")
        except OSError:
            return None

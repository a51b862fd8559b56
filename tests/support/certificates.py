"""A certificate authority of a test's own, with the `cryptography` package."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


class Issued(NamedTuple):
    """Files of one certificate, both PEM."""

    certificate: Path
    key: Path


class Authority:
    """Signs certificates; its own is in the file `certificate`.

    Parameters
    ----------
    folder : Path
        Where the files are written.
    name : str
        Common name of the authority, and of its files.
    """

    def __init__(self, folder: Path, name: str = "authority") -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name(name)
        signed = self._sign(self._name, self._key.public_key(), x509.BasicConstraints(ca=True, path_length=0))
        self.certificate = folder / f"{name}.crt"
        self.certificate.write_bytes(signed.public_bytes(serialization.Encoding.PEM))

    def issue(self, name: str, *, host: str | None = None, password: str | None = None) -> Issued:
        """Return the files of a new certificate, for a server's host name or for a client.

        Parameters
        ----------
        name : str
            Common name, and name of the files.
        host : str, optional
            DNS name that a server answers to.
        password : str, optional
            Of the private key; it is not encrypted without.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        alternative = x509.SubjectAlternativeName([x509.DNSName(host)]) if host else None
        signed = self._sign(
            _name(name), key.public_key(), x509.BasicConstraints(ca=False, path_length=None), alternative
        )
        files = Issued(self._folder / f"{name}.crt", self._folder / f"{name}.key")
        files.certificate.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
        encryption = (
            serialization.BestAvailableEncryption(password.encode()) if password else serialization.NoEncryption()
        )
        files.key.write_bytes(
            key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
        )
        return files

    def _sign(
        self,
        name: x509.Name,
        key: ec.EllipticCurvePublicKey,
        constraints: x509.BasicConstraints,
        alternative: x509.SubjectAlternativeName | None = None,
    ) -> x509.Certificate:
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=7))
            .add_extension(constraints, critical=True)
            # Python 3.13 checks certificates strictly, and then asks for both of these.
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )
        if constraints.ca:
            usage = {"key_cert_sign": True, "crl_sign": True}
            names = (
                "digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
                "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
            )  # fmt: skip
            flags = {each: usage.get(each, False) for each in names}
            builder = builder.add_extension(x509.KeyUsage(**flags), critical=True)
        if alternative is not None:
            builder = builder.add_extension(alternative, critical=False)
        return builder.sign(self._key, hashes.SHA256())


def _name(common: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "modelstream tests"),
            x509.NameAttribute(NameOID.COMMON_NAME, common),
        ]
    )

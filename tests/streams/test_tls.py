"""Certificates: what both clients get of them, and what is said of files that are none."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
from support.certificates import Authority

from modelstream.streams.tls import Tls


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def test_both_clients_have_the_same(authority: Authority) -> None:
    client = authority.issue("client", password="pa55")
    tls = Tls(str(authority.certificate), str(client.certificate), str(client.key), "pa55")
    assert tls.file_problem() is None
    assert tls.librdkafka() == {
        "ssl.ca.location": str(authority.certificate),
        "ssl.certificate.location": str(client.certificate),
        "ssl.key.location": str(client.key),
        "ssl.key.password": "pa55",
    }
    context = tls.context()
    assert (context.check_hostname, context.verify_mode) == (True, ssl.CERT_REQUIRED)
    assert context.cert_store_stats()["x509_ca"] == 1
    assert "pa55" not in repr(tls)


def test_the_host_name_is_left_out_where_that_is_said() -> None:
    tls = Tls(checks_host_name=False)
    assert tls.librdkafka() == {"ssl.endpoint.identification.algorithm": "none"}
    # The certificate is checked all the same.
    assert (tls.context().check_hostname, tls.context().verify_mode) == (False, ssl.CERT_REQUIRED)


def test_a_key_may_stand_in_the_file_of_the_certificate(authority: Authority, tmp_path: Path) -> None:
    client = authority.issue("client")
    both = tmp_path / "both.pem"
    both.write_bytes(client.certificate.read_bytes() + client.key.read_bytes())
    tls = Tls(certificate_location=str(both))
    assert tls.file_problem() is None
    assert tls.librdkafka()["ssl.key.location"] == str(both)


def test_the_subject_is_written_as_kafka_writes_it(authority: Authority) -> None:
    client = authority.issue("worker, 1")
    assert Tls(certificate_location=str(client.certificate)).subject == r"CN=worker\, 1,O=modelstream tests"
    assert Tls().subject is None


def test_what_is_wrong_with_files(authority: Authority) -> None:
    sealed, other = authority.issue("sealed", password="pa55"), authority.issue("other")
    certificate, key = map(str, sealed)
    other_key = str(other.key)
    no_pair = f"{key} and {certificate} hold no private key and certificate in PEM, or"
    cases = [
        (Tls("/nowhere"), ("ca_location", "no such file: /nowhere")),
        (Tls(other_key), ("ca_location", f"{other_key} holds no certificates in PEM")),
        (Tls(None, certificate, "/nowhere"), ("key_location", "no such file: /nowhere")),
        # OpenSSL would ask for the password on the terminal.
        (Tls(None, certificate, key), ("key_location", f"{no_pair} the key has a password")),
        (Tls(None, certificate, key, "wr0ng"), ("key_location", f"{no_pair} the password is not the key's")),
        (Tls(None, certificate, other_key), ("key_location", f"{other_key} is not the key of {certificate}")),
    ]
    for tls, problem in cases:
        assert tls.file_problem() == problem

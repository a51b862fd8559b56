"""Servers that let in only those who prove who they are: TLS with a certificate authority of one's own, and users."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from redis import Redis
from support.redis_server import RedisServer

from modelstream.models.errors import CacheUnavailable
from modelstream.operators.redis_store import RedisStore
from modelstream.streams.embedded import free_port
from modelstream.streams.redis_settings import RedisSettings

pytestmark = pytest.mark.redis

PATIENT_S = 30.0

needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the openssl program")


def _openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a certificate authority, and certificates for a server and a client."""
    folder = tmp_path_factory.mktemp("certificates")
    new = ("req", "-newkey", "rsa:2048", "-nodes", "-keyout")
    _openssl(folder, *new, "ca.key", "-x509", "-days", "2", "-subj", "/CN=modelstream tests", "-out", "ca.crt")
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
    for name in ("server", "client"):
        _openssl(folder, *new, f"{name}.key", "-subj", f"/CN={name}", "-out", f"{name}.csr")
        signed = ("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial")
        _openssl(folder, *signed, "-days", "2", "-extfile", "names", "-out", f"{name}.crt")
    return folder


@pytest.fixture
def start_tls(certificates: Path) -> Iterator[Callable[..., str]]:
    """Start a server with TLS, and return ``127.0.0.1:PORT``."""
    servers = []

    def start(*options: str) -> str:
        port = free_port()
        files = {"cert": "server.crt", "key": "server.key", "ca-cert": "ca.crt"}
        told = [word for name, file in files.items() for word in (f"--tls-{name}-file", str(certificates / file))]
        servers.append(RedisServer(["--tls-port", str(port), *told, *options]).start())
        return f"127.0.0.1:{port}"

    yield start
    for server in servers:
        server.stop()


def works(url: str) -> bool:
    store = RedisStore(url, PATIENT_S)
    try:
        store.set_many([(b"a", b"1")], 60)
        return store.get_many([b"a"]) == [b"1"]
    finally:
        store.close()


@needs_openssl
def test_tls_with_an_authority_of_ones_own(start_tls: Callable[..., str], certificates: Path) -> None:
    address = start_tls("--tls-auth-clients", "no")
    assert works(f"rediss://{address}/0?ssl_ca_certs={certificates / 'ca.crt'}")
    for untrusted in (f"rediss://{address}/0", f"redis://{address}/0"):
        with pytest.raises(CacheUnavailable):
            works(untrusted)
    environ = {"MODELSTREAM_REDIS_SSL_CA_LOCATION": str(certificates / "ca.crt")}
    settings = RedisSettings.resolve(option=None, in_file=f"rediss://{address}/0", environ=environ)
    assert settings is not None
    assert works(settings.url)


@needs_openssl
def test_tls_with_a_certificate_of_the_client(start_tls: Callable[..., str], certificates: Path) -> None:
    address = start_tls("--tls-auth-clients", "yes")
    trusted = f"rediss://{address}/0?ssl_ca_certs={certificates / 'ca.crt'}"
    mine = f"&ssl_certfile={certificates / 'client.crt'}&ssl_keyfile={certificates / 'client.key'}"
    assert works(trusted + mine)
    with pytest.raises(CacheUnavailable):
        works(trusted)


def test_a_user_who_may_do_only_what_a_cache_does() -> None:
    with RedisServer() as server:
        with Redis.from_url(server.url) as client:
            rules = "on >p@ss/w0rd ~ms:* -@all +mget +set +ping"
            client.execute_command("ACL", "SETUSER", "cache", *rules.split())
            client.execute_command("ACL", "SETUSER", "default", "off")
        environ = {"MODELSTREAM_REDIS_USERNAME": "cache", "MODELSTREAM_REDIS_PASSWORD": "p@ss/w0rd"}
        settings = RedisSettings.resolve(option=None, in_file=server.url, environ=environ)
        assert settings is not None
        store = RedisStore(settings.url, PATIENT_S)
        store.ping()
        store.set_many([(b"ms:a", b"1")], 60)
        assert store.get_many([b"ms:a", b"ms:b"]) == [b"1", None]
        with pytest.raises(CacheUnavailable, match="no permissions"):
            store.get_many([b"other"])
        store.close()
        for login in ("", "cache:wr0ng@"):
            refused = RedisStore(server.url.replace("redis://", f"redis://{login}"), PATIENT_S)
            with pytest.raises(CacheUnavailable, match=r"(?i)auth|password") as raised:
                refused.get_many([b"ms:a"])
            assert "wr0ng" not in str(raised.value)
            refused.close()


def test_hiredis_packs_and_parses(redis_url: str) -> None:
    store = RedisStore(redis_url, PATIENT_S)
    store.ping()
    connection = store._pool.get_connection()
    assert type(connection._parser).__name__ == "_HiredisParser"
    assert type(connection._command_packer).__name__ == "HiredisRespSerializer"
    store._pool.release(connection)
    store.close()

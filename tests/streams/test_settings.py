"""Where Kafka and Redis are, what is secret about it, the engine's limits, and ``--set``."""

from __future__ import annotations

import os
import ssl
from dataclasses import FrozenInstanceError, fields
from pathlib import Path
from typing import Any, ClassVar

import pytest
from faust.auth import OAuthCredentials, SASLCredentials, SSLCredentials

from modelstream.models.errors import ConfigError
from modelstream.streams.overrides import apply_overrides
from modelstream.streams.settings import BrokerSettings, EngineLimits, bootstrap_problem

SASL = {
    "MODELSTREAM_BROKER": "kafka:9092",
    "MODELSTREAM_KAFKA_SECURITY_PROTOCOL": "sasl_ssl",
    "MODELSTREAM_KAFKA_SASL_MECHANISM": "scram-sha-512",
    "MODELSTREAM_KAFKA_SASL_USERNAME": "worker",
    "MODELSTREAM_KAFKA_SASL_PASSWORD": "s3cret",
}

#: Of every client: see `broker_settings`.
QUICK_TO_RECONNECT = {"reconnect.backoff.max.ms": 1000, "socket.connection.setup.timeout.ms": 10_000}


def broker(option: str | None = None, in_file: str | None = None, **environ: str) -> BrokerSettings:
    return BrokerSettings.resolve(option=option, in_file=in_file, environ=environ)


OAUTH = {
    "MODELSTREAM_BROKER": "kafka:9092",
    "MODELSTREAM_KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
    "MODELSTREAM_KAFKA_SASL_MECHANISM": "oauthbearer",
    "MODELSTREAM_KAFKA_SASL_OAUTHBEARER_TOKEN_ENDPOINT_URL": "https://login.example.com/token?key=s3cret",
    "MODELSTREAM_KAFKA_SASL_OAUTHBEARER_CLIENT_ID": "reader",
    "MODELSTREAM_KAFKA_SASL_OAUTHBEARER_CLIENT_SECRET": "s3cret",
}


class TestBroker:
    def test_option_before_environment_before_file(self) -> None:
        assert broker("a:1", "c:3", MODELSTREAM_BROKER="b:2").bootstrap == "a:1"
        assert broker(None, "c:3", MODELSTREAM_BROKER="b:2").bootstrap == "b:2"
        assert broker(None, "c:3", MODELSTREAM_BROKER="").bootstrap == "c:3"

    def test_spaces_between_addresses_do_not_matter(self) -> None:
        assert broker("a:1, b:2").bootstrap == "a:1,b:2"

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (
                {},
                "broker: no broker named; give --broker HOST:PORT, set MODELSTREAM_BROKER, or name it in the file",
            ),
            ({"option": "kafka"}, "--broker: must be HOST:PORT, or several with commas between, not 'kafka'"),
            ({"in_file": "a:1,b"}, "broker: must be HOST:PORT, or several with commas between, not 'a:1,b'"),
            (
                {"MODELSTREAM_BROKER": "kafka://me:pw@host:9092"},
                "MODELSTREAM_BROKER: must be HOST:PORT, or several with commas between, not 'kafka://***@host:9092'",
            ),
            (
                {"option": "a:1", "MODELSTREAM_KAFKA_SASL_USERNAM": "me"},
                "MODELSTREAM_KAFKA_SASL_USERNAM: unknown environment variable"
                "; did you mean 'MODELSTREAM_KAFKA_SASL_USERNAME'?",
            ),
            (
                {"option": "a:1", "MODELSTREAM_KAFKA_SECURITY_PROTOCOL": "SASL_SLL"},
                "MODELSTREAM_KAFKA_SECURITY_PROTOCOL: must be one of PLAINTEXT, SSL, SASL_PLAINTEXT, SASL_SSL, "
                "not 'SASL_SLL'; did you mean 'SASL_SSL'?",
            ),
            (
                {**SASL, "MODELSTREAM_KAFKA_SASL_MECHANISM": "GSSAPI"},
                "MODELSTREAM_KAFKA_SASL_MECHANISM: must be one of PLAIN, SCRAM-SHA-256, SCRAM-SHA-512, OAUTHBEARER, "
                "not 'GSSAPI'",
            ),
            (
                {**SASL, "MODELSTREAM_KAFKA_SASL_PASSWORD": ""},
                "MODELSTREAM_KAFKA_SECURITY_PROTOCOL: SASL_SSL needs MODELSTREAM_KAFKA_SASL_USERNAME, "
                "and MODELSTREAM_KAFKA_SASL_PASSWORD or MODELSTREAM_KAFKA_SASL_PASSWORD_FILE",
            ),
            (
                {**SASL, "MODELSTREAM_KAFKA_SECURITY_PROTOCOL": "SSL"},
                "MODELSTREAM_KAFKA_SECURITY_PROTOCOL: SASL is set up, but SSL does not use it",
            ),
            (
                {**SASL, "MODELSTREAM_KAFKA_SASL_PASSWORD_FILE": "/run/secrets/kafka"},
                "MODELSTREAM_KAFKA_SASL_PASSWORD_FILE: is set, and MODELSTREAM_KAFKA_SASL_PASSWORD too; "
                "set one of them",
            ),
            (
                {"option": "a:1", "MODELSTREAM_KAFKA_SASL_PASSWORD_FILE": "/nowhere"},
                "MODELSTREAM_KAFKA_SASL_PASSWORD_FILE: /nowhere cannot be read: No such file or directory",
            ),
            (
                {"option": "a:1", "MODELSTREAM_KAFKA_SASL_PASSWORD_FILE": os.devnull},
                f"MODELSTREAM_KAFKA_SASL_PASSWORD_FILE: {os.devnull} is empty",
            ),
            (
                {"option": "a:1", "MODELSTREAM_KAFKA_SSL_CA_LOCATION": "/nowhere"},
                "MODELSTREAM_KAFKA_SSL_CA_LOCATION: no such file: /nowhere",
            ),
            (
                {"option": "a:1", "MODELSTREAM_KAFKA_SSL_ENDPOINT_IDENTIFICATION_ALGORITHM": "none"},
                "MODELSTREAM_KAFKA_SECURITY_PROTOCOL: TLS is set up, but PLAINTEXT does not use it",
            ),
            (
                {**SASL, "MODELSTREAM_KAFKA_SSL_ENDPOINT_IDENTIFICATION_ALGORITHM": ""}
                | OAUTH
                | {"MODELSTREAM_KAFKA_SASL_MECHANISM": "PLAIN"},
                "MODELSTREAM_KAFKA_SASL_MECHANISM: tokens are set up, but PLAIN does not use them",
            ),
            (
                {**SASL, "MODELSTREAM_KAFKA_SSL_ENDPOINT_IDENTIFICATION_ALGORITHM": "no"},
                "MODELSTREAM_KAFKA_SSL_ENDPOINT_IDENTIFICATION_ALGORITHM: must be https, or none where the broker's "
                "certificate need not name its host, not 'no'",
            ),
            (
                {**SASL, "MODELSTREAM_KAFKA_SSL_KEY_PASSWORD": "s3cret"},
                "MODELSTREAM_KAFKA_SSL_CERTIFICATE_LOCATION: is not set, but the key of a certificate is",
            ),
            (
                {**SASL, **OAUTH},
                "MODELSTREAM_KAFKA_SASL_MECHANISM: OAUTHBEARER takes tokens, no user name and no password",
            ),
            (
                {
                    "option": "a:1",
                    "MODELSTREAM_KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
                    "MODELSTREAM_KAFKA_SASL_MECHANISM": "OAUTHBEARER",
                },
                "MODELSTREAM_KAFKA_SASL_MECHANISM: OAUTHBEARER needs "
                "MODELSTREAM_KAFKA_SASL_OAUTHBEARER_TOKEN_ENDPOINT_URL and "
                "MODELSTREAM_KAFKA_SASL_OAUTHBEARER_CLIENT_ID and MODELSTREAM_KAFKA_SASL_OAUTHBEARER_CLIENT_SECRET",
            ),
            (
                {**OAUTH, "MODELSTREAM_KAFKA_SASL_OAUTHBEARER_CLIENT_SECRET": ""},
                "MODELSTREAM_KAFKA_SASL_OAUTHBEARER_CLIENT_SECRET: is not set; OAUTHBEARER needs it",
            ),
            (
                {**OAUTH, "MODELSTREAM_KAFKA_SASL_OAUTHBEARER_TOKEN_ENDPOINT_URL": "https://me:s3cret@host/token"},
                "MODELSTREAM_KAFKA_SASL_OAUTHBEARER_TOKEN_ENDPOINT_URL: must be https://HOST/PATH, without a login",
            ),
        ],
    )
    def test_wrong_settings_give_one_clear_message(self, arguments: dict[str, Any], message: str) -> None:
        with pytest.raises(ConfigError) as caught:
            broker(**arguments)
        assert str(caught.value) == message
        assert "s3cret" not in message

    def test_plain(self) -> None:
        settings = broker("a:1,b:2")
        assert settings == BrokerSettings("a:1,b:2")
        assert settings.librdkafka() == {"bootstrap.servers": "a:1,b:2", **QUICK_TO_RECONNECT}
        assert settings.faust() is None

    def test_sasl_for_both_clients(self) -> None:
        settings = broker(**SASL)
        assert settings.librdkafka() == {
            "bootstrap.servers": "kafka:9092",
            **QUICK_TO_RECONNECT,
            "security.protocol": "SASL_SSL",
            "sasl.mechanism": "SCRAM-SHA-512",
            "sasl.username": "worker",
            "sasl.password": "s3cret",
        }
        credentials = settings.faust()
        assert isinstance(credentials, SASLCredentials)
        assert (credentials.username, credentials.password) == ("worker", "s3cret")
        assert credentials.mechanism.value == "SCRAM-SHA-512"
        assert credentials.protocol.value == "SASL_SSL"
        assert isinstance(credentials.ssl_context, ssl.SSLContext)

    def test_tokens_for_both_clients(self) -> None:
        settings = broker(**OAUTH)
        config = settings.librdkafka()
        assert settings.tokens is not None
        assert config.pop("oauth_cb") == settings.tokens.for_librdkafka
        assert config == {
            "bootstrap.servers": "kafka:9092",
            **QUICK_TO_RECONNECT,
            "security.protocol": "SASL_SSL",
            "sasl.mechanism": "OAUTHBEARER",
        }
        credentials = settings.faust()
        assert isinstance(credentials, OAuthCredentials)
        assert credentials.protocol.value == "SASL_SSL"
        assert settings.principal == "User:reader"

    def test_sasl_without_encryption_is_plain_by_default(self) -> None:
        environ = {**SASL, "MODELSTREAM_KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT"}
        del environ["MODELSTREAM_KAFKA_SASL_MECHANISM"]
        settings = broker(**environ)
        assert settings.librdkafka()["sasl.mechanism"] == "PLAIN"
        assert settings.faust().protocol.value == "SASL_PLAINTEXT"

    def test_ssl_with_own_certificates(self) -> None:
        bundle = ssl.get_default_verify_paths().openssl_cafile
        if not Path(bundle).is_file():
            pytest.skip("this system has no bundle of certificates")
        settings = broker("a:1", MODELSTREAM_KAFKA_SECURITY_PROTOCOL="SSL", MODELSTREAM_KAFKA_SSL_CA_LOCATION=bundle)
        assert settings.librdkafka()["ssl.ca.location"] == bundle
        assert isinstance(settings.faust(), SSLCredentials)

    def test_a_password_from_a_file_loses_its_line_end(self, tmp_path: Path) -> None:
        (tmp_path / "password").write_text("s3cret\n")
        environ = {**SASL, "MODELSTREAM_KAFKA_SASL_PASSWORD_FILE": str(tmp_path / "password")}
        del environ["MODELSTREAM_KAFKA_SASL_PASSWORD"]
        assert broker(**environ).password == "s3cret"

    def test_secrets_are_not_shown(self) -> None:
        for environ, user in ((SASL, "worker"), (OAUTH, "reader")):
            settings = broker(**environ)
            assert "s3cret" not in f"{settings!r} {settings} {settings.faust()!r}"
            assert user in repr(settings)

    @pytest.mark.parametrize("bootstrap", ["a:1", "a:1,b:2", "a:1, b:2", "[::1]:9092", "10.0.0.1:65535"])
    def test_addresses(self, bootstrap: str) -> None:
        assert bootstrap_problem(bootstrap) is None

    @pytest.mark.parametrize(
        "bootstrap", ["", "a", "a:", ":1", "a:0", "a:65536", "a:1,", "a b:1", "http://a:1", "::1:9"]
    )
    def test_what_is_no_address(self, bootstrap: str) -> None:
        assert bootstrap_problem(bootstrap)


class TestLimits:
    def test_they_leave_time_before_a_container_is_killed(self) -> None:
        limits = EngineLimits()
        assert limits.drain_timeout_s + limits.confirm_timeout_s < 10

    @pytest.mark.parametrize("name", [field.name for field in fields(EngineLimits)])
    @pytest.mark.parametrize("value", [0, -1, float("nan")])
    def test_each_is_positive(self, name: str, value: float) -> None:
        with pytest.raises(ConfigError, match=f"^{name}: must be above 0, not {value}$"):
            EngineLimits(**{name: value})  # type: ignore[arg-type]

    def test_they_do_not_change(self) -> None:
        with pytest.raises(FrozenInstanceError):
            EngineLimits().linger_ms = 0  # type: ignore[misc]


class TestOverrides:
    RAW: ClassVar[dict[str, Any]] = {
        "sink": {"topic": "out"},
        "stages": [{"id": "a", "infer": {"models": ["m"]}}],
        "redis": None,
    }

    @pytest.mark.parametrize(
        ("override", "path", "value"),
        [
            ("sink.topic=other", ["sink", "topic"], "other"),
            ("sink.topic=a=b", ["sink", "topic"], "a=b"),
            ("stages[0].infer.batch.max_size=64", ["stages", 0, "infer", "batch", "max_size"], 64),
            ("stages[0].infer.models=[x, y@2]", ["stages", 0, "infer", "models"], ["x", "y@2"]),
            ("stages[0].infer.models[0]=x", ["stages", 0, "infer", "models", 0], "x"),
            ("source={topic: in}", ["source", "topic"], "in"),
            ("redis=redis://cache:6379/0", ["redis"], "redis://cache:6379/0"),
            ("redis=", ["redis"], None),
            ("a.b.c=true", ["a", "b", "c"], True),
        ],
    )
    def test_values_have_the_types_of_yaml(self, override: str, path: list[Any], value: object) -> None:
        found: Any = apply_overrides(self.RAW, [override])
        for step in path:
            found = found[step]
        assert found == value

    def test_the_given_data_stays_as_it_is(self) -> None:
        changed = apply_overrides(self.RAW, ["sink.topic=a", "stages[0].id=b", "sink.topic=c"])
        assert (changed["sink"]["topic"], changed["stages"][0]["id"]) == ("c", "b")
        assert (self.RAW["sink"]["topic"], self.RAW["stages"][0]["id"]) == ("out", "a")

    def test_a_key_of_another_kind_of_stage_is_told(self) -> None:
        raw = {"stages": [{"id": "features", "extract": "f:g"}, {"id": "delay", "infer": {"models": ["m"]}}]}
        with pytest.raises(ConfigError) as caught:
            apply_overrides(raw, ["stages[0].infer.batch.max_size=64"])
        problem = "there is no 'stages[0].infer': stage 'features' is of extract"
        assert str(caught.value) == f"--set stages[0].infer.batch.max_size: {problem}"
        assert apply_overrides(raw, ["stages[1].infer.batch.max_size=64"])["stages"][1]["infer"]["batch"]

    @pytest.mark.parametrize(
        ("override", "message"),
        [
            ("sink.topic", "--set sink.topic: must be KEY=VALUE, such as sink.topic=predictions"),
            ("=x", "--set : is no path; write it like stages[0].infer.batch.max_size"),
            ("sink..topic=x", "--set sink..topic: is no path; write it like stages[0].infer.batch.max_size"),
            ("[0]=x", "--set [0]: is no path; write it like stages[0].infer.batch.max_size"),
            ("stages[-1].id=x", "--set stages[-1].id: is no path; write it like stages[0].infer.batch.max_size"),
            (
                "stages[1].id=x",
                "--set stages[1].id: stages has no [1]; its entries are counted from 0, and there are 1",
            ),
            ("stage[0].id=x", "--set stage[0].id: there is no list 'stage'; did you mean 'stages'?"),
            ("stages.id=x", "--set stages.id: stages is a list; name one of its entries, such as stages[0]"),
            ("stages.0.id=x", "--set stages.0.id: stages is a list; name one of its entries, such as stages[0]"),
            ("stages.2.id=x", "--set stages.2.id: stages is a list; name one of its entries, such as stages[2]"),
            ("sink[0]=x", "--set sink[0]: sink is not a list, but a mapping"),
            ("sink.topic.name=x", "--set sink.topic.name: sink.topic is not a mapping, but 'out'"),
            ("sink.topic=[a", "--set sink.topic:1:3: expected ',' or ']', but got '<stream end>'"),
        ],
    )
    def test_what_leads_nowhere(self, override: str, message: str) -> None:
        with pytest.raises(ConfigError) as caught:
            apply_overrides(self.RAW, [override])
        assert str(caught.value) == message

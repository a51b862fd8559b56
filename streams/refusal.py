"""Why a broker cannot be reached or does not let us in, in one message that says what to mend."""

from __future__ import annotations

import re
from collections.abc import Sequence

from confluent_kafka import KafkaError

from modelstream.models.errors import BrokerRefused, BrokerUnavailable
from modelstream.streams.settings import BrokerSettings

__all__ = ["is_refused", "unavailable"]

_PREFIX = "MODELSTREAM_KAFKA_"
_LOGIN_CODES = frozenset(
    {
        KafkaError._AUTHENTICATION,
        KafkaError.SASL_AUTHENTICATION_FAILED,
        KafkaError.UNSUPPORTED_SASL_MECHANISM,
        KafkaError.ILLEGAL_SASL_STATE,
    }
)
# How long connections may be closed again at once, as by what stands before a broker that is just starting.
_CLOSING_S = 3.0
# What librdkafka puts around a broker's own words: an address and a kind of error before, a duration after.
_FRAME = re.compile(r"^\w+://\S+: (SASL authentication error: )?|( \(after .*\))$")


def is_refused(errors: Sequence[KafkaError], waited_s: float) -> bool:
    """Whether errors of connections are a broker's answer, which asking again does not change.

    Parameters
    ----------
    errors : sequence of KafkaError
        What there has been until now.
    waited_s : float
        For how long, in seconds.
    """
    return any(map(_is_refusal, errors)) or (_only_closes(errors) and waited_s >= _CLOSING_S)


def unavailable(
    settings: BrokerSettings, failure: KafkaError, errors: Sequence[KafkaError], timeout_s: float
) -> BrokerUnavailable:
    """Return the error of a request that got no answer.

    Parameters
    ----------
    settings : BrokerSettings
        Where Kafka is.
    failure : KafkaError
        That of the request, which says only that there was no answer.
    errors : sequence of KafkaError
        Those of connections, which say why.
    timeout_s : float
        How long it was tried, in seconds.
    """
    for error in errors:
        if error.code() in _LOGIN_CODES:
            return BrokerRefused(
                settings.bootstrap,
                f"does not let {settings.principal} in: {_own_words(error)}; {_login_advice(settings)}",
            )
    for error in errors:
        if _is_refusal(error):
            return BrokerRefused(settings.bootstrap, _tls_problem(settings, _own_words(error)))
    if _only_closes(errors):
        return BrokerRefused(
            settings.bootstrap,
            f"closes the connection; {_PREFIX}SECURITY_PROTOCOL is {settings.security_protocol}: "
            "is that what this port of the broker wants?",
        )
    telling = [error for error in errors if error.code() != KafkaError._ALL_BROKERS_DOWN]
    cause = telling[-1] if telling and failure.code() == KafkaError._TRANSPORT else failure
    return BrokerUnavailable(settings.bootstrap, f"no answer within {timeout_s:.0f} s ({cause.str()})")


def _is_refusal(error: KafkaError) -> bool:
    return error.code() in _LOGIN_CODES or error.code() == KafkaError._SSL or "SSL routines" in error.str()


def _only_closes(errors: Sequence[KafkaError]) -> bool:
    # That a broker takes connections and closes them again, librdkafka mostly tells only its log.
    return bool(errors) and all(
        error.code() == KafkaError._ALL_BROKERS_DOWN or "Disconnected" in error.str() for error in errors
    )


def _own_words(error: KafkaError) -> str:
    return _FRAME.sub("", error.str())


def _login_advice(settings: BrokerSettings) -> str:
    if settings.tokens is not None:
        return f"its token is of {settings.tokens!r}"
    return f"look at {_PREFIX}SASL_USERNAME, {_PREFIX}SASL_PASSWORD and {_PREFIX}SASL_MECHANISM"


def _tls_problem(settings: BrokerSettings, words: str) -> str:
    if "alert" in words and ("certificate" in words or "unknown ca" in words):  # sent by the broker
        advice = "" if settings.tls.certificate_location else ", and none is named"
        return f"does not accept this client's certificate, {_PREFIX}SSL_CERTIFICATE_LOCATION{advice} ({words})"
    if "verify failed" in words:
        reason = settings.tls.handshake_problem(settings.bootstrap) or "it could not be verified"
        return (
            f"its certificate is not trusted: {reason}; {_PREFIX}SSL_CA_LOCATION names the certificates to trust, "
            f"and {_PREFIX}SSL_ENDPOINT_IDENTIFICATION_ALGORITHM=none does without the host's name"
        )
    return f"no TLS connection: {words}"

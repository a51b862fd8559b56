"""Tokens by OAuth 2 from a real HTTP endpoint: how long they are kept, and what is said where there is none."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from aiokafka.errors import KafkaError
from support.secured_kafka import unsigned_token
from support.token_endpoint import TokenEndpoint

from modelstream.models.errors import ConfigError, DependencyError
from modelstream.streams.embedded import free_port
from modelstream.streams.oauth import TokenSource, endpoint_problem

#: More than any token needs: seconds since 1970.
NOW_S = 2_000_000_000.0


class Clock:
    def __init__(self) -> None:
        self.now_s = NOW_S

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def endpoint() -> Iterator[TokenEndpoint]:
    with TokenEndpoint("reader", "s3cret", life_s=100) as endpoint:
        yield endpoint


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def source(endpoint: TokenEndpoint, clock: Clock) -> TokenSource:
    return TokenSource(endpoint.url, "reader", "s3cret", clock=clock)


def test_one_token_serves_all_until_three_quarters_of_its_life(
    source: TokenSource, endpoint: TokenEndpoint, clock: Clock
) -> None:
    with ThreadPoolExecutor(8) as pool:
        tokens = set(pool.map(lambda _: source.token(), range(50)))
    assert [token.value for token in tokens] == endpoint.tokens
    assert {token.expires_at_s for token in tokens} == {NOW_S + 100}
    clock.now_s += 74
    assert source.for_librdkafka("") == (endpoint.tokens[0], NOW_S + 100)
    clock.now_s += 1
    assert asyncio.run(source.for_aiokafka().token()) == endpoint.tokens[1]
    assert len(endpoint.tokens) == 2


def test_a_token_is_kept_while_the_endpoint_is_away_and_the_token_good(
    source: TokenSource, endpoint: TokenEndpoint, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    first = source.token()
    endpoint.answer_with = (503, {}, b"")
    clock.now_s += 99
    with caplog.at_level(logging.WARNING):
        assert source.token() == first
    assert "answers HTTP 503" in caplog.text
    clock.now_s += 1
    with pytest.raises(DependencyError, match=r"answers HTTP 503$"):
        source.token()
    with pytest.raises(KafkaError, match=r"answers HTTP 503$"):  # what aiokafka waits and tries again for
        asyncio.run(source.for_aiokafka().token())
    endpoint.answer_with = None
    assert source.token().value == endpoint.tokens[-1]


@pytest.mark.parametrize(
    ("body", "life_s"),
    [
        (b'{"access_token": "opaque", "expires_in": "60"}', 60),
        (b'{"access_token": "opaque"}', 300),
        (b'{"access_token": "%s"}' % unsigned_token("me", NOW_S, NOW_S + 40).encode(), 40),
    ],
    ids=["a text", "unknown", "in the token"],
)
def test_how_long_a_token_lives(body: bytes, life_s: float, source: TokenSource, endpoint: TokenEndpoint) -> None:
    endpoint.answer_with = (200, {}, body)
    assert source.token().expires_at_s == NOW_S + life_s


def test_the_principal_is_the_subject_of_the_token(source: TokenSource, endpoint: TokenEndpoint) -> None:
    assert source.principal == "reader"
    endpoint.answer_with = (200, {}, b'{"access_token": "%s"}' % unsigned_token("me", NOW_S, NOW_S + 40).encode())
    source.token()
    assert source.principal == "me"


@pytest.mark.parametrize(
    ("answer", "kind", "problem"),
    [
        ((401, {}, b'{"error": "invalid_client"}'), ConfigError, r"no token \(HTTP 401 invalid_client\)"),
        ((400, {}, b'{"error": "s3cret is wrong"}'), ConfigError, r"no token \(HTTP 400\)"),
        ((500, {}, b"oh"), DependencyError, "answers HTTP 500"),
        ((200, {}, b"<html>"), DependencyError, "does not answer as it should: no JSON"),
        ((200, {}, b"[]"), DependencyError, "answers without an access_token"),
        ((200, {}, b'{"access_token": ""}'), DependencyError, "answers without an access_token"),
        (
            (200, {}, b'{"access_token": "%s"}' % unsigned_token("me", 0, 1).encode()),
            DependencyError,
            "gives a token that has expired; is this machine's clock right",
        ),
    ],
)
def test_what_is_no_token(
    answer: tuple[int, dict[str, str], bytes],
    kind: type[Exception],
    problem: str,
    source: TokenSource,
    endpoint: TokenEndpoint,
) -> None:
    endpoint.answer_with = answer
    with pytest.raises(kind, match=problem) as caught:
        source.token()
    assert endpoint.url in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_a_redirect_is_not_followed_with_the_secret(source: TokenSource, endpoint: TokenEndpoint) -> None:
    endpoint.answer_with = (302, {"Location": endpoint.url}, b"")
    with pytest.raises(DependencyError, match="answers HTTP 302"):
        source.token()
    assert len(endpoint.forms) == 1


def test_an_endpoint_that_is_away() -> None:
    source = TokenSource(f"http://127.0.0.1:{free_port()}/token?key=s3cret", "reader", "s3cret")
    with pytest.raises(DependencyError, match=r"/token: does not answer as it should: Connection refused$"):
        source.token()


def test_nothing_shows_a_secret(source: TokenSource, endpoint: TokenEndpoint) -> None:
    shown = f"{source!r} {source} {source.token()!r} {source.token()}"
    assert "s3cret" not in shown
    assert endpoint.tokens[0] not in shown
    assert "reader" in shown


@pytest.mark.parametrize(
    "url", ["", "login", "file:///etc/passwd", "http://", "https://me:pw@host/token", "https://[/"]
)
def test_what_is_no_endpoint(url: str) -> None:
    assert endpoint_problem(url)

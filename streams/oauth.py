"""Access tokens for Kafka by OAuth 2: one source for all clients of the process, asked again before a token expires.

librdkafka can fetch tokens by itself, aiokafka cannot. With one source both planes have the same token, the same
deadline and the same error, and a worker asks once for all its clients.
"""

from __future__ import annotations

import base64
import json
import logging
import re
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from typing import Any, NamedTuple

from modelstream.models.errors import ConfigError, DependencyError, ModelStreamError

__all__ = ["Token", "TokenSource", "endpoint_problem"]

logger = logging.getLogger(__name__)

# How long the token endpoint may take. The data thread waits for it, once in a token's life.
_TIMEOUT_S = 5.0

# The part of its life after which a token is replaced. librdkafka asks after four fifths: sooner than that, so that
# it gets a new one.
_REFRESH_AFTER = 0.75

# The life of a token of which neither the endpoint nor the token itself says when it ends.
_DEFAULT_LIFE_S = 300.0

# More than any token that fits into a request to Kafka.
_MAX_ANSWER_BYTES = 1_000_000

_CLIENT_ID = "MODELSTREAM_KAFKA_SASL_OAUTHBEARER_CLIENT_ID"


class Token(NamedTuple):
    """An access token; never shown.

    Attributes
    ----------
    value : str
        What Kafka gets.
    expires_at_s : float
        In seconds since 1970.
    principal : str
        For whom it is: its subject, else the client's id.
    """

    value: str
    expires_at_s: float
    principal: str

    def __repr__(self) -> str:
        return f"Token(principal={self.principal!r})"


def endpoint_problem(url: str) -> str | None:
    """Return what is wrong with the URL of a token endpoint, or None; the text does not show it.

    Examples
    --------
    >>> endpoint_problem("https://login.example.com/oauth2/token")
    >>> endpoint_problem("https://me:secret@login.example.com/oauth2/token")
    'must be https://HOST/PATH, without a login'
    """
    try:
        parts = urllib.parse.urlsplit(url)
        if parts.scheme in ("https", "http") and parts.hostname and "@" not in parts.netloc:
            return None
    except ValueError:
        pass
    return "must be https://HOST/PATH, without a login"


class TokenSource:
    """Fetches tokens by a client's own credentials (RFC 6749, section 4.4). Used from any thread.

    Parameters
    ----------
    endpoint : str
        URL of the token endpoint.
    client_id, client_secret : str
        The client's credentials.
    scope : str, optional
        What the tokens are to allow, with spaces between.
    clock : callable
        Seconds since 1970.
    """

    def __init__(
        self,
        endpoint: str,
        client_id: str,
        client_secret: str,
        scope: str | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.endpoint = endpoint
        self.client_id = client_id
        self._client_secret = client_secret
        self._scope = scope
        self._clock = clock
        self._lock = threading.Lock()
        self._token: Token | None = None
        self._refresh_at_s = 0.0

    def __repr__(self) -> str:
        return f"TokenSource({self._shown_endpoint!r}, client_id={self.client_id!r})"

    @property
    def _shown_endpoint(self) -> str:
        # A query may hold a key.
        return self.endpoint.partition("?")[0]

    @property
    def principal(self) -> str:
        """For whom the last token was; the client's id before there is one."""
        return self._token.principal if self._token else self.client_id

    def token(self) -> Token:
        """Return a token that is good for a while yet.

        Raises
        ------
        ConfigError
            The endpoint refuses the client.
        DependencyError
            It does not answer within 5 s, or not with a token.
        """
        with self._lock:
            if self._token is None or self._clock() >= self._refresh_at_s:
                try:
                    self._fetch()
                except ModelStreamError as error:
                    if self._token is None or self._clock() >= self._token.expires_at_s:
                        raise
                    logger.warning("the token for Kafka is not renewed yet: %s", error)
            assert self._token is not None
            return self._token

    def for_librdkafka(self, _config: str) -> tuple[str, float]:
        """Return a token as librdkafka's ``oauth_cb`` has it: with the time at which it expires."""
        token = self.token()
        return token.value, token.expires_at_s

    def for_aiokafka(self) -> Any:
        """Return what gives aiokafka its tokens."""
        # Here, so that reading a pipeline does not wait for the import.
        import asyncio

        from aiokafka.abc import AbstractTokenProvider
        from aiokafka.errors import KafkaConnectionError

        class Provider(AbstractTokenProvider):
            async def token(provider) -> str:
                try:
                    return (await asyncio.to_thread(self.token)).value
                except ModelStreamError as error:
                    # An error of aiokafka's own, which tries again; anything else would end its tasks.
                    raise KafkaConnectionError(str(error)) from None

        return Provider()

    def _fetch(self) -> None:
        asked_at_s = self._clock()
        answer = self._ask()
        value = answer.get("access_token")
        if not isinstance(value, str) or not value:
            raise self._away("answers without an access_token")
        claims = _claims(value)
        life_s = answer.get("expires_in")
        if isinstance(life_s, str) and life_s.isdecimal():  # some write it so
            life_s = int(life_s)
        if isinstance(life_s, int | float) and life_s > 0:
            expires_at_s = asked_at_s + life_s
        else:
            ends = claims.get("exp")
            expires_at_s = float(ends) if isinstance(ends, int | float) else asked_at_s + _DEFAULT_LIFE_S
        if expires_at_s <= self._clock():
            raise self._away("gives a token that has expired; is this machine's clock right?")
        subject = claims.get("sub")
        self._token = Token(value, expires_at_s, subject if isinstance(subject, str) and subject else self.client_id)
        self._refresh_at_s = asked_at_s + _REFRESH_AFTER * (expires_at_s - asked_at_s)

    def _ask(self) -> dict[str, Any]:
        form = {"grant_type": "client_credentials"} | ({"scope": self._scope} if self._scope else {})
        login = ":".join(urllib.parse.quote_plus(part) for part in (self.client_id, self._client_secret))
        # `endpoint_problem` has seen to it that this is HTTP, and no file.
        request = urllib.request.Request(
            self.endpoint,
            urllib.parse.urlencode(form).encode(),
            {
                "Authorization": "Basic " + base64.b64encode(login.encode()).decode(),
                "Accept": "application/json",
            },
        )
        try:
            with _OPENER.open(request, timeout=_TIMEOUT_S) as answer:
                found = json.loads(answer.read(_MAX_ANSWER_BYTES))
        except urllib.error.HTTPError as error:
            with error:
                raise self._refused(error) from None
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", error)
            what = "no JSON" if isinstance(error, ValueError) else getattr(reason, "strerror", None) or str(reason)
            raise self._away(f"does not answer as it should: {what}") from None
        return found if isinstance(found, dict) else {}

    def _refused(self, error: urllib.error.HTTPError) -> ModelStreamError:
        code = ""
        try:
            found = json.loads(error.read(_MAX_ANSWER_BYTES))["error"]
            # Only what RFC 6749 has there: a server's text may hold what it was sent.
            code = f" {found}" if re.fullmatch(r"[a-z_]{1,40}", found) else ""
        except (OSError, ValueError, KeyError, TypeError):
            pass
        if error.code in (400, 401, 403):
            return ConfigError(
                _CLIENT_ID,
                f"{self._shown_endpoint} gives the client {self.client_id!r} no token (HTTP {error.code}{code}); "
                "look at its id, its secret and the scope",
            )
        return self._away(f"answers HTTP {error.code}{code}")

    def _away(self, problem: str) -> DependencyError:
        return DependencyError(f"token endpoint {self._shown_endpoint}: {problem}")


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Goes nowhere else: the client's secret is in the request."""

    def redirect_request(self, *_: Any) -> None:
        return None


_OPENER = urllib.request.build_opener(_NoRedirects)


def _claims(token: str) -> dict[str, Any]:
    """Return what a JSON web token says of itself, nothing of a token of another kind. Kafka checks it, not we."""
    parts = token.split(".")
    try:
        body = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (ValueError, IndexError):
        return {}
    return body if isinstance(body, dict) else {}

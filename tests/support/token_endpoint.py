"""A token endpoint of OAuth 2 on a real HTTP port: it checks a client's login and gives tokens without a signature."""

from __future__ import annotations

import base64
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs

from support.secured_kafka import unsigned_token


class TokenEndpoint:
    """Answers ``POST /token``.

    Parameters
    ----------
    client_id, client_secret : str
        The one client that it knows; its id is the subject of its tokens.
    life_s : float
        Seconds that a token is good for.
    """

    def __init__(self, client_id: str, client_secret: str, life_s: float = 3600.0) -> None:
        self.life_s = life_s
        #: Tokens given out, forms received.
        self.tokens: list[str] = []
        self.forms: list[dict[str, list[str]]] = []
        #: What is answered instead of a token: status, headers, body.
        self.answer_with: tuple[int, dict[str, str], bytes] | None = None
        login = base64.b64encode(f"{client_id}:{client_secret}".encode()).decode()
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                form = self.rfile.read(int(self.headers["Content-Length"])).decode()
                endpoint.forms.append(parse_qs(form))
                if endpoint.answer_with is not None:
                    self._answer(*endpoint.answer_with)
                elif self.headers["Authorization"] != f"Basic {login}":
                    self._answer(401, {}, b'{"error": "invalid_client", "error_description": "leak"}')
                else:
                    self._answer(200, {}, json.dumps(endpoint._give(client_id)).encode())

            def do_GET(self) -> None:
                endpoint.forms.append({"redirected": [self.headers.get("Authorization") or ""]})
                self._answer(200, {}, b"{}")

            def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    def _give(self, client_id: str) -> dict[str, Any]:
        now = time.time()
        self.tokens.append(unsigned_token(client_id, now, now + self.life_s))
        return {"access_token": self.tokens[-1], "token_type": "Bearer", "expires_in": self.life_s}

    @property
    def url(self) -> str:
        """Where tokens are."""
        return f"http://127.0.0.1:{self._server.server_port}/token"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

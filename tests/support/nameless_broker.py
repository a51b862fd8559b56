"""A Kafka broker of a few lines that can answer that the cluster has no broker, as a lone one does that shuts down."""

from __future__ import annotations

import socket
import struct
import threading
from contextlib import suppress
from typing import Self

#: Key, lowest and highest version of the requests that it knows: Produce, Fetch, ListOffsets, Metadata, ApiVersions.
#: A client takes it for one that can do records with headers by the first two.
_APIS = [(0, 3, 3), (1, 4, 4), (2, 1, 1), (3, 1, 1), (18, 0, 0)]
_PRODUCE, _METADATA, _API_VERSIONS = 0, 3, 18
_UNSUPPORTED_VERSION, _LEADER_NOT_AVAILABLE = 35, 5


class NamelessBroker:
    """Takes records of one partition of a topic, and keeps nothing.

    Parameters
    ----------
    topic : str
        The topic that it has.
    """

    def __init__(self, topic: str) -> None:
        self._topic = struct.pack(">h", len(topic)) + topic.encode()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        #: Whether it names itself when it is asked for brokers.
        self.is_named = True
        #: How often it has said that there is no broker, and how many connections are open.
        self.n_nameless = self.n_open = 0

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        self.n_open += 1
        with suppress(OSError), connection, connection.makefile("rb") as stream:
            while len(head := stream.read(4)) == 4:
                key, version, correlation = struct.unpack_from(">hhi", stream.read(struct.unpack(">i", head)[0]))
                answer = struct.pack(">i", correlation) + self._answer(key, version)
                connection.sendall(struct.pack(">i", len(answer)) + answer)
        self.n_open -= 1

    def _answer(self, key: int, version: int) -> bytes:
        if key == _API_VERSIONS:
            apis = b"".join(struct.pack(">hhh", *api) for api in _APIS)
            return struct.pack(">hi", _UNSUPPORTED_VERSION if version else 0, len(_APIS)) + apis
        if key == _PRODUCE:
            return struct.pack(">i", 1) + self._topic + struct.pack(">iihqqi", 1, 0, 0, 0, -1, 0)
        assert key == _METADATA, key
        return self._metadata()

    def _metadata(self) -> bytes:
        topic = struct.pack(">ih", 1, 0) + self._topic + struct.pack(">bi", 0, 1)
        replicas = struct.pack(">iiii", 1, 1, 1, 1)
        if not self.is_named:
            self.n_nameless += 1
            return struct.pack(">ii", 0, -1) + topic + struct.pack(">hii", _LEADER_NOT_AVAILABLE, 0, -1) + replicas
        broker = struct.pack(">iih", 1, 1, 9) + b"127.0.0.1" + struct.pack(">ih", self.port, -1)
        return broker + struct.pack(">i", 1) + topic + struct.pack(">hii", 0, 0, 1) + replicas

"""The proxy does to a connection what it says, and nothing while it is healed."""

from __future__ import annotations

import socket
import socketserver
import threading
import time
from collections.abc import Iterator

import pytest
from support.proxy import FaultProxy


class _Echo(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        try:
            while data := self.request.recv(65536):
                self.request.sendall(data)
        except OSError:  # a broken connection is what these tests make
            pass


@pytest.fixture
def proxy() -> Iterator[FaultProxy]:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Echo) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with FaultProxy(server.server_address[1]) as running:
            yield running
        server.shutdown()


@pytest.fixture
def client(proxy: FaultProxy) -> Iterator[socket.socket]:
    with _connect(proxy) as connection:
        assert _echo(connection, b"hello") == b"hello"
        yield connection


def _connect(proxy: FaultProxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=20)


def _echo(connection: socket.socket, data: bytes) -> bytes:
    connection.sendall(data)
    return _receive(connection, len(data))


def _receive(connection: socket.socket, n_bytes: int) -> bytes:
    found = b""
    while len(found) < n_bytes:
        part = connection.recv(n_bytes - len(found))
        if not part:
            break
        found += part
    return found


def test_bytes_come_through_unchanged(proxy: FaultProxy, client: socket.socket) -> None:
    data = bytes(range(256)) * 2_000
    sender = threading.Thread(target=client.sendall, args=(data,))
    sender.start()
    assert _receive(client, len(data)) == data
    sender.join()
    assert proxy.n_bytes == 2 * (len(data) + len(b"hello"))
    assert (proxy.n_connections, proxy.n_open, proxy.n_held) == (1, 1, 0)


def test_the_end_of_a_connection_comes_through(proxy: FaultProxy, client: socket.socket) -> None:
    client.shutdown(socket.SHUT_WR)
    assert client.recv(1) == b""


def test_a_delay_moves_bytes_and_does_not_add_up(proxy: FaultProxy, client: socket.socket) -> None:
    proxy.delay(0.2)
    started = time.monotonic()
    for i in range(10):
        client.sendall(b"%d" % i)
        time.sleep(0.01)  # chunks of their own
    assert _receive(client, 10) == b"0123456789"
    took_s = time.monotonic() - started
    assert took_s >= 0.4
    assert proxy.n_held >= 4


def test_a_throttled_connection_takes_its_time(proxy: FaultProxy, client: socket.socket) -> None:
    proxy.throttle(100_000)
    started = time.monotonic()
    assert _echo(client, b"x" * 20_000) == b"x" * 20_000
    assert time.monotonic() - started >= 0.3
    proxy.heal()
    assert _echo(client, b"quick") == b"quick"


def test_a_black_hole_delivers_nothing_until_it_is_healed(proxy: FaultProxy, client: socket.socket) -> None:
    proxy.black_hole()
    client.sendall(b"late")
    client.settimeout(0.3)
    with pytest.raises(TimeoutError):
        client.recv(4)
    with _connect(proxy) as second:
        second.sendall(b"also")
        proxy.heal()
        client.settimeout(20)
        assert _receive(client, 4) == b"late"
        assert _receive(second, 4) == b"also"


def test_a_reset_breaks_both_sides_and_new_connections_work(proxy: FaultProxy, client: socket.socket) -> None:
    proxy.reset()
    with pytest.raises(ConnectionResetError):
        client.recv(1)
    assert proxy.n_broken == 1
    with _connect(proxy) as second:
        assert _echo(second, b"again") == b"again"


def test_half_open_leaves_the_client_in_the_dark(proxy: FaultProxy, client: socket.socket) -> None:
    proxy.half_open()
    client.settimeout(0.3)
    client.sendall(b"anybody?")
    with pytest.raises(TimeoutError):
        client.recv(1)
    with _connect(proxy) as second:
        assert _echo(second, b"again") == b"again"
    client.close()
    deadline = time.monotonic() + 20
    while proxy.n_open:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_target_that_is_away_resets(proxy: FaultProxy) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with FaultProxy(port) as away, pytest.raises(ConnectionResetError), _connect(away) as connection:
        connection.recv(1)

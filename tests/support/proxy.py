"""A TCP proxy between a worker and a server that can be slow, narrow, silent, or break its connections."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Callable
from typing import Self

_CHUNK_BYTES = 64 * 1024
#: Chunks that a direction of a connection holds; with them full, the sender feels it, as in a real network.
_HELD_CHUNKS = 64
_DEADLINE_S = 10.0
#: SO_LINGER of 0 s: closing sends RST instead of FIN.
_RESET = struct.pack("ii", 1, 0)


class FaultProxy:
    """Forwards connections of a free loopback port to another one, with faults on demand.

    Every method may be called from any thread, and has taken effect when it returns. Faults add up until `heal`.

    Parameters
    ----------
    target_port : int
        Port on 127.0.0.1 to forward to.
    port : int, optional
        Port to listen on; a free one by default.
    """

    def __init__(self, target_port: int, port: int = 0) -> None:
        self.target_port = target_port
        #: Connections made so far, and bytes forwarded, both directions together.
        self.n_connections = 0
        self.n_bytes = 0
        #: Connections that `reset` or `half_open` has broken, and chunks that had to wait for a fault.
        self.n_broken = 0
        self.n_held = 0
        self._delay_s = 0.0
        self._bytes_per_s = 0.0
        self._links: set[_Link] = set()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault-proxy", daemon=True)
        # Bound here, so that the port is known, and taken, before anything is started.
        self._socket = socket.create_server(("127.0.0.1", port))
        self.port: int = self._socket.getsockname()[1]

    def delay(self, seconds: float) -> None:
        """Deliver each byte so much later, in both directions."""
        self._do(lambda: setattr(self, "_delay_s", seconds))

    def throttle(self, bytes_per_s: float) -> None:
        """Let no more than this through, for each connection and direction."""
        self._do(lambda: setattr(self, "_bytes_per_s", bytes_per_s))

    def black_hole(self) -> None:
        """Deliver nothing until `heal`. As with lost packets, what was sent meanwhile comes then."""
        self._do(self._flowing.clear)

    def reset(self) -> None:
        """Break all connections with RST, on both sides. New ones work."""
        self._do(lambda: self._break(_Link.reset))

    def half_open(self) -> None:
        """Close the server's side of all connections, and leave the client's open and silent. New ones work."""
        self._do(lambda: self._break(_Link.half_open))

    def heal(self) -> None:
        """End every fault."""

        def end_all() -> None:
            self._delay_s = self._bytes_per_s = 0.0
            self._flowing.set()

        self._do(end_all)

    @property
    def n_open(self) -> int:
        """How many connections are open."""
        return len(self._links)

    def _break(self, how: Callable[[_Link], None]) -> None:
        for link in [link for link in self._links if not link.broken]:
            how(link)
            self.n_broken += 1

    def _do(self, action: Callable[[], object]) -> None:
        async def act() -> None:
            action()

        asyncio.run_coroutine_threadsafe(act(), self._loop).result(_DEADLINE_S)

    def __enter__(self) -> Self:
        self._thread.start()
        serve = asyncio.start_server(self._on_connection, sock=self._socket)
        self._server = asyncio.run_coroutine_threadsafe(serve, self._loop).result(_DEADLINE_S)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(_DEADLINE_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_DEADLINE_S)
        self._loop.close()

    async def _close(self) -> None:
        self._server.close()
        for link in list(self._links):
            link.reset()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)  # for transports to close their sockets

    async def _on_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            server = await asyncio.open_connection("127.0.0.1", self.target_port)
        except OSError:
            _abort(writer)
            return
        self.n_connections += 1
        link = _Link((reader, writer), server)
        self._links.add(link)
        try:
            directions = [self._forward(reader, server[1], link), self._forward(server[0], writer, link)]
            await asyncio.gather(*directions, return_exceptions=True)
        finally:
            self._links.discard(link)
            for side in (writer, server[1]):
                side.close()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, link: _Link) -> None:
        # Read and written by two tasks: a delay moves bytes in time, and does not make the connection narrow.
        chunks: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_HELD_CHUNKS)
        receiving = asyncio.ensure_future(self._receive(reader, chunks))
        try:
            while chunk := await self._next_chunk(chunks):
                if link.broken:
                    continue  # half open: swallowed
                # Before it is written: whoever has received all finds all counted.
                self.n_bytes += len(chunk)
                writer.write(chunk)
                await writer.drain()
            if not link.broken:
                with contextlib.suppress(OSError):
                    writer.write_eof()
        finally:
            receiving.cancel()

    async def _receive(self, reader: asyncio.StreamReader, chunks: asyncio.Queue[tuple[float, bytes]]) -> None:
        loop = asyncio.get_running_loop()
        chunk = b"-"
        while chunk:
            try:
                chunk = await reader.read(_CHUNK_BYTES)
            except OSError:
                chunk = b""
            await chunks.put((loop.time() + self._delay_s, chunk))

    async def _next_chunk(self, chunks: asyncio.Queue[tuple[float, bytes]]) -> bytes:
        due, chunk = await chunks.get()
        wait_s = due - asyncio.get_running_loop().time()
        if wait_s > 0 or self._bytes_per_s or not self._flowing.is_set():
            self.n_held += 1
        await asyncio.sleep(max(wait_s, 0))
        if self._bytes_per_s:
            await asyncio.sleep(len(chunk) / self._bytes_per_s)
        await self._flowing.wait()
        return chunk


class _Link:
    """One connection: the client's side and the server's."""

    def __init__(
        self,
        client: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        server: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        self._client, self._server = client[1], server[1]
        self.broken = False

    def reset(self) -> None:
        self.broken = True
        _abort(self._client)
        _abort(self._server)

    def half_open(self) -> None:
        self.broken = True
        _abort(self._server)


def _abort(writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()

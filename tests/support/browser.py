"""A headless Chromium that opens files, and tells what a person would see, and what a developer would."""

from __future__ import annotations

import asyncio
import base64
import io
import itertools
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp
from PIL import Image

DEADLINE_S = 60.0
_OPTIONS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
    "--hide-scrollbars", "--remote-debugging-port=0",
)  # fmt: skip
# Told by the page's own side, or by the browser about it.
_COMPLAINTS = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")


class BrowserUnavailable(Exception):
    """There is no Chromium here."""


class Page:
    """An open page, by Chromium's debugging protocol."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self._events: list[dict[str, Any]] = []

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        number = next(self._numbers)
        await self._socket.send_json({"id": number, "method": method, "params": params})
        while True:
            told = await self._socket.receive_json(timeout=DEADLINE_S)
            if told.get("id") == number:
                assert "error" not in told, told
                result: dict[str, Any] = told["result"]
                return result
            self._events.append(told)

    async def open(self, file: Path, *, width: int = 1200, height: int = 900, scheme: str = "light") -> None:
        """Open a file in a window of a size, light or dark, and wait until it is there."""
        for domain in ("Page", "Runtime", "Log", "Network"):
            await self.call(f"{domain}.enable")
        await self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        await self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        await self.call("Page.navigate", url=file.as_uri())
        deadline = time.monotonic() + DEADLINE_S
        while not await self.evaluate("document.readyState == 'complete' && location.protocol == 'file:'"):
            assert time.monotonic() < deadline, "the page does not load"
            await asyncio.sleep(0.02)

    async def evaluate(self, expression: str) -> Any:
        """Return the value of a JavaScript expression."""
        told = await self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in told, told
        return told["result"].get("value")

    async def screenshot(self) -> Image.Image:
        """Return the whole page as a picture."""
        told = await self.call("Page.captureScreenshot", captureBeyondViewport=True)
        return Image.open(io.BytesIO(base64.b64decode(told["data"]))).convert("RGB")

    async def pdf(self) -> bytes:
        """Return the page as it would be printed."""
        return base64.b64decode((await self.call("Page.printToPDF"))["data"])

    @property
    def complaints(self) -> list[dict[str, Any]]:
        """What the console said so far."""
        return [event for event in self._events if event["method"] in _COMPLAINTS]

    @property
    def requests(self) -> list[str]:
        """Addresses that the page has asked for so far, itself included."""
        sent = [event for event in self._events if event["method"] == "Network.requestWillBeSent"]
        return [event["params"]["request"]["url"] for event in sent]


class Browser:
    """A running Chromium; use `start_browser`."""

    def __init__(self, address: str) -> None:
        self._address = address

    def run(self, job: Any) -> Any:
        """Run ``job(page)``, a coroutine function, with a page of its own, and return what it does."""

        async def with_page() -> Any:
            async with aiohttp.ClientSession() as session:
                async with session.put(f"{self._address}/json/new?about:blank") as answer:
                    target = await answer.json()
                async with session.ws_connect(target["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                    return await job(Page(socket))

        return asyncio.run(with_page())


@contextmanager
def start_browser() -> Iterator[Browser]:
    """Run a Chromium with a new profile while the block runs.

    Raises
    ------
    BrowserUnavailable
        None is installed.
    """
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        raise BrowserUnavailable("no Chromium is installed (Debian's package: chromium)")
    with tempfile.TemporaryDirectory(prefix="browser-", ignore_cleanup_errors=True) as folder:
        command = [program, *_OPTIONS, f"--user-data-dir={folder}", "about:blank"]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            try:
                yield Browser(f"http://127.0.0.1:{_port(process, Path(folder))}")
            finally:
                process.terminate()
                try:
                    process.wait(10)
                except subprocess.TimeoutExpired:
                    process.kill()


def _port(process: subprocess.Popen[bytes], folder: Path) -> int:
    file = folder / "DevToolsActivePort"
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise BrowserUnavailable(f"{process.args!r} ended with {process.returncode}")
        if file.exists() and (lines := file.read_text().splitlines()):
            return int(lines[0])
        time.sleep(0.02)
    raise BrowserUnavailable(f"Chromium did not open its port within {DEADLINE_S:.0f} s")

"""A worker's web server: Faust's own, with pages for health and statistics, on a port that no other worker has."""

from __future__ import annotations

import asyncio
import errno
import logging
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from aiohttp.web import TCPSite
from faust.types._env import WEB_PORT
from faust.web import drivers
from faust.web.drivers.aiohttp import Web as AiohttpWeb

from modelstream.models.errors import ModelStreamError

if TYPE_CHECKING:
    from modelstream.streams.app import App

__all__ = ["Web", "add_pages", "stats_of"]

logger = logging.getLogger(__name__)

# Ports to try from Faust's default on; more workers than this on one host name their port.
_PORTS = 100


class Web(AiohttpWeb):
    """Faust's web server on the first free port, where the port is Faust's default and not somebody's choice.

    Stock Faust ends a second worker on a host because the first one has the port.
    """

    async def start_server(self) -> None:
        """Start the server, and log where."""
        conf = self.app.conf
        if conf.web_transport.scheme != "tcp":
            await super().start_server()
            return
        await self._runner.setup()
        chosen = self.app.web_port_is_chosen or conf.web_port != WEB_PORT
        for port in range(conf.web_port, conf.web_port + (1 if chosen else _PORTS)):
            try:
                await TCPSite(self._runner, conf.web_bind, port, ssl_context=conf.web_ssl_context).start()
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise ModelStreamError(f"no web server on {conf.web_bind}:{port}: {error.strerror}") from None
                continue
            logger.info("web server on http://%s:%d, with /health/ready and /stats", conf.web_bind, port)
            return
        raise ModelStreamError(
            f"port {conf.web_port} of {conf.web_bind} is taken; name another with --web-port, or leave the choice open"
        )


drivers.DRIVERS.aliases["modelstream"] = f"{__name__}:Web"


def stats_of(app: App) -> dict[str, Any]:
    """Return what the worker has done and what it holds.

    Returns
    -------
    dict
        The counters in events; ``partitions``, the partitions of the source topic that this worker reads, as
        ``topic[number]``; ``open_batches``, batches taken up and not yet finished; ``cache``, for each stage that has
        one its `CacheCounters`, in events and in calls of Redis; ``batches``, for each stage that infers, what became
        of its micro-batches (`BatchStatistics.as_dict`); ``tasks``, asyncio tasks of the process, of the worker's
        loop and of the group's; ``transactions``, under exactly-once, how many were committed and aborted, and the
        events of the open one.
    """
    ledger = app.consumer.ledger
    caches = app.built.caches if app.built is not None else {}
    loops = (app.loop, app.consumer._thread.thread_loop)
    return {
        **asdict(app.counters),
        "partitions": sorted(f"{tp.topic}[{tp.partition}]" for tp in ledger.partitions),
        "open_batches": ledger.open_tickets,
        "batches": {step_id: statistics.as_dict() for step_id, statistics in app.batch_statistics.items()},
        "cache": {step_id: asdict(counters) for step_id, counters in caches.items()},
        "tasks": sum(len(asyncio.all_tasks(loop)) for loop in loops),
        **({"transactions": app.exactly_once.stats()} if app.exactly_once is not None else {}),
    }


def add_pages(app: App) -> None:
    """Add the pages to the app's web server."""

    @app.page("/stats", name="modelstream-stats")
    async def stats(view: Any, request: Any) -> Any:
        return view.json(stats_of(app))

    @app.page("/health/live", name="modelstream-live")
    async def live(view: Any, request: Any) -> Any:
        return _verdict(view, "live", app.consumer.health.live_problems())

    @app.page("/health/ready", name="modelstream-health")
    async def healthy(view: Any, request: Any) -> Any:
        return _verdict(view, "ready", app.consumer.health.ready_problems())

    @app.page("/ready", name="modelstream-ready")
    async def ready(view: Any, request: Any) -> Any:
        # A worker without partitions is ready too: there may be more workers than partitions.
        joined = app.consumer.has_joined
        return view.json({"ready": joined}, status=200 if joined else 503)


def _verdict(view: Any, word: str, problems: list[str]) -> Any:
    return view.json({word: not problems, "problems": problems}, status=503 if problems else 200)

"""What a worker tells on its web server, beside Faust's own pages: ``/ready`` and ``/stats``."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from modelstream.streams.app import App

__all__ = ["add_pages", "stats_of"]


def stats_of(app: App) -> dict[str, Any]:
    """Return what the worker has done and what it holds.

    Returns
    -------
    dict
        The counters in events; ``partitions``, the partitions of the source topic that this worker reads, as
        ``topic[number]``; ``open_batches``, batches taken up and not yet finished.
    """
    ledger = app.consumer.ledger
    return {
        **asdict(app.counters),
        "partitions": sorted(f"{tp.topic}[{tp.partition}]" for tp in ledger.partitions),
        "open_batches": ledger.open_tickets,
    }


def add_pages(app: App) -> None:
    """Add the pages to the app's web server."""

    @app.page("/stats", name="modelstream-stats")  # type: ignore[untyped-decorator]
    async def stats(view: Any, request: Any) -> Any:
        return view.json(stats_of(app))

    @app.page("/ready", name="modelstream-ready")  # type: ignore[untyped-decorator]
    async def ready(view: Any, request: Any) -> Any:
        # A worker without partitions is ready too: there may be more workers than partitions.
        joined = app.consumer.has_assignment
        return view.json({"ready": joined}, status=200 if joined else 503)

"""What becomes of workers and brokers when the benchmark itself is told to end."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["stopping_on_sigterm"]


@contextmanager
def stopping_on_sigterm() -> Iterator[None]:
    """Let SIGTERM leave the block as an exception does: workers have sessions of their own, and would stay.

    For the main thread, the only one that may handle signals.
    """

    def end(*_: Any) -> None:
        # `timeout` tells the process and then its group: the second shall not break off what the first has begun.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        sys.exit(128 + signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)

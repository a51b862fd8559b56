"""The generator as the process that measures sees it: started, let go, watched, stopped."""

from __future__ import annotations

import sys
import time
from typing import Any, Self

from modelstream.models.errors import ModelStreamError
from modelstream.streams.replay.arrivals import Schedule
from modelstream.streams.replay.prepared import PreparedEvents
from modelstream.streams.replay.shared import Shared
from modelstream.streams.replay.target import Target
from modelstream.streams.supervised import SupervisedProcess

__all__ = ["GeneratorFailed", "Sending"]

#: It has imported, mapped and connected by then.
_READY_TIMEOUT_S = 60.0
#: From the word to the first event: every process has heard it by then.
_LEAD_US = 100_000
#: After the request to stop it has a slice to finish and what is in the producer to deliver; if the broker takes it.
_STOP_TIMEOUT_S = 10.0


class GeneratorFailed(ModelStreamError):
    """The process that sends the events has ended before it was done."""


class Sending:
    """The generator of one replay.

    Parameters
    ----------
    target : Target
        Where to.
    events : PreparedEvents
        What.
    schedule : Schedule
        When.
    """

    def __init__(self, target: Target, events: PreparedEvents, schedule: Schedule) -> None:
        self.shared = Shared.create(events.folder, len(events), schedule.due_us)
        self._folder = events.folder
        module = "modelstream.streams.replay.generator"
        arguments = [str(self._folder), target.spec.source.topic, target.settings.bootstrap]
        self._command = [sys.executable, "-m", module, *arguments]
        self._environ = target.environ

    def __enter__(self) -> Self:
        log = self._folder / "generator.log"
        log.unlink(missing_ok=True)
        self._process = SupervisedProcess(self._command, folder=self._folder, log=log, env=self._environ, grace_s=1.0)
        return self

    def __exit__(self, *_: Any) -> None:
        self._process.stop()

    def wait_until_ready(self) -> None:
        """Wait until it could start.

        Raises
        ------
        GeneratorFailed
            It ends instead, or takes too long.
        """
        deadline = time.monotonic() + _READY_TIMEOUT_S
        while not self.shared.is_ready:
            self.check()
            if time.monotonic() > deadline:
                raise GeneratorFailed(f"the generator is not ready after {_READY_TIMEOUT_S:.0f} s")
            time.sleep(0.01)

    def start(self) -> None:
        """Let it begin in a moment."""
        self.shared.start_us = time.time_ns() // 1000 + _LEAD_US

    def check(self) -> None:
        """Raise GeneratorFailed if it has ended before it was done."""
        if not self.shared.is_done and not self._process.running and not self.shared.is_done:
            raise GeneratorFailed(f"the generator has ended: {self._process.log_tail(5) or 'it said nothing'}")

    def stop(self) -> None:
        """Have it end early, with all that it has sent on Kafka."""
        self.shared.stop = True
        deadline = time.monotonic() + _STOP_TIMEOUT_S
        while not self.shared.is_done and time.monotonic() < deadline:
            self.check()
            time.sleep(0.01)

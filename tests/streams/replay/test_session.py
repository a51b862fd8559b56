"""How a replay ends that is ended before its end."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, NoReturn

import numpy as np
import pytest

from modelstream.models.errors import ModelStreamError
from modelstream.streams.replay import session
from modelstream.streams.worker_process import WorkerFailed


class Sending:
    """Stands for a generator that has sent two events."""

    def __init__(self, *_: Any) -> None:
        self.shared = SimpleNamespace(start_us=1, n_sent=2, intended_us=[1, 2], sent_us=[1, 2], is_done=False)

    def __enter__(self) -> Sending:
        return self

    def __exit__(self, *_: Any) -> None:
        pass

    def wait_until_ready(self) -> None:
        """It is."""

    def stop(self) -> None:
        """It does."""


class Reader:
    """Stands for what reads dead letters."""

    def __init__(self, *_: Any) -> None:
        pass

    start = wait_until_started = end = lambda self: None


@pytest.mark.parametrize("worker_fails", [False, True])
@pytest.mark.parametrize("ended_by", [KeyboardInterrupt(), ModelStreamError("the broker is away")])
def test_what_ended_it_is_told_a_failure_first(
    monkeypatch: pytest.MonkeyPatch, ended_by: BaseException, worker_fails: bool
) -> None:
    dead = WorkerFailed("the worker ended")

    def check() -> None:
        if worker_fails:
            raise dead

    def read_topic(*_: Any, **__: Any) -> NoReturn:
        raise ended_by

    workers = SimpleNamespace(check=check, usage=lambda: None, stats=lambda: [{"events": 2}])
    sink = SimpleNamespace(topic="out", dead_letter="dead")
    spec = SimpleNamespace(source=SimpleNamespace(topic="in"), sink=sink)
    target: Any = SimpleNamespace(
        spec=spec, settings=None, workers=workers, next_offsets=np.array([4, 2]), partitions=2
    )
    events: Any = SimpleNamespace(hashes_at=lambda *_: np.zeros(2, np.uint64), partitions=np.array([1, 0, 0]))
    monkeypatch.setattr(session, "Sending", Sending)
    monkeypatch.setattr(session, "LetterReader", Reader)
    monkeypatch.setattr(session, "read_topic", read_topic)
    monkeypatch.setattr(session, "Usage", SimpleNamespace(of=lambda looks: None))
    found = session.observe(target, events, None, drain_s=1.0)  # type: ignore[arg-type]
    assert found.ended_by is (dead if worker_fails and isinstance(ended_by, KeyboardInterrupt) else ended_by)
    assert found.stats_after == ([] if worker_fails else [{"events": 2}])
    assert len(found.sent_us) == 2
    # Where no field is an event's id its place is: the next replay on these topics begins behind this one.
    assert target.next_offsets.tolist() == [5, 3]

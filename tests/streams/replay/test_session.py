"""How a replay ends that is ended before its end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
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

    error = None
    start = wait_until_started = end = lambda self: None


def target_of(workers: Any) -> Any:
    sink = SimpleNamespace(topic="out", dead_letter="dead")
    spec = SimpleNamespace(source=SimpleNamespace(topic="in"), sink=sink)
    return SimpleNamespace(spec=spec, settings=None, workers=workers, next_offsets=np.array([4, 2]), partitions=2)


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
    target = target_of(workers)
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


def test_a_worker_that_goes_on_filtering_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    # Time goes on by itself: one of ten events is filtered every twenty looks, after 2 to 4 s.
    ticks, looks = count(), count()

    def read_topic(*_: Any, stop: Callable[[], bool], on_start: Callable[[], None], **__: Any) -> Iterator[list[Any]]:
        on_start()
        while not stop():
            pass
        return iter(())

    class Sent(Sending):
        start = check = lambda self: None

        def __init__(self, *_: Any) -> None:
            super().__init__()
            times_us = list(range(10))
            self.shared = SimpleNamespace(start_us=1, n_sent=10, intended_us=times_us, sent_us=times_us, is_done=True)

    def stats() -> list[dict[str, int]]:
        return [{"predictions": 0, "dead_letters": 0, "filtered": next(looks) // 20}]

    workers = SimpleNamespace(check=lambda: None, usage=lambda: None, stats=stats)
    events: Any = SimpleNamespace(hashes_at=lambda *_: np.zeros(10, np.uint64), partitions=np.zeros(10, np.int64))
    monkeypatch.setattr(session, "Sending", Sent)
    monkeypatch.setattr(session, "LetterReader", Reader)
    monkeypatch.setattr(session, "read_topic", read_topic)
    monkeypatch.setattr(session, "time", SimpleNamespace(monotonic=lambda: 0.1 * next(ticks), time_ns=lambda: 0))
    monkeypatch.setattr(session, "Usage", SimpleNamespace(of=lambda looks: None))
    monkeypatch.setattr(session._Run, "_progress", lambda self, now: None)
    found = session.observe(target_of(workers), events, None, drain_s=8.0)  # type: ignore[arg-type]
    assert found.stats_after[0]["filtered"] == 10

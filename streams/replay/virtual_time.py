"""Virtual time: what the work of a pipeline costs, and a clock that goes by these costs alone."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import replace
from itertools import count
from typing import TYPE_CHECKING, Any, NamedTuple

from modelstream.operators.batch import EventBatch
from modelstream.operators.codecs import Codec
from modelstream.operators.operator import Operator
from modelstream.streams.build import BuiltPipeline, BuiltStage
from modelstream.streams.replay.costs import Costs, Line

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["VirtualClock", "VirtualPool", "timed"]


class VirtualClock:
    """Seconds since the start of a run. It stands still but for what is spent.

    Examples
    --------
    >>> clock = VirtualClock()
    >>> clock.spend(0.25)
    >>> clock.advance_to(0.125)
    >>> clock()
    0.25
    """

    __slots__ = ("_now_s",)

    def __init__(self) -> None:
        self._now_s = 0.0

    def __call__(self) -> float:
        """Return the time, in seconds."""
        return self._now_s

    def spend(self, seconds: float) -> None:
        """Let so much time go by."""
        self._now_s += seconds

    def advance_to(self, moment_s: float) -> None:
        """Wait for a moment, unless it is over."""
        self._now_s = max(self._now_s, moment_s)

    def elsewhere(self, work: Callable[[], Any]) -> tuple[Any, float]:
        """Return what some work gives, and the seconds it takes, without letting them go by here."""
        before_s = self._now_s
        try:
            result = work()
            return result, self._now_s - before_s
        finally:
            self._now_s = before_s


class _Due(NamedTuple):
    at_s: float
    #: Of two that are due at once, the one that was begun first.
    number: int
    future: Future[Any]
    result: Any


class VirtualPool(Executor):
    """Threads beside the data thread: work is done at once, and known to be done when its time has gone by.

    Parameters
    ----------
    clock : VirtualClock
        What the work spends its time on.
    n_threads : int
        How many works go on at the same time.
    """

    def __init__(self, clock: VirtualClock, n_threads: int) -> None:
        self._clock = clock
        #: When each thread is free again, as a heap.
        self._free_s = [0.0] * n_threads
        self._due: list[_Due] = []
        self._numbers = count()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Have work done by the first thread that is free."""
        result, takes_s = self._clock.elsewhere(lambda: fn(*args, **kwargs))
        end_s = max(self._clock(), heapq.heappop(self._free_s)) + takes_s
        heapq.heappush(self._free_s, end_s)
        future: Future[Any] = Future()
        heapq.heappush(self._due, _Due(end_s, next(self._numbers), future, result))
        return future

    @property
    def next_s(self) -> float:
        """When the next work is done; infinity where nothing is under way."""
        return self._due[0].at_s if self._due else float("inf")

    def release(self) -> None:
        """Make known what is done by now."""
        while self._due and self._due[0].at_s <= self._clock():
            done = heapq.heappop(self._due)
            done.future.set_result(done.result)


def timed(built: BuiltPipeline, costs: Costs, clock: VirtualClock) -> BuiltPipeline:
    """Return a pipeline that does the same, and spends what it costs on a clock."""
    codec = _TimedCodec(built.codec, lambda n_rows: clock.spend(costs.decode.seconds(n_rows)))
    stages = tuple(
        BuiltStage(stage.step_id, _TimedOperator(stage.operator, costs.stages[stage.step_id], clock))
        for stage in built.stages
    )
    return replace(built, codec=codec, stages=stages)  # type: ignore[arg-type]  # it only has to decode


class _TimedCodec:
    def __init__(self, codec: Codec, spend: Callable[[int], None]) -> None:
        self._codec = codec
        self._spend = spend

    def decode(self, values: Sequence[bytes | None], *arguments: Any, **options: Any) -> EventBatch:
        self._spend(len(values))
        return self._codec.decode(values, *arguments, **options)


class _TimedOperator:
    def __init__(self, operator: Operator, line: Line, clock: VirtualClock) -> None:
        self._operator = operator
        self._line = line
        self._clock = clock
        #: Whoever tells the versions of models asks a stage for them.
        self.models = getattr(operator, "models", ())

    @property
    def step_id(self) -> str:
        return self._operator.step_id

    def __call__(self, batch: EventBatch) -> EventBatch:
        self._clock.spend(self._line.seconds(len(batch)))
        return self._operator(batch)

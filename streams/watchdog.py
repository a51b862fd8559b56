"""The watchdog: which partitions have stopped making progress though there is something to do, and since when.

Kafka's clients are known to stop reading after a rebalance or an outage while the process looks healthy
(faust-streaming/faust#175, #523, #629). The watchdog compares where a partition stands with where it ends. It knows
neither Kafka nor time: what is observed is handed in, and so is the clock.

One owner: the worker's event loop.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from time import monotonic
from typing import Generic, TypeVar

from modelstream.models.errors import ModelStreamError

__all__ = ["Stalled", "Standing", "Watchdog"]

PartitionT = TypeVar("PartitionT", bound=Hashable)


class Stalled(ModelStreamError):
    """Partitions make no progress, and reading them anew has not helped.

    Parameters
    ----------
    partitions : list of str
        Their names.
    limit_s : float
        How long nothing happened, in seconds, before and after they were read anew.
    data_thread_hangs : bool
        Whether that is because the thread that computes does not come back.
    """

    permanent = False

    def __init__(self, partitions: list[str], limit_s: float, *, data_thread_hangs: bool) -> None:
        self.partitions = partitions
        names = ", ".join(partitions)
        cause = (
            "a model or function does not return; set its timeout_ms, or --stall-timeout above the time that it needs"
            if data_thread_hangs
            else "another worker, or this one started again, goes on from the committed offsets"
        )
        super().__init__(f"no progress on {names} for {limit_s:.0f} s, nor after reading anew: {cause}")


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a partition stands at one moment.

    Parameters
    ----------
    finished_rows : int
        Rows finished since the assignment.
    position : int
        Offset of the next record to fetch.
    unfinished : bool
        Whether fetched records are not finished.
    end : int
        Where the partition ends, as far as is known; never below what holds a record to be read.
    """

    finished_rows: int
    position: int
    unfinished: bool
    end: int

    @property
    def is_behind(self) -> bool:
        """Whether there is something to do."""
        return self.unfinished or self.end > self.position


class Watchdog(Generic[PartitionT]):
    """Tells which partitions are stalled: behind, and without progress for longer than a limit.

    A partition that only waits for its turn is not stalled. So one with fetched records is stalled only if the whole
    worker is; and one whose records do not come is, also if others get on, if the fetch had room for them and found
    nothing.

    Parameters
    ----------
    limit_s : float
        Seconds without progress. More than a model may take for a batch.
    clock : callable, optional
        Seconds that only ever grow.

    Examples
    --------
    >>> now = 0.0
    >>> watchdog = Watchdog(60.0, clock=lambda: now)
    >>> stuck = {"events[0]": Standing(finished_rows=10, position=10, unfinished=False, end=15)}
    >>> watchdog.look(stuck, starved_at=0.0)
    set()
    >>> now = 61.0
    >>> watchdog.look(stuck, starved_at=0.0)
    {'events[0]'}
    """

    def __init__(self, limit_s: float, clock: Callable[[], float] = monotonic) -> None:
        self.limit_s = limit_s
        self._clock = clock
        self._last: dict[PartitionT, Standing] = {}
        # When each was last seen to get on, or to have nothing to do.
        self._well_at: dict[PartitionT, float] = {}
        self._read_anew: set[PartitionT] = set()

    def rest(self) -> None:
        """Start all times again: nothing can be expected of a worker in a rebalance, or without its broker."""
        self._last.clear()
        self._well_at.clear()

    def note_read_anew(self, partitions: set[PartitionT]) -> None:
        """Note that stalled partitions are read anew from the committed offsets; it helps once, or not at all."""
        self._read_anew |= partitions
        self.rest()

    def has_read_anew(self, partitions: set[PartitionT]) -> bool:
        """Whether any of these was read anew, and has not got on since."""
        return bool(self._read_anew & partitions)

    def look(self, standings: Mapping[PartitionT, Standing], *, starved_at: float) -> set[PartitionT]:
        """Return the partitions that are stalled.

        Parameters
        ----------
        standings : mapping of hashable to Standing
            Every assigned partition.
        starved_at : float
            When a fetch last brought less than it had room for, by this clock.
        """
        now = self._clock()
        for partition in self._well_at.keys() - standings.keys():
            del self._well_at[partition], self._last[partition]
        for partition, standing in standings.items():
            last = self._last.get(partition)
            if standing.finished_rows > (last.finished_rows if last else 0):
                self._read_anew.discard(partition)
            if last is None or not standing.is_behind or _gets_on(last, standing):
                self._well_at[partition] = now
            self._last[partition] = standing
        silent = {partition for partition, at in self._well_at.items() if now - at >= self.limit_s}
        # Who is behind and well gets on; who has nothing to do says nothing of the others.
        all_stand = all(p in silent for p, standing in standings.items() if standing.is_behind)
        return {p for p in silent if all_stand or self._is_not_fetched(p, standings[p], starved_at)}

    def _is_not_fetched(self, partition: PartitionT, standing: Standing, starved_at: float) -> bool:
        # In the second half of the time, so that what was fetched before is not what kept it waiting.
        return not standing.unfinished and starved_at > self._well_at[partition] + self.limit_s / 2


def _gets_on(last: Standing, standing: Standing) -> bool:
    return standing.finished_rows != last.finished_rows or standing.position != last.position

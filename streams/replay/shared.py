"""What the generator and the process that measures tell each other: numbers in mapped files, without a lock.

Each number has one writer. What it says becomes true before it is written, so a reader may be late, never wrong.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

__all__ = ["Shared"]

_READY, _START_US, _N_SENT, _STOP, _DONE = range(5)
_CONTROL, _DUE, _INTENDED, _SENT = "control.npy", "due.npy", "intended.npy", "sent.npy"


class Shared:
    """The numbers of one replay.

    Parameters
    ----------
    folder : Path
        Where the files are; use `create` or `open`.

    Attributes
    ----------
    due_us : ndarray of int64, shape (n_events,), or None
        When each event is due, in microseconds after the start.
    intended_us, sent_us : ndarray of int64, shape (n_events,)
        When it was due, and when it had been handed to the producer, in microseconds since 1970; the generator's.
    """

    def __init__(self, folder: Path) -> None:
        self._control = np.load(folder / _CONTROL, mmap_mode="r+")
        self.due_us: NDArray[np.int64] | None = np.load(folder / _DUE) if (folder / _DUE).exists() else None
        self.intended_us: NDArray[np.int64] = np.load(folder / _INTENDED, mmap_mode="r+")
        self.sent_us: NDArray[np.int64] = np.load(folder / _SENT, mmap_mode="r+")

    @classmethod
    def create(cls, folder: Path, n_events: int, due_us: NDArray[np.int64] | None) -> Shared:
        """Make the files of a replay of so many events, in place of those of another."""
        for name in (_CONTROL, _DUE, _INTENDED, _SENT):
            # Not written over: who has mapped the old ones would crash.
            (folder / name).unlink(missing_ok=True)
        if due_us is not None:
            np.save(folder / _DUE, due_us)
        np.save(folder / _CONTROL, np.zeros(8, np.int64))
        for name in (_INTENDED, _SENT):
            np.save(folder / name, np.zeros(n_events, np.int64))
        return cls(folder)

    @classmethod
    def open(cls, folder: Path) -> Shared:
        """Open the files that another process has made."""
        return cls(folder)

    @property
    def is_ready(self) -> bool:
        """Whether the generator could start at once; set by the generator."""
        return bool(self._control[_READY])

    @is_ready.setter
    def is_ready(self, value: bool) -> None:
        self._control[_READY] = value

    @property
    def start_us(self) -> int:
        """When it is to start, in microseconds since 1970; 0 until that is settled."""
        return int(self._control[_START_US])

    @start_us.setter
    def start_us(self, value: int) -> None:
        self._control[_START_US] = value

    @property
    def n_sent(self) -> int:
        """Events handed to the producer so far; set by the generator."""
        return int(self._control[_N_SENT])

    @n_sent.setter
    def n_sent(self, value: int) -> None:
        self._control[_N_SENT] = value

    @property
    def stop(self) -> bool:
        """Whether the generator is to end before it is done."""
        return bool(self._control[_STOP])

    @stop.setter
    def stop(self, value: bool) -> None:
        self._control[_STOP] = value

    @property
    def is_done(self) -> bool:
        """Whether Kafka has all events, or all up to the stop; set by the generator."""
        return bool(self._control[_DONE])

    @is_done.setter
    def is_done(self, value: bool) -> None:
        self._control[_DONE] = value

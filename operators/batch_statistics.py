"""What became of the micro-batches of a stage: counts and histograms, cheap to keep and to read."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

__all__ = ["BatchMode", "BatchStatistics", "CloseReason", "Histogram"]

#: The last bound is 2^35: in microseconds nine hours.
_N_BUCKETS = 36


class CloseReason(StrEnum):
    """Why a micro-batch has the rows that it has."""

    #: As many rows, or bytes, as a batch may have.
    FULL = "full"
    #: Its oldest row could not wait any longer, or not for a larger batch.
    DEADLINE = "deadline"
    #: The model was free, and nothing more was there.
    IDLE = "idle"
    #: Nothing more will come for now, at the end of an assignment say.
    DRAIN = "drain"


class BatchMode(StrEnum):
    """What batches are made for, where there is a target."""

    #: For the age of the oldest row.
    LATENCY = "latency"
    #: For events per second: rows were older than the target before a model could see them.
    THROUGHPUT = "throughput"


class Histogram:
    """Counts of whole numbers in powers of two.

    Examples
    --------
    >>> histogram = Histogram()
    >>> for n_rows in (1, 3, 4, 1024):
    ...     histogram.note(n_rows)
    >>> histogram.as_dict(), histogram.n, histogram.total
    ({'1': 1, '4': 2, '1024': 1}, 4, 1032)
    """

    __slots__ = ("counts", "n", "total")

    def __init__(self) -> None:
        #: Entry i counts the values up to 2^i that are above 2^(i-1); the last one also those above it.
        self.counts = [0] * _N_BUCKETS
        self.n = 0
        self.total = 0

    def note(self, value: int) -> None:
        """Count a value, 0 or more."""
        # Of v - 1, so that 2^i itself is not above its bound: batches of 1,024 are common, of 1,025 not.
        self.counts[min((value - 1).bit_length() if value > 1 else 0, _N_BUCKETS - 1)] += 1
        self.n += 1
        self.total += value

    def as_dict(self) -> dict[str, int]:
        """Return the counts that are not zero, by their upper bound."""
        return {str(1 << i): count for i, count in enumerate(self.counts) if count}


@dataclass(slots=True)
class BatchStatistics:
    """What a stage's micro-batches were like, since the start.

    Parameters
    ----------
    batches : dict of CloseReason to int
        Micro-batches by the reason for which they were closed.
    rows : int
        Rows in them.
    dropped_rows : int
        Rows that were forgotten, because their partition was taken away.
    waiting_rows, waiting_bytes : int
        What waits now.
    sizes : Histogram
        Rows of a micro-batch.
    queued_us, service_us : Histogram
        For each micro-batch, the longest wait of its rows, and what the models took, in microseconds.
    cap : int
        Rows that the last micro-batch could have had.
    fixed_us, per_row_us : float
        The fitted cost: what a batch takes, and what each of its rows adds, in microseconds.
    mode : BatchMode or None
        What batches are made for; None without a target.
    padding_waste : float or None
        Share of fillers among all values that the models were given of rows of different lengths; None without such.
    """

    batches: dict[CloseReason, int] = field(default_factory=lambda: dict.fromkeys(CloseReason, 0))
    rows: int = 0
    dropped_rows: int = 0
    waiting_rows: int = 0
    waiting_bytes: int = 0
    sizes: Histogram = field(default_factory=Histogram)
    queued_us: Histogram = field(default_factory=Histogram)
    service_us: Histogram = field(default_factory=Histogram)
    cap: int = 0
    fixed_us: float = 0.0
    per_row_us: float = 0.0
    mode: BatchMode | None = None
    padding_waste: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return all of it as plain values, for JSON: histograms as counts by upper bound."""
        return {
            "batches": {str(reason): count for reason, count in self.batches.items()},
            "rows": self.rows,
            "dropped_rows": self.dropped_rows,
            "waiting_rows": self.waiting_rows,
            "waiting_bytes": self.waiting_bytes,
            "sizes": self.sizes.as_dict(),
            "queued_us": self.queued_us.as_dict(),
            "service_us": self.service_us.as_dict(),
            "queued_us_total": self.queued_us.total,
            "service_us_total": self.service_us.total,
            "cap": self.cap,
            "fixed_us": round(self.fixed_us, 3),
            "per_row_us": round(self.per_row_us, 4),
            "mode": self.mode and str(self.mode),
            "padding_waste": self.padding_waste and round(self.padding_waste, 4),
        }

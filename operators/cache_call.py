"""One batch on its way through a cache."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from modelstream.operators.answer_parts import AnswerParts, UniqueRows
from modelstream.operators.bypass import Spent
from modelstream.operators.infer import ModelInputs
from modelstream.operators.stage_clock import Moment

__all__ = ["CacheCall", "OtherLayoutError"]


class OtherLayoutError(Exception):
    """The models' answers look otherwise than before, so they cannot stand beside kept ones."""


@dataclass(slots=True)
class CacheCall:
    """What is known of a batch, each of its rows once.

    Parameters
    ----------
    inputs : ModelInputs
        What the models are to see of it.
    unique : UniqueRows
        Its rows.
    parts : AnswerParts
        The answers so far.
    states : ndarray of uint8, shape (n_unique,)
        `CacheState` of each row.
    spent : Spent
        What it took.
    began : Moment
        When it began.
    skipped : bool
        Whether the store is not asked, or does not answer.
    elsewhere_s : float
        CPU time for models and the store, in seconds: the cache's own work is the rest.
    corrupt : int
        Values of the store that were not whole.
    late : int
        Rows that another batch was to compute, and did not in time.
    """

    inputs: ModelInputs
    unique: UniqueRows
    parts: AnswerParts
    states: NDArray[np.uint8]
    spent: Spent
    began: Moment
    skipped: bool
    elsewhere_s: float = 0.0
    corrupt: int = 0
    late: int = 0

    def digests(self, rows: NDArray[np.intp]) -> list[bytes]:
        """Return what some of the unique rows are known by; `rows` is in their order, each once at most."""
        digests = self.unique.digests
        return digests if len(rows) == len(digests) else [digests[row] for row in rows.tolist()]

"""Filter: a business rule that takes events out; nothing is due for them, and that is no error."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelstream.models.errors import ConfigError, OperatorError
from modelstream.operators.batch import EventBatch
from modelstream.operators.paths import Unfit, find_values, look_up
from modelstream.operators.user_functions import call_user_function

__all__ = ["Filter", "FilterFunction"]

#: A user's function: true for the events to keep.
FilterFunction = Callable[[EventBatch], NDArray[np.bool_]]


@dataclass(frozen=True)
class Filter:
    """Keeps the events that a rule says, and takes the others out.

    Parameters
    ----------
    step_id : str
        Name of the stage.
    present : sequence of str
        Keep the events in which every one of these fields is there and not null; or
    function : callable
        Returns for a whole batch which events to keep: an array of bool, shape (n_rows,).

    Examples
    --------
    >>> batch = EventBatch.of_events([{"x": 1}, {"x": None}, {}])
    >>> settled = Filter("known", present=("x",))(batch).settle()
    >>> settled.kept.events, len(settled.filtered)
    ([{'x': 1}], 2)
    """

    step_id: str
    present: tuple[str, ...] = ()
    function: FilterFunction | None = None

    def __post_init__(self) -> None:
        if bool(self.present) == (self.function is not None):
            raise ConfigError(self.step_id, "filter needs the names of fields or a function, and not both")

    def __call__(self, batch: EventBatch) -> EventBatch:
        """Mark the events that the rule takes out."""
        if self.function is not None:
            changed, keep = call_user_function(self.step_id, self.function, batch)
            changed.filter_out(~self._checked(keep, len(batch)))
            return changed
        for path in self.present:
            batch.filter_out(np.array(_absent(batch.events, path), np.bool_))
        return batch

    def _checked(self, keep: Any, n_rows: int) -> NDArray[np.bool_]:
        mask = np.asarray(keep)
        if mask.dtype != np.bool_ or mask.shape != (n_rows,):
            found = f"{type(keep).__name__} of {mask.dtype}, shape {mask.shape}"
            raise OperatorError(self.step_id, f"the function returned {found}, not {n_rows} times true or false")
        return mask


def _absent(events: Sequence[dict[str, Any]], path: str) -> list[bool]:
    try:
        return [value is None for value in find_values(events, path)]
    except Unfit:
        return [_is_absent(event, path) for event in events]


def _is_absent(event: dict[str, Any], path: str) -> bool:
    try:
        return look_up(event, path) is None
    except Unfit:  # ``a.b`` where ``a`` is no object: it has no ``b``
        return True

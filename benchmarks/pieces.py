"""A part of the results may be measured in pieces: some systems now, others before, or on another machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["environments", "put"]


def put(
    before: Mapping[str, Any] | None,
    piece: Mapping[str, Any],
    runs: Sequence[Mapping[str, Any]],
    unavailable: Mapping[str, str],
) -> dict[str, Any]:
    """Return a part with what was measured now, in the place of what it had of the same systems.

    Parameters
    ----------
    before : mapping, optional
        The part as it was.
    piece : mapping
        When, where and how it was measured now: ``measured``, ``environment``, and for some parts ``setting``.
    runs : sequence of mapping
        What was measured, each with its ``system``.
    unavailable : mapping of str to str
        Why other systems were not.

    Returns
    -------
    dict
        ``pieces``, each with its ``systems``; ``runs`` and ``unavailable`` of all of them.
    """
    before = before or {"pieces": [], "runs": [], "unavailable": {}}
    measured = list(dict.fromkeys(run["system"] for run in runs))
    now = {*measured, *unavailable}
    pieces = [{**one, "systems": [name for name in one["systems"] if name not in now]} for one in before["pieces"]]
    return {
        "pieces": [one for one in [*pieces, {**piece, "systems": measured}] if one["systems"]],
        "unavailable": {name: why for name, why in before["unavailable"].items() if name not in now} | {**unavailable},
        "runs": [*(run for run in before["runs"] if run["system"] not in now), *runs],
    }


def environments(found: Mapping[str, Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the environments in which anything was measured, each once."""
    distinct: list[Mapping[str, Any]] = []
    for parts in found.values():
        for piece in (piece for part in parts.values() for piece in part["pieces"]):
            if piece["environment"] not in distinct:
                distinct.append(piece["environment"])
    return distinct

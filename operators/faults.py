"""Why a row was rejected."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["REASONS", "Fault"]

#: What rows are rejected for.
REASONS = (
    "undecodable",
    "too_large",
    "too_deep",
    "missing_field",
    "wrong_type",
    "non_finite",
    "rule",
    "operator_failed",
    "model_failed",
    "model_unavailable",
)


@dataclass(frozen=True, slots=True)
class Fault:
    """Why one row was rejected.

    Parameters
    ----------
    stage : str
        Step id of the stage that found it; ``source`` for decoding.
    reason : str
        One of `REASONS`, for counting and filtering: see `docs/dead-letters.md`.
    detail : str
        One line for a person.
    exception : str, optional
        Type name of the exception behind it.
    """

    stage: str
    reason: str
    detail: str
    exception: str | None = None

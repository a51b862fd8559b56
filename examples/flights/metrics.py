"""How good predictions are: minutes off for numbers, ranking and calibration for scores."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["score_classifier", "score_regressor"]

_N_BINS = 15


def score_regressor(truth: NDArray[np.floating], predicted: NDArray[np.floating]) -> dict[str, float]:
    """Return the mean absolute error and the root of the mean squared error, in the unit of the truth.

    Examples
    --------
    >>> score_regressor(np.array([0.0, 10.0]), np.array([3.0, 6.0]))
    {'mae': 3.5, 'rmse': 3.5355339059327378}
    """
    error = np.asarray(predicted, np.float64) - truth
    return {"mae": float(np.abs(error).mean()), "rmse": float(np.sqrt((error**2).mean()))}


def score_classifier(truth: NDArray[np.bool_], score: NDArray[np.floating]) -> dict[str, float]:
    """Return how well scores between 0 and 1 rank events (`auc`), and how well they hold as probabilities.

    `ece`, the expected calibration error, is the mean gap between score and frequency over 15 bins of equal width,
    each weighted by its events.

    Examples
    --------
    >>> score_classifier(np.array([False, False, True]), np.array([0.25, 0.75, 0.75]))["auc"]
    0.75
    """
    score = score.astype(np.float64)
    clipped = np.clip(score, 1e-7, 1 - 1e-7)  # float32 reaches 0 and 1, whose log loss is infinite
    bins = np.minimum((score * _N_BINS).astype(np.intp), _N_BINS - 1)
    gaps = np.bincount(bins, score, _N_BINS) - np.bincount(bins, truth, _N_BINS)
    return {
        "auc": _auc(truth, score),
        "log_loss": float(-np.log(np.where(truth, clipped, 1 - clipped)).mean()),
        "brier": float(((score - truth) ** 2).mean()),
        "ece": float(np.abs(gaps).sum() / len(score)),
        "accuracy": float(((score > 0.5) == truth).mean()),
    }


def _auc(truth: NDArray[np.bool_], score: NDArray[np.floating]) -> float:
    """Return how often a true event scores above a false one, a tie counting half (Mann–Whitney)."""
    _, index, counts = np.unique(score, return_inverse=True, return_counts=True)
    mean_rank = (np.cumsum(counts) - (counts - 1) / 2)[index]
    n_true = int(truth.sum())
    n_false = len(truth) - n_true
    return float((mean_rank[truth].sum() - n_true * (n_true + 1) / 2) / (n_true * n_false))

"""Which of many points are worth having: those that no other one beats."""

from __future__ import annotations

import numpy as np


def non_dominated(points: np.ndarray) -> np.ndarray:
    """Return which points no other one dominates; of equal points the first alone.

    A point dominates another one if it is at most as large in every coordinate and smaller in one.

    Args:
        points: shape (N, K), less is better in every coordinate.

    Returns:
        Booleans, shape (N,).

    Raises:
        ValueError: a coordinate is not a number.

    Example:
        >>> non_dominated(np.array([[1, 4], [2, 4], [2, 3], [2, 3], [4, 1]])).tolist()
        [True, False, True, False, True]
    """
    points = np.asarray(points, np.float64)
    if np.isnan(points).any():
        raise ValueError(f"point {int(np.argmax(np.isnan(points).any(axis=1)))} has a coordinate that is not a number")
    kept = np.zeros(len(points), bool)
    # In lexicographic order whatever dominates a point stands before it.
    front = np.empty((0, points.shape[1]))
    for index in np.lexsort((np.arange(len(points)), *points.T[::-1])):
        if not np.any(np.all(front <= points[index], axis=1)):
            kept[index] = True
            front = np.vstack([front, points[index]])
    return kept

"""Learning rates."""

from __future__ import annotations

from collections.abc import Sequence


def learning_rate(first: float, milestones: Sequence[int], decay: float, epoch: int) -> float:
    """Return the learning rate of an epoch: the first one, times `decay` for every milestone passed.

    Args:
        first: rate of epoch 0.
        milestones: epochs at whose start the rate falls.
        decay: factor of each fall.
        epoch: number of the epoch, from 0.

    Example:
        >>> [learning_rate(1.0, (80, 120), 0.5, epoch) for epoch in (0, 79, 80, 120)]
        [1.0, 1.0, 0.5, 0.25]
    """
    return first * decay ** sum(epoch >= milestone for milestone in milestones)

"""Initial weights from a normal distribution without its tails."""

from __future__ import annotations

import nnabla.initializer as I
import nnabla.random
import numpy as np


class TruncatedNormalInitializer(I.BaseInitializer):
    """Normal random numbers; one that is too far out is drawn again.

    Args:
        deviation: standard deviation of the whole normal distribution, > 0; that of what remains is 0.880 of it.
        limit: largest distance from zero, in deviations, > 0.
        rng: source of the numbers; nnabla's own if None.

    Example:
        >>> numbers = TruncatedNormalInitializer(0.01, rng=np.random.RandomState(0))((64, 3, 7, 7))
        >>> bool(abs(numbers).max() <= 0.02)
        True

    Source:
        Cai and Vasconcelos, "Rethinking Differentiable Search for Mixed-Precision Neural Networks": the weights that
        its Inception networks start from.
    """

    def __init__(self, deviation: float, limit: float = 2.0, rng: np.random.RandomState | None = None) -> None:
        self.deviation = deviation
        self.limit = limit
        self.rng = nnabla.random.prng if rng is None else rng

    def __call__(self, shape: tuple[int, ...]) -> np.ndarray:
        """Return an array of that shape."""
        numbers = self.rng.randn(int(np.prod(shape)))
        outside = np.flatnonzero(np.abs(numbers) > self.limit)
        while len(outside):
            numbers[outside] = self.rng.randn(len(outside))
            outside = outside[np.abs(numbers[outside]) > self.limit]
        return (self.deviation * numbers).reshape(shape).astype(np.float32)

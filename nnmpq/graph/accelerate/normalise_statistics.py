"""A channel's statistics and gradients from the sums that blocks of rows left."""

from __future__ import annotations

import numpy as np
from numba import njit


def tiling(rows: int, channels: int, target: int = 512) -> int:
    """Return how many rows to lay side by side, so that inner loops fill vector registers.

    Args:
        rows: numbers a channel has.
        channels: their count.
        target: width that is not exceeded by tiling.

    Example:
        >>> tiling(8192, 16), tiling(8192, 600), tiling(3, 16)
        (32, 1, 1)
    """
    tiles = 1
    while rows % (2 * tiles) == 0 and channels * 2 * tiles <= target:
        tiles *= 2
    return tiles


@njit(error_model="numpy", cache=True)
def fold(sums, channels):  # type: ignore[no-untyped-def]
    """Add up the blocks' and the tiles' sums, in float64, shape (2, C)."""
    total = np.zeros((2, channels))
    for block in range(sums.shape[0]):
        for k in range(2):
            for i in range(sums.shape[2]):
                total[k, i % channels] += sums[block, k, i]
    return total


@njit(error_model="numpy", cache=True)
def spread(values, out):  # type: ignore[no-untyped-def]
    """Repeat a channel's values along a row."""
    for i in range(out.size):
        out[i] = values[i % values.size]


@njit(error_model="numpy", cache=True)
def batch_statistics(  # type: ignore[no-untyped-def]
    sums, shift, count, eps, decay, gamma, beta, running_mean, running_variance, mean, scale, offset, inverse
):
    """Fill mean, scale = gamma / sqrt(var + eps) and offset = beta, and move the running statistics.

    The running variance takes the unbiased one, count / (count - 1) times the batch's.
    """
    channels = gamma.size
    total = fold(sums, channels)
    correction = count / (count - 1.0) if count > 1 else 1.0
    for c in range(channels):
        distance = total[0, c] / count
        variance = max(total[1, c] / count - distance * distance, 0.0)
        average = shift[c] + distance
        inverse[c] = 1.0 / np.sqrt(variance + eps)
        running_mean[c] = decay * running_mean[c] + (1.0 - decay) * average
        running_variance[c] = decay * running_variance[c] + (1.0 - decay) * variance * correction
        for i in range(c, mean.size, channels):
            mean[i] = average
            scale[i] = gamma[c] * inverse[c]
            offset[i] = beta[c]


@njit(error_model="numpy", cache=True)
def running_statistics(  # type: ignore[no-untyped-def]
    eps, gamma, beta, running_mean, running_variance, mean, scale, offset, inverse
):
    """Fill mean, scale and offset from the running statistics."""
    channels = gamma.size
    for c in range(channels):
        inverse[c] = 1.0 / np.sqrt(np.float64(running_variance[c]) + eps)
        for i in range(c, mean.size, channels):
            mean[i] = running_mean[c]
            scale[i] = gamma[c] * inverse[c]
            offset[i] = beta[c]


@njit(error_model="numpy", cache=True)
def channel_gradients(sums, count, learned, inverse, offset, slope):  # type: ignore[no-untyped-def]
    """Return the gradients of beta and gamma; fill what the data's gradient subtracts: nothing for fixed statistics."""
    channels = inverse.size
    total = fold(sums, channels)
    for c in range(channels):
        for i in range(c, offset.size, channels):
            offset[i] = total[0, c] / count if learned else 0.0
            slope[i] = total[1, c] * inverse[c] * inverse[c] / count if learned else 0.0
        total[1, c] *= inverse[c]
    return total

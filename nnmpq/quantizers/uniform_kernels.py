"""Elementwise loops of the uniform quantizer: memory-bound, on all threads, equal for any number of them.

Each block of elements is one task and has sums of its own, so that no sum depends on which thread took the block.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from nnmpq.quantizers.rounding import round_half_away

BLOCK = 16384


@njit(parallel=True, error_model="numpy", cache=True)
def forward(x, step, xmax, signed, inner, y):  # type: ignore[no-untyped-def]
    """Y = step * round(clip(x, lo, xmax) / step), half away from zero; parameter (i // inner) % C at element i."""
    blocks = (x.size + BLOCK - 1) // BLOCK
    channels = step.size
    for block in prange(blocks):
        first = block * BLOCK
        xs = x[first : first + BLOCK]
        ys = y[first : first + BLOCK]
        if channels == 1:
            d, high = step[0], xmax[0]
            inverse = np.float32(1) / d
            low = -high if signed else np.float32(0)
            for i in range(xs.size):
                whole = round_half_away(min(max(xs[i], low), high) * inverse)
                # A NaN must stay one, or a diverged run would go on unseen; infinities saturate.
                ys[i] = whole * d if xs[i] == xs[i] else xs[i]
        else:
            for i in range(xs.size):
                c = ((first + i) // inner) % channels
                high = xmax[c]
                low = -high if signed else np.float32(0)
                whole = round_half_away(min(max(xs[i], low), high) * (np.float32(1) / step[c]))
                ys[i] = whole * step[c] if xs[i] == xs[i] else xs[i]


@njit(parallel=True, error_model="numpy", cache=True, fastmath={"reassoc", "nsz"})
def backward(x, y, g, xmax, signed, gx, sums):  # type: ignore[no-untyped-def]
    """Gradient of x, and a block's sums of g * (y - clip(x)) and of g * (1[x >= xmax] - 1[x <= -xmax])."""
    blocks = (x.size + BLOCK - 1) // BLOCK
    zero = np.float32(0)
    for block in prange(blocks):
        first = block * BLOCK
        xs, ys, gs = x[first : first + BLOCK], y[first : first + BLOCK], g[first : first + BLOCK]
        out = gx[first : first + BLOCK]
        high = xmax[0]
        low = -high if signed else zero
        residual = zero
        range_sum = zero
        for i in range(xs.size):
            up = gs[i] if xs[i] >= high else zero
            down = gs[i] if xs[i] <= low else zero
            out[i] = gs[i] - up - down
            residual += gs[i] * (ys[i] - min(max(xs[i], low), high))
            range_sum += up - down if signed else up
        sums[block, 0] = residual
        sums[block, 1] = range_sum


@njit(error_model="numpy", cache=True)
def backward_channels(x, y, g, xmax, signed, inner, gx, residual, range_sum):  # type: ignore[no-untyped-def]
    """The same with parameters a channel; for weights, which are small."""
    channels = xmax.size
    for i in range(x.size):
        c = (i // inner) % channels
        high = xmax[c]
        low = -high if signed else np.float32(0)
        gx[i] = g[i] if low < x[i] < high else np.float32(0)
        residual[c] += np.float64(g[i]) * (y[i] - min(max(x[i], low), high))
        if x[i] >= high:
            range_sum[c] += g[i]
        elif signed and x[i] <= low:
            range_sum[c] -= g[i]

"""Elementwise loops of a mixture of candidate widths: the tensor is read once for all of them.

Each block of elements is one task that goes through the candidates while the block is in the nearest cache, and has
sums of its own, so that no sum depends on the number of threads.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from nnmpq.quantizers.rounding import round_half_away

BLOCK = 4096


@njit(parallel=True, error_model="numpy", cache=True)
def forward(x, p, steps, low, high, midrise, y):  # type: ignore[no-untyped-def]
    """Y = sum of p_k * step_k * level_k(x)."""
    half = np.float32(0.5)
    for block in prange((x.size + BLOCK - 1) // BLOCK):
        first = block * BLOCK
        xs = x[first : first + BLOCK]
        ys = y[first : first + BLOCK]
        for i in range(xs.size):
            # A NaN must stay one, or a diverged run would go on unseen; infinities saturate.
            ys[i] = np.float32(0) if xs[i] == xs[i] else xs[i]
        for k in range(p.size):
            d, share = steps[k], p[k]
            inverse = np.float32(1) / d
            bottom, top = low[k], high[k]
            if midrise:
                for i in range(xs.size):
                    ys[i] += share * ((min(max(np.floor(xs[i] * inverse), bottom), top) + half) * d)
            else:
                for i in range(xs.size):
                    ys[i] += share * (round_half_away(min(max(xs[i], bottom * d), top * d) * inverse) * d)


@njit(parallel=True, error_model="numpy", cache=True, fastmath={"reassoc", "nsz"})
def backward(x, g, p, steps, low, high, midrise, straight, gx, mixing, residual, outside):  # type: ignore[no-untyped-def]
    """Gradient of x, and each block's sums of g * Q_k, g * (Q_k - clip(x)) / step_k and g * level_k outside.

    A mid-rise grid lets the gradient through everywhere, and asks for no more than the first sums; a straight one lets
    it through too.
    """
    zero, half, infinity = np.float32(0), np.float32(0.5), np.float32(np.inf)
    for block in prange((x.size + BLOCK - 1) // BLOCK):
        first = block * BLOCK
        xs, gs, out = x[first : first + BLOCK], g[first : first + BLOCK], gx[first : first + BLOCK]
        out[:] = zero
        for k in range(p.size):
            d, share = steps[k], p[k]
            inverse = np.float32(1) / d
            bottom, top = low[k], high[k]
            mixed = rest = beyond = zero
            if midrise:
                for i in range(xs.size):
                    mixed += gs[i] * (min(max(np.floor(xs[i] * inverse), bottom), top) + half)
                    out[i] += share * gs[i]
            else:
                floor, ceiling = bottom * d, top * d
                least, most = (-infinity, infinity) if straight else (floor, ceiling)
                for i in range(xs.size):
                    c = min(max(xs[i], floor), ceiling)
                    level = round_half_away(c * inverse)
                    inside = gs[i] if least < xs[i] < most else zero
                    mixed += gs[i] * level
                    rest += gs[i] * (level - c * inverse)
                    beyond += (gs[i] - inside) * level
                    out[i] += share * inside
            mixing[block, k] = mixed * d
            residual[block, k] = rest
            outside[block, k] = beyond

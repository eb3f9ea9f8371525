"""Elementwise loops of the power-of-two quantizer, on the bits of the numbers: exact, without logarithms."""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from nnmpq.quantizers.uniform_kernels import BLOCK

# Mantissas from this one up lie above sqrt(2), and round up to the next power of two.
ABOVE_SQRT2 = 0x3504F4
ROUND_UP = 0x00800000 - ABOVE_SQRT2
EXPONENT = 0x7F800000
MAGNITUDE = 0x7FFFFFFF


@njit(parallel=True, error_model="numpy", cache=True)
def forward(x, xbits, xmin, xmax, signed, with_zero, inner, y, ybits):  # type: ignore[no-untyped-def]
    """Y = sign(x) * clip(2^round(log2|x|), xmin, xmax), zero below xmin/sqrt(2) where the grid has a zero.

    `xbits` and `ybits` are x and y seen as int32. An unsigned grid clips x at zero first.
    """
    blocks = (x.size + BLOCK - 1) // BLOCK
    channels = xmin.size
    zero = np.float32(0)
    for block in prange(blocks):
        first = block * BLOCK
        xs, ys = x[first : first + BLOCK], y[first : first + BLOCK]
        bits, rounded = xbits[first : first + BLOCK], ybits[first : first + BLOCK]
        for i in range(xs.size):
            rounded[i] = ((bits[i] & np.int32(MAGNITUDE)) + np.int32(ROUND_UP)) & np.int32(EXPONENT)
        if channels == 1:
            low, high = xmin[0], xmax[0]
            for i in range(xs.size):
                power = ys[i] if signed or xs[i] > zero else zero
                magnitude = zero if with_zero and power < low else min(max(power, low), high)
                value = -magnitude if signed and xs[i] < zero else magnitude
                ys[i] = value if xs[i] == xs[i] else xs[i]
        else:
            for i in range(xs.size):
                c = ((first + i) // inner) % channels
                power = ys[i] if signed or xs[i] > zero else zero
                magnitude = zero if with_zero and power < xmin[c] else min(max(power, xmin[c]), xmax[c])
                value = -magnitude if signed and xs[i] < zero else magnitude
                ys[i] = value if xs[i] == xs[i] else xs[i]


@njit(parallel=True, error_model="numpy", cache=True, fastmath={"reassoc", "nsz"})
def backward(x, y, g, xmin, xmax, signed, with_zero, gx, sums):  # type: ignore[no-untyped-def]
    """Gradient of x: g * y / x between xmin and xmax; a block's sums of g * sign(x) below xmin, and above xmax."""
    blocks = (x.size + BLOCK - 1) // BLOCK
    zero = np.float32(0)
    low, high = xmin[0], xmax[0]
    for block in prange(blocks):
        first = block * BLOCK
        xs, ys, gs = x[first : first + BLOCK], y[first : first + BLOCK], g[first : first + BLOCK]
        out = gx[first : first + BLOCK]
        low_sum = zero
        high_sum = zero
        for i in range(xs.size):
            a = abs(xs[i]) if signed else max(xs[i], zero)
            inside = low <= a < high
            out[i] = gs[i] * ys[i] / xs[i] if inside else zero
            slope = -gs[i] if signed and xs[i] < zero else gs[i]
            low_sum += slope if a < low and (not with_zero or ys[i] != zero) else zero
            high_sum += slope if a >= high else zero
        sums[block, 0] = low_sum
        sums[block, 1] = high_sum


@njit(error_model="numpy", cache=True)
def backward_channels(x, y, g, xmin, xmax, signed, with_zero, inner, gx, low_sum, high_sum):  # type: ignore[no-untyped-def]
    """The same with parameters a channel; for weights, which are small."""
    zero = np.float32(0)
    for i in range(x.size):
        c = (i // inner) % xmin.size
        a = abs(x[i]) if signed else max(x[i], zero)
        gx[i] = g[i] * y[i] / x[i] if xmin[c] <= a < xmax[c] else zero
        slope = -g[i] if signed and x[i] < zero else g[i]
        if a >= xmax[c]:
            high_sum[c] += slope
        elif a < xmin[c] and (not with_zero or y[i] != zero):
            low_sum[c] += slope

"""Batch normalization with what follows it, a sum, a clip and a rounding, in two passes over memory each way.

Tensors are (rows, width): width is a whole number of times the channels, so that short channel axes fill vector
registers.
Each block of rows is one task with sums of its own; no sum depends on which thread took the block.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from nnmpq.quantizers.rounding import round_half_away

ELEMENTS = 32768


@njit(inline="always", error_model="numpy")
def rows_of(rows, width):  # type: ignore[no-untyped-def]
    """Rows of a block."""
    return max(1, ELEMENTS // width)


@njit(parallel=True, error_model="numpy", cache=True, fastmath={"reassoc", "nsz", "contract"})
def moments(z, shift, sums):  # type: ignore[no-untyped-def]
    """A block's sums of z - shift and of its square; the shift keeps the variance from cancelling."""
    rows, width = z.shape
    step = rows_of(rows, width)
    for block in prange(sums.shape[0]):
        first, second = sums[block, 0], sums[block, 1]
        first[:] = np.float32(0)
        second[:] = np.float32(0)
        for r in range(block * step, min(rows, (block + 1) * step)):
            line = z[r]
            for c in range(width):
                d = line[c] - shift[c]
                first[c] += d
                second[c] += d * d


@njit(parallel=True, error_model="numpy", cache=True, fastmath={"contract"})
def forward(z, s, joins, mean, scale, beta, low, high, y):  # type: ignore[no-untyped-def]
    """Y = clip((z - mean) * scale + beta + s)."""
    rows, width = z.shape
    lines = rows_of(rows, width)
    for block in prange((rows + lines - 1) // lines):
        for r in range(block * lines, min(rows, (block + 1) * lines)):
            zs, ss, ys = z[r], s[r], y[r]
            if joins:
                for c in range(width):
                    u = (zs[c] - mean[c]) * scale[c] + beta[c] + ss[c]
                    u = low if u < low else u
                    ys[c] = high if u > high else u
            else:
                for c in range(width):
                    u = (zs[c] - mean[c]) * scale[c] + beta[c]
                    u = low if u < low else u
                    ys[c] = high if u > high else u


# No fused multiply-add: what is rounded must be the float32 that every other form of the quantizer rounds.
@njit(parallel=True, error_model="numpy", cache=True)
def forward_rounding(z, s, joins, mean, scale, beta, low, high, step, y):  # type: ignore[no-untyped-def]
    """Y = step * round(clip((z - mean) * scale + beta + s) / step)."""
    rows, width = z.shape
    lines = rows_of(rows, width)
    inverse = np.float32(1) / step
    for block in prange((rows + lines - 1) // lines):
        for r in range(block * lines, min(rows, (block + 1) * lines)):
            zs, ss, ys = z[r], s[r], y[r]
            for c in range(width):
                ys[c] = (zs[c] - mean[c]) * scale[c] + beta[c]
            if joins:
                for c in range(width):
                    ys[c] += ss[c]
            for c in range(width):
                u = ys[c]
                whole = round_half_away(min(max(u, low), high) * inverse)
                ys[c] = whole * step if u == u else u


@njit(inline="always", error_model="numpy")
def inside(u, g, low, high):  # type: ignore[no-untyped-def]
    """G where u lies inside the range, else 0."""
    return np.float32(0) if (u >= high or u <= low) else g


@njit(inline="always", error_model="numpy")
def rounding_error(u, low, high, step, inverse):  # type: ignore[no-untyped-def]
    """What rounding the clipped u adds to it."""
    clipped = min(max(u, low), high)
    return round_half_away(clipped * inverse) * step - clipped


@njit(inline="always", error_model="numpy")
def beyond(u, g, low, high, signed):  # type: ignore[no-untyped-def]
    """G above the range, -g below it where the range has two ends."""
    zero = np.float32(0)
    below = g if (signed and u <= low) else zero
    return (g if u >= high else zero) - below


@njit(parallel=True, error_model="numpy", cache=True, fastmath={"reassoc", "nsz", "contract"})
def gradient_sums(  # type: ignore[no-untyped-def]
    z, s, joins, g, mean, scale, beta, low, high, step, signed, gs, keep, sums, ranges
):
    """A block's sums over rows of the clipped gradient m, and of m * (z - mean); of g * (y - clip(u)) and of g outside.

    joins: 0 for no branch, 1 where s is the joined branch, 2 where s is the output, which tells what was clipped.
    keep: 0 to drop m, 1 to write it to gs, 2 to add it to gs.
    """
    rows, width = z.shape
    lines = rows_of(rows, width)
    rounds = step > np.float32(0)
    inverse = np.float32(1) / step if rounds else np.float32(0)
    for block in prange(sums.shape[0]):
        plain, centred = sums[block, 0], sums[block, 1]
        plain[:] = np.float32(0)
        centred[:] = np.float32(0)
        residual = np.float32(0)
        outside = np.float32(0)
        u = np.empty(width, np.float32)
        for r in range(block * lines, min(rows, (block + 1) * lines)):
            zs, ss, gr = z[r], s[r], g[r]
            if joins == 1:
                for c in range(width):
                    u[c] = (zs[c] - mean[c]) * scale[c] + beta[c] + ss[c]
            # One loop for each sort of row: what stays in registers is not stored and read again.
            if joins == 0 and rounds:
                for c in range(width):
                    d = zs[c] - mean[c]
                    v = d * scale[c] + beta[c]
                    m = inside(v, gr[c], low, high)
                    plain[c] += m
                    centred[c] += m * d
                    residual += gr[c] * rounding_error(v, low, high, step, inverse)
                    outside += beyond(v, gr[c], low, high, signed)
            elif joins == 0:
                for c in range(width):
                    d = zs[c] - mean[c]
                    m = inside(d * scale[c] + beta[c], gr[c], low, high)
                    plain[c] += m
                    centred[c] += m * d
            else:
                us = u if joins == 1 else ss
                for c in range(width):
                    m = inside(us[c], gr[c], low, high)
                    plain[c] += m
                    centred[c] += m * (zs[c] - mean[c])
                if rounds:
                    for c in range(width):
                        residual += gr[c] * rounding_error(us[c], low, high, step, inverse)
                        outside += beyond(us[c], gr[c], low, high, signed)
            if keep:
                us = u if joins == 1 else ss if joins == 2 else gr
                out = gs[r]
                # Without a clip every gradient goes on.
                bottom, top = (low, high) if joins else (np.float32(-np.inf), np.float32(np.inf))
                if keep == 1:
                    for c in range(width):
                        out[c] = inside(us[c], gr[c], bottom, top)
                else:
                    for c in range(width):
                        out[c] += inside(us[c], gr[c], bottom, top)
        ranges[block, 0] = residual
        ranges[block, 1] = outside


@njit(parallel=True, error_model="numpy", cache=True, fastmath={"contract"})
def gradient(  # type: ignore[no-untyped-def]
    z, s, joins, g, mean, scale, beta, low, high, offset, slope, gz, adds
):
    """Gz = scale * (m - offset - slope * (z - mean)), m the clipped gradient; `joins` as of `gradient_sums`."""
    rows, width = z.shape
    lines = rows_of(rows, width)
    zero = np.float32(0)
    masks = low > -np.inf or high < np.inf
    for block in prange((rows + lines - 1) // lines):
        for r in range(block * lines, min(rows, (block + 1) * lines)):
            zs, ss, gr, out = z[r], s[r], g[r], gz[r]
            if adds:
                for c in range(width):
                    u = (zs[c] - mean[c]) * scale[c] + beta[c]
                    u = ss[c] if joins == 2 else u + ss[c] if joins == 1 else u
                    m = zero if (u >= high or u <= low) else gr[c]
                    out[c] += scale[c] * (m - offset[c] - slope[c] * (zs[c] - mean[c]))
            elif not masks:
                for c in range(width):
                    out[c] = scale[c] * (gr[c] - offset[c] - slope[c] * (zs[c] - mean[c]))
            elif joins == 2:
                for c in range(width):
                    u = ss[c]
                    m = zero if (u >= high or u <= low) else gr[c]
                    out[c] = scale[c] * (m - offset[c] - slope[c] * (zs[c] - mean[c]))
            elif joins == 1:
                for c in range(width):
                    d = zs[c] - mean[c]
                    u = d * scale[c] + beta[c] + ss[c]
                    m = zero if (u >= high or u <= low) else gr[c]
                    out[c] = scale[c] * (m - offset[c] - slope[c] * d)
            else:
                for c in range(width):
                    d = zs[c] - mean[c]
                    u = d * scale[c] + beta[c]
                    m = zero if (u >= high or u <= low) else gr[c]
                    out[c] = scale[c] * (m - offset[c] - slope[c] * d)

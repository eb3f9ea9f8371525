"""Elementwise loops on flat float32 arrays, on all threads; each block of elements is one task."""

from __future__ import annotations

import numpy as np
from numba import njit, prange

BLOCK = 16384


@njit(parallel=True, error_model="numpy", cache=True)
def accumulate(part, total):  # type: ignore[no-untyped-def]
    """Total += part."""
    for block in prange((part.size + BLOCK - 1) // BLOCK):
        first = block * BLOCK
        a, t = part[first : first + BLOCK], total[first : first + BLOCK]
        for i in range(a.size):
            t[i] += a[i]


@njit(parallel=True, error_model="numpy", cache=True)
def add(a, b, y):  # type: ignore[no-untyped-def]
    """Y = a + b."""
    for block in prange((a.size + BLOCK - 1) // BLOCK):
        first = block * BLOCK
        xs, zs, ys = a[first : first + BLOCK], b[first : first + BLOCK], y[first : first + BLOCK]
        for i in range(xs.size):
            ys[i] = xs[i] + zs[i]


@njit(parallel=True, error_model="numpy", cache=True)
def copy(x, y):  # type: ignore[no-untyped-def]
    """Y = x."""
    for block in prange((x.size + BLOCK - 1) // BLOCK):
        first = block * BLOCK
        xs, ys = x[first : first + BLOCK], y[first : first + BLOCK]
        for i in range(xs.size):
            ys[i] = xs[i]


@njit(parallel=True, error_model="numpy", cache=True)
def clip(x, low, high, y):  # type: ignore[no-untyped-def]
    """Y = min(max(x, low), high); what is not a number stays so."""
    for block in prange((x.size + BLOCK - 1) // BLOCK):
        first = block * BLOCK
        xs, ys = x[first : first + BLOCK], y[first : first + BLOCK]
        for i in range(xs.size):
            v = xs[i]
            v = low if v < low else v
            ys[i] = high if v > high else v


@njit(parallel=True, error_model="numpy", cache=True)
def clip_gradient(y, g, low, high, gx, adds):  # type: ignore[no-untyped-def]
    """Gradient of x: g where low < y < high, from the output alone."""
    zero = np.float32(0)
    for block in prange((y.size + BLOCK - 1) // BLOCK):
        first = block * BLOCK
        ys, gs, out = y[first : first + BLOCK], g[first : first + BLOCK], gx[first : first + BLOCK]
        if adds:
            for i in range(ys.size):
                out[i] += gs[i] if low < ys[i] < high else zero
        else:
            for i in range(ys.size):
                out[i] = gs[i] if low < ys[i] < high else zero


@njit(parallel=True, error_model="numpy", cache=True)
def fixed_point(x, step, low, high, y):  # type: ignore[no-untyped-def]
    """Y = step * round(clip(x, low, high) / step), half away from zero, as nnabla's FixedPointQuantize."""
    half = np.float32(0.5)
    for block in prange((x.size + BLOCK - 1) // BLOCK):
        first = block * BLOCK
        xs, ys = x[first : first + BLOCK], y[first : first + BLOCK]
        for i in range(xs.size):
            v = xs[i]
            size = np.floor(abs(v) / step + half) * step
            r = -size if v < np.float32(0) else size
            r = low if v < low else r
            ys[i] = high if v > high else r


@njit(parallel=True, error_model="numpy", cache=True)
def gradient_inside(x, g, low, high, gx, adds):  # type: ignore[no-untyped-def]
    """Gradient of x: g where low <= x <= high."""
    zero = np.float32(0)
    for block in prange((x.size + BLOCK - 1) // BLOCK):
        first = block * BLOCK
        xs, gs, out = x[first : first + BLOCK], g[first : first + BLOCK], gx[first : first + BLOCK]
        if adds:
            for i in range(xs.size):
                out[i] += gs[i] if low <= xs[i] <= high else zero
        else:
            for i in range(xs.size):
                out[i] = gs[i] if low <= xs[i] <= high else zero


@njit(parallel=True, error_model="numpy", cache=True)
def put_columns(x, y, first):  # type: ignore[no-untyped-def]
    """Y[:, first : first + width] = x."""
    rows, width = x.shape
    lines = max(1, BLOCK // y.shape[1])
    for block in prange((rows + lines - 1) // lines):
        for r in range(block * lines, min(rows, (block + 1) * lines)):
            for c in range(width):
                y[r, first + c] = x[r, c]


@njit(parallel=True, error_model="numpy", cache=True)
def take_columns(y, first, x, adds):  # type: ignore[no-untyped-def]
    """X = y[:, first : first + width], or x += that."""
    rows, width = x.shape
    lines = max(1, BLOCK // y.shape[1])
    for block in prange((rows + lines - 1) // lines):
        for r in range(block * lines, min(rows, (block + 1) * lines)):
            if adds:
                for c in range(width):
                    x[r, c] += y[r, first + c]
            else:
                for c in range(width):
                    x[r, c] = y[r, first + c]

"""Numpy arrays for primitives: aligned channel-last copies, addresses, and plain references in float64."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from nnmpq.onednn.convolution import ConvolutionSpec


def normal(shape: tuple[int, ...], seed: int) -> np.ndarray:
    return np.random.RandomState(seed).randn(*shape).astype(np.float32)


def last(x: np.ndarray) -> np.ndarray:
    """(N, C, H, W) to contiguous (N, H, W, C)."""
    return np.ascontiguousarray(np.moveaxis(x, 1, -1))


def first(x: np.ndarray) -> np.ndarray:
    return np.moveaxis(x, -1, 1)


def address(x: np.ndarray) -> int:
    assert x.flags.c_contiguous and x.dtype == np.float32
    return x.ctypes.data


def worst(found: np.ndarray, expected: np.ndarray) -> float:
    """Largest error relative to the largest number."""
    assert found.shape == expected.shape
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def taps(spec: ConvolutionSpec) -> Any:
    """Each kernel element with the input pixels that it meets, as slices of the padded input."""
    for i, j in itertools.product(*(range(k) for k in spec.kernel)):
        starts = (i * spec.dilation[0], j * spec.dilation[1])
        rows, columns = (
            slice(start, start + (out - 1) * stride + 1, stride)
            for start, out, stride in zip(starts, spec.output_size, spec.stride)
        )
        yield i, j, rows, columns


def reference(spec: ConvolutionSpec, x: np.ndarray, w: np.ndarray, g: np.ndarray) -> tuple[np.ndarray, ...]:
    """Output, gradient of the input and gradient of the weight, (O, I/group, h, w), by their sums."""
    (up, left), group = spec.pad, spec.group
    x, w, g = (a.astype(np.float64) for a in (x, w, g))
    padded = np.pad(x, ((0, 0), (0, 0), (up, up + 99), (left, left + 99)))
    y, gx, gw = np.zeros(g.shape), np.zeros(padded.shape), np.zeros(w.shape)
    outs, ins = spec.outputs // group, spec.channels // group
    for k in range(group):
        o, c = slice(k * outs, (k + 1) * outs), slice(k * ins, (k + 1) * ins)
        for i, j, rows, columns in taps(spec):
            seen = padded[:, c, rows, columns]
            y[:, o] += np.einsum("nchw,oc->nohw", seen, w[o, :, i, j])
            gx[:, c, rows, columns] += np.einsum("nohw,oc->nchw", g[:, o], w[o, :, i, j])
            gw[o, :, i, j] += np.einsum("nohw,nchw->oc", g[:, o], seen)
    return y, gx[:, :, up : up + spec.size[0], left : left + spec.size[1]], gw

"""The grid that does a tensor least harm at a width: its step is searched, not learned."""

from __future__ import annotations

from typing import Any

import numpy as np

from nnmpq.quantizers import make
from nnmpq.quantizers.grid import UNIFORM, Grid

# Numbers of a tensor that the step is chosen by; the error is then taken over all of them.
SAMPLE = 65536
MOST_HALVINGS = 40
# So many steps in a row that are no better: there is no better one below.
ENOUGH = 3


def uniform_grid(bits: int, step: Any, *, signed: bool, channel_axis: int | None = None) -> Grid:
    """Return the uniform grid of that width and step around zero, or from zero on.

    Example:
        >>> uniform_grid(3, np.float32(0.5), signed=True).quantize(np.array([-9.0, 0.3])).tolist()
        [-1.5, 0.5]
    """
    high = np.int32(2 ** (bits - int(signed)) - 1)
    low = -high if signed else np.int32(0)
    return Grid(UNIFORM, bits, signed, step=step, low=low, high=high, channel_axis=channel_axis)


def best_grid(x: np.ndarray, bits: int, *, signed: bool, channel_axis: int | None = None) -> Grid:
    """Return the grid with a power-of-two step of least squared error.

    step = argmin over 2^k of ||Q(x) - x||^2, from the step that reaches max|x| down. At 1 bit a signed tensor gets
    sign(x) * mean|x|.

    Args:
        x: the tensor, or a sample of it; from zero on where it is not signed.
        bits: width; of a signed tensor 1 or more, the grid is around zero from 2 on.
        signed: whether the grid reaches below zero.
        channel_axis: one step an entry of this axis; None gives one to the whole tensor.

    Example:
        >>> float(best_grid(np.array([0.26, -0.74, 1.1]), 3, signed=True).step)
        0.25
    """
    if bits == 1 and signed:
        return make("sign_mean").grid({"bits": np.float32(1)}, x)
    rows = (
        x.reshape(1, -1) if channel_axis is None else np.moveaxis(x, channel_axis, 0).reshape(x.shape[channel_axis], -1)
    )
    rows = _sampled(np.asarray(rows, np.float32))
    largest = np.max(np.abs(rows), axis=1)
    levels = 2 ** (bits - int(signed)) - 1
    top = np.ceil(np.log2(np.where(largest > 0, largest, 1.0) / levels))
    steps, errors, worse = [], [], 0
    # Downwards the error falls, then rises as more and more of the tensor is cut off.
    for down in range(MOST_HALVINGS):
        step = (2.0 ** (top - down)).astype(np.float32)
        made = uniform_grid(bits, step, signed=signed, channel_axis=0).quantize(rows)
        steps.append(step)
        errors.append(np.sum(np.square(made - rows, dtype=np.float64), axis=1))
        worse = worse + 1 if down and np.all(errors[-1] >= np.min(errors[:-1], axis=0)) else 0
        if worse == ENOUGH:
            break
    chosen = np.array(steps)[np.argmin(errors, axis=0), np.arange(len(rows))]
    step = chosen[0] if channel_axis is None else chosen
    return uniform_grid(bits, step, signed=signed, channel_axis=channel_axis)


def _sampled(rows: np.ndarray) -> np.ndarray:
    """At most `SAMPLE` numbers of all rows together, always the same places."""
    each = max(SAMPLE // len(rows), 64)
    if rows.shape[1] <= each:
        return rows
    return rows[:, np.sort(np.random.default_rng(0).choice(rows.shape[1], each, replace=False))]


def noise_to_signal(x: np.ndarray, quantized: np.ndarray) -> float:
    """Return ||Q(x) - x||^2 / ||x||^2, 0 for x = 0: 10^(-SNR / 10) with the SNR in dB.

    Example:
        >>> round(-10 * float(np.log10(noise_to_signal(np.array([3.0, 4.0]), np.array([3.0, 4.5])))), 2)
        20.0
    """
    signal = float(np.sum(np.square(x, dtype=np.float64)))
    noise = float(np.sum(np.square(np.asarray(quantized, np.float64) - x)))
    return noise / signal if signal else 0.0

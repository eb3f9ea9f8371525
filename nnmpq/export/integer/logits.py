"""The last layer's requantiser: sums of different channels on one fine grid, so that the largest is the answer."""

from __future__ import annotations

import numpy as np

from nnmpq.export.integer.chain import Chain
from nnmpq.export.integer.program import ExportError, Requantiser
from nnmpq.export.integer.requantise import LARGEST_SUM, MULTIPLIER_BITS

# Logits take this many bits beside their sign: as many as float32 has.
LOGIT_BITS = 24
LEVELS = 2 ** (LOGIT_BITS + 2)


def logits_requantiser(chain: Chain, unit: np.ndarray, low: np.ndarray, high: np.ndarray) -> tuple[Requantiser, float]:
    """Return the requantiser and the step of the logits, a power of two.

    Args:
        chain: what follows the sum.
        unit: what one in the sum stands for, float64 () or (C,).
        low: smallest sum of each channel, int64 (C,).
        high: largest sum.

    Raises:
        ExportError: the sums are too large, or the numbers not finite.
    """
    slope, offset = chain.line(unit)
    ends = np.stack([slope * low + offset, slope * high + offset])
    if not np.all(np.isfinite(ends)) or max(np.max(np.abs(low)), np.max(np.abs(high))) > LARGEST_SUM:
        raise ExportError(f"{chain.where}: sums of the last layer are too large")
    step = 2.0 ** (int(np.frexp(max(np.max(np.abs(ends)), 2.0**-100))[1]) - LOGIT_BITS)
    gain = np.abs(slope) / step
    # multiplier < 2^31 and (LEVELS << shift) < 2^61
    exponent = np.frexp(np.maximum(gain, 2.0**-100))[1]
    if np.any(exponent > MULTIPLIER_BITS):
        raise ExportError(f"{chain.where}: one sum is worth more than every logit")
    shift = np.clip(MULTIPLIER_BITS - 1 - exponent, 0, 61 - LEVELS.bit_length()).astype(np.int64)
    multiplier = np.rint(slope / step * 2.0**shift).astype(np.int64)
    half = np.where(shift > 0, np.int64(1) << np.maximum(shift - 1, 0), 0)
    bias = np.rint(offset / step * 2.0**shift).astype(np.int64) + half + (np.int64(LEVELS // 2) << shift)
    made = Requantiser(multiplier.astype(np.int32), bias, shift.astype(np.uint8), LEVELS, -LEVELS // 2)
    return made, step

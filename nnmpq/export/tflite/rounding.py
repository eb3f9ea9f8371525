"""The 31-bit multiplier of TensorFlow Lite's kernels and of CMSIS-NN, in both ways in which they are built.

Both compute round(sum * multiplier * 2^(shift - 31)). Built with two roundings, the product is first rounded to its
upper 32 bits, ties up, and then shifted, ties away from zero; built with one (TFLITE_SINGLE_ROUNDING,
CMSIS_NN_USE_SINGLE_ROUNDING), ties go up.
"""

from __future__ import annotations

import numpy as np

ROUNDINGS = ("double", "single")
SMALLEST_SHIFT = -31
LARGEST_SHIFT = 30


def multiplier_of(real: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return multiplier and shift with real = multiplier * 2^(shift - 31), multiplier from 2^30 to 2^31 - 1.

    Args:
        real: float64, not negative; what is below 2^-32 becomes 0.

    Example:
        >>> multiplier, shift = multiplier_of(np.array([0.75, 0.0, 3.0]))
        >>> multiplier.tolist(), shift.tolist()
        ([1610612736, 0, 1610612736], [0, 0, 2])
    """
    mantissa, exponent = np.frexp(np.asarray(real, np.float64))
    fixed = np.floor(mantissa * 2.0**31 + 0.5).astype(np.int64)
    over = fixed == 2**31
    fixed, exponent = np.where(over, fixed // 2, fixed), exponent.astype(np.int64) + over
    lost = exponent < SMALLEST_SHIFT
    return np.where(lost, 0, fixed), np.where(lost, 0, exponent)


def _upper_half(product: np.ndarray) -> np.ndarray:
    # Ties up. Kernels that add 2^30 to positive products, 1 - 2^30 to others, and divide towards zero do the same.
    return (product + 2**30) >> 31


def _divided(numbers: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Numbers / 2^shift, ties away from zero."""
    half = np.where(shift > 0, np.int64(1) << np.maximum(shift - 1, 0), 0)
    return np.sign(numbers) * ((np.abs(numbers) + half) >> shift)


def multiplied(
    sums: np.ndarray, multiplier: np.ndarray | int, shift: np.ndarray | int, rounding: str = "double"
) -> np.ndarray:
    """Return sums times a real number as the kernels compute it.

    Args:
        sums: int64, in 32 bits also when shifted left by `shift` where that is positive.
        multiplier: from `multiplier_of`, to broadcast with the sums.
        shift: likewise.
        rounding: one of `ROUNDINGS`.

    Raises:
        OverflowError: 32 bits do not hold a sum.

    Example:
        >>> half = multiplier_of(np.array(0.5))
        >>> [multiplied(np.array([-3, -1, 1, 3]), *half, rounding).tolist() for rounding in ROUNDINGS]
        [[-1, 0, 1, 2], [-1, 0, 1, 2]]
        >>> quarter = multiplier_of(np.array(0.25))
        >>> [multiplied(np.array([-6, -2, 2, 6]), *quarter, rounding).tolist() for rounding in ROUNDINGS]
        [[-2, -1, 1, 2], [-1, 0, 1, 2]]

    Source:
        Jacob et al., "Quantization and training of neural networks for efficient integer-arithmetic-only inference",
        CVPR 2018, section 2.2; the two roundings as TensorFlow Lite and CMSIS-NN document them.
    """
    shift = np.asarray(shift, np.int64)
    left = np.maximum(shift, 0)
    if np.any(np.abs(sums) > (np.int64(2**31 - 1) >> left)):
        raise OverflowError("a sum leaves 32 bits")
    if rounding == "single":
        total = 31 - shift
        return (sums * multiplier + (np.int64(1) << (total - 1))) >> total
    return _divided(_upper_half((sums << left) * multiplier), np.maximum(-shift, 0))


def mean_of(sums: np.ndarray, elements: int, scale: float, rounding: str = "double") -> np.ndarray:
    """Return what MEAN makes of sums over so many elements: 1 / elements goes into the multiplier, cut off.

    Args:
        sums: int64.
        elements: of the map.
        scale: of the input over that of the output.
        rounding: one of `ROUNDINGS`.

    Example:
        >>> mean_of(np.array([10, 32, 95]), 64, 1.0).tolist()  # 95 / 64 = 1.48, rounded to 1.5 first
        [0, 1, 2]
    """
    multiplier, shift = (int(part) for part in multiplier_of(np.array(scale)))
    more = min(elements.bit_length() - 1, 31 + shift)
    return multiplied(sums, (multiplier << more) // elements, shift - more, rounding)

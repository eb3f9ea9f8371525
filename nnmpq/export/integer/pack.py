"""Numbers of a few bits each, packed into bytes without gaps, the first one in the lowest bits."""

from __future__ import annotations

import numpy as np


def packed_bytes(count: int, bits: int) -> int:
    """Return how many bytes so many numbers take.

    Example:
        >>> packed_bytes(9, 3)
        4
    """
    return (count * bits + 7) // 8


def pack(numbers: np.ndarray, bits: int) -> np.ndarray:
    """Pack whole numbers from 0 to 2^bits - 1, in C order.

    Args:
        numbers: any shape.
        bits: 1 to 8.

    Returns:
        uint8, shape (bytes,); number i starts at bit i * bits, counted from the lowest of the first byte.

    Raises:
        ValueError: a number needs more bits.

    Example:
        >>> pack(np.array([1, 2, 3]), 3).tolist()  # 0b011_010_001 = 209
        [209, 0]
    """
    flat = np.asarray(numbers).ravel()
    if flat.size and (flat.min() < 0 or flat.max() >= 2**bits):
        raise ValueError(f"numbers from {flat.min()} to {flat.max()} do not fit in {bits} bits")
    spread = (flat[:, None].astype(np.uint8) >> np.arange(bits, dtype=np.uint8)) & 1
    return np.packbits(spread.ravel(), bitorder="little")


def unpack(packed: np.ndarray, bits: int, count: int) -> np.ndarray:
    """Return the numbers of `pack`, uint8, shape (count,).

    Example:
        >>> unpack(pack(np.array([5, 0, 7]), 3), 3, 3).tolist()
        [5, 0, 7]
    """
    spread = np.unpackbits(packed, count=count * bits, bitorder="little").reshape(count, bits)
    return (spread << np.arange(bits, dtype=np.uint8)).sum(1, dtype=np.uint8)

"""What the learned quantizers share: limits of raw parameters, and values by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import nnabla as nn
import numpy as np

from nnmpq.quantizers.scalars import MARGIN

# Numbers of shape () or (C,): arrays, and numpy scalars that do as well.
Values = dict[str, Any]
Parameters = Mapping[str, nn.Variable]
Limits = tuple[float, float]


def clamp(value: Any, limits: Limits) -> np.ndarray:
    """Keep raw parameters a margin inside their limits; equal limits pin them.

    Example:
        >>> clamp(np.float32([0.0, 5.0]), (1.0, 2.0)).tolist()
        [1.0000100135803223, 1.9999899864196777]
    """
    low, high = limits
    if low == high:
        return np.full_like(np.asarray(value, np.float32), low)
    return np.clip(np.asarray(value, np.float32), np.float32(low + MARGIN), np.float32(high - MARGIN))


def in_order(values: Values, small: str, large: str, small_limits: Limits, large_limits: Limits) -> Values:
    """Return two raw parameters with the first below the second, then inside their limits.

    Source:
        The published code of Uhlich et al., "Mixed Precision DNNs": both follow from the old values, so crossed ones
        change places.
    """
    lower = np.minimum(values[small], values[large] - np.float32(MARGIN))
    upper = np.maximum(values[small] + np.float32(MARGIN), values[large])
    return {small: clamp(lower, small_limits), large: clamp(upper, large_limits)}


def bounded(gradients: Values, bound: Any) -> Values:
    """Return gradients no larger than a raw parameter, so that one update moves by the learning rate at most."""
    size = np.abs(bound)
    return {name: np.clip(gradient, -size, size) for name, gradient in gradients.items()}


def pinned(limits: Limits) -> bool:
    """Whether limits leave nothing to learn."""
    return limits[0] == limits[1]


def whole_bits(value: np.ndarray, limits: Limits) -> int:
    """The bits that a raw parameter means: clipped, rounded half away from zero."""
    return int(np.floor(float(np.clip(np.max(value), *limits)) + 0.5))


def as_variables(values: Mapping[str, np.ndarray]) -> dict[str, nn.Variable]:
    """Raw values as graph variables, to evaluate a quantizer's scalar graph on numbers."""
    return {name: nn.Variable.from_numpy_array(np.asarray(v, np.float32)) for name, v in values.items()}


def evaluate(*variables: nn.Variable) -> list[np.ndarray]:
    """Run a scalar graph and return its numbers."""
    for variable in variables:
        variable.forward()
    return [np.array(variable.d, np.float32) for variable in variables]

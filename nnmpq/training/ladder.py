"""The ways down from a quantizer's bits, one bit at a time, with the error that each rung makes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs
import numpy as np

from nnmpq.graph.schemes import Quantized

Values = Mapping[str, np.ndarray]


@attrs.frozen(eq=False)
class Rung:
    """A site's quantizer at one width.

    Args:
        bits: its width.
        values: raw parameters.
        error: ||Q(x) - x||^2 / ||x||^2 on the site's numbers; 0 where none were given.
    """

    bits: int
    values: Values
    error: float


def relative_error(quantizer: Any, values: Values, x: np.ndarray) -> float:
    """Return ||Q(x) - t||^2 / ||t||^2, t = x, or max(x, 0) for an unsigned quantizer: it is its site's ReLU.

    Args:
        quantizer: any registered one.
        values: raw parameters.
        x: the site's numbers, float32.

    Example:
        >>> from nnmpq.quantizers import make
        >>> quantizer = make("uniform_delta_xmax", signed=True)
        >>> values = {"step": np.float32(0.5), "xmax": np.float32(1)}
        >>> relative_error(quantizer, values, np.array([0.5, -2.0], np.float32)) == 1 / 4.25
        True
    """
    wanted = x if quantizer.signed else np.maximum(x, 0)
    difference = np.asarray(quantizer.grid(values, x).quantize(x), np.float64) - wanted
    size = float(np.sum(np.square(wanted, dtype=np.float64)))
    return float(np.sum(np.square(difference))) / size if size else 0.0


def ladder(quantized: Quantized, x: np.ndarray | None = None) -> list[Rung]:
    """Return the rungs from the present bits down; one rung only where nothing narrower is allowed.

    Of the ways to spend one bit less, each rung takes the one with the least error.

    Args:
        quantized: what stands at the site.
        x: the site's numbers; None counts no errors. Those that take their grid from the weights need them.
    """
    quantizer, values = quantized.quantizer, quantized.values()
    if quantizer is None:
        return [Rung(quantized.bit_number(), {}, 0.0)]

    def rung(found: Values) -> Rung:
        width = int(quantizer.grid(found, x).bits)
        return Rung(width, found, 0.0 if x is None else relative_error(quantizer, found, x))

    rungs = [rung(values)]
    while quantizer.learn:
        narrower = [rung(found) for found in quantizer.narrowed(rungs[-1].values)]
        if not narrower:
            break
        rungs.append(min(narrower, key=lambda r: r.error))
    return rungs

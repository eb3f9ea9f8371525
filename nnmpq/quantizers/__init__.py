"""The basic layer: quantizers, each a frozen class; `QUANTIZERS` names them all.

A quantizer maps real numbers to a grid. Its parameters live outside of it, as nnabla variables by name, so that one
object serves the training graph, the evaluation graph and plain numbers. A new one is a file with a class of the same
methods, and a line here; the conformance test takes it up by itself.
"""

from __future__ import annotations

import difflib
from typing import Any

from nnmpq.quantizers.fixed import Dorefa, Gaussian, HalfWaveGaussian, Pact, SignMean
from nnmpq.quantizers.grid import Grid
from nnmpq.quantizers.haq import Haq
from nnmpq.quantizers.pow2 import Pow2BXmax, Pow2BXmin, Pow2XminXmax
from nnmpq.quantizers.uniform import UniformBXmax, UniformDeltaB, UniformDeltaXmax

QUANTIZERS: dict[str, type] = {
    "uniform_b_xmax": UniformBXmax,
    "uniform_delta_xmax": UniformDeltaXmax,
    "uniform_delta_b": UniformDeltaB,
    "pow2_b_xmax": Pow2BXmax,
    "pow2_b_xmin": Pow2BXmin,
    "pow2_xmin_xmax": Pow2XminXmax,
    "gaussian": Gaussian,
    "half_wave_gaussian": HalfWaveGaussian,
    "dorefa": Dorefa,
    "haq": Haq,
    "pact": Pact,
    "sign_mean": SignMean,
}


def quantizer_class(name: str) -> type:
    """Return the class of a registered quantizer.

    Raises:
        ValueError: none has that name; the nearest is named.
    """
    if name not in QUANTIZERS:
        nearest = difflib.get_close_matches(name, QUANTIZERS, 1, 0)[0]
        raise ValueError(f"no quantizer {name!r}; the nearest is {nearest!r}, all are {', '.join(QUANTIZERS)}")
    return QUANTIZERS[name]


def make(name: str, **options: Any) -> Any:
    """Make a quantizer by name; options that its class has no field for are left out.

    Args:
        name: a key of `QUANTIZERS`.
        options: fields of its class.

    Raises:
        ValueError: no quantizer has that name.

    Example:
        >>> make("uniform_b_xmax", signed=True, with_zero=False).signed
        True
    """
    chosen = quantizer_class(name)
    known = {field.name for field in chosen.__attrs_attrs__}  # type: ignore[attr-defined]
    return chosen(**{key: value for key, value in options.items() if key in known})


def name_of(quantizer: Any) -> str:
    """Return the registered name of a quantizer."""
    return next(name for name, chosen in QUANTIZERS.items() if type(quantizer) is chosen)


__all__ = ["QUANTIZERS", "Grid", "make", "name_of", "quantizer_class"]

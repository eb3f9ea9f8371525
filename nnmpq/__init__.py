"""nnmpq: mixed-precision quantization of convolutional networks on nnabla."""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

# Public name -> module that defines it, loaded on first use: a light import stays light. `nnmpq.cost` is the
# module, and so the function of that name is not here.
PUBLIC = {
    "Budget": "nnmpq.budget",
    "Cost": "nnmpq.cost",
    "Fixed": "nnmpq.graph.schemes",
    "Float": "nnmpq.graph.schemes",
    "FromPolicy": "nnmpq.graph.schemes",
    "Network": "nnmpq.graph.network",
    "Parametric": "nnmpq.graph.schemes",
    "Policy": "nnmpq.policy",
    "QuantizedNetwork": "nnmpq.graph.quantize",
    "bake": "nnmpq.graph.bake",
    "quantize": "nnmpq.graph.quantize",
    "trace": "nnmpq.graph.trace",
}
__all__ = ["__version__", *sorted(PUBLIC)]


def __getattr__(name: str) -> Any:
    """Load a public name from its module."""
    if name not in PUBLIC:
        raise AttributeError(f"module 'nnmpq' has no attribute {name!r}")
    return getattr(importlib.import_module(PUBLIC[name]), name)


def __dir__() -> list[str]:
    """The public names."""
    return list(__all__)

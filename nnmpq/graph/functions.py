"""What the passes know of nnabla's functions, by their type names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Callable

import nnabla as nn

LAYER_KIND = {
    "Convolution": "convolution",
    "DepthwiseConvolution": "depthwise",
    "Deconvolution": "deconvolution",
    "DepthwiseDeconvolution": "deconvolution",
    "Affine": "affine",
}
UNSIGNED_NONLINEARITIES = {"Sigmoid", "HardSigmoid", "Softmax", "SoftPlus", "Abs", "Exp"}
NONLINEARITIES = UNSIGNED_NONLINEARITIES | {
    "LeakyReLU",
    "PReLU",
    "ELU",
    "SELU",
    "CELU",
    "CReLU",
    "GELU",
    "Tanh",
    "HardTanh",
    "Swish",
    "Mish",
    "Sinc",
    "Sign",
    "LogSigmoid",
    "SoftSign",
    "TanhShrink",
}
# Functions that join branches element by element, unless all operands but one are constants.
JOINS = {"Add2", "AddN", "Sub2", "Mul2", "MulN", "Div2", "Maximum2", "Minimum2"}
NEGATING_JOINS = {"Sub2"}
POOLS = {"AveragePooling", "GlobalAveragePooling", "Mean", "SumPooling", "Sum"}
# Functions whose outputs hold nothing but numbers of their inputs, and zeros.
MOVES = {
    "MaxPooling",
    "Max",
    "Reshape",
    "Transpose",
    "Identity",
    "Slice",
    "Split",
    "Flip",
    "Dropout",
    "Concatenate",
    "Stack",
    "Broadcast",
    "BroadcastTo",
    "Tile",
    "Unpooling",
    "DepthToSpace",
    "SpaceToDepth",
}
# Functions of an operand and a number whose result is only negative where one of the two is.
MONOTONE_SCALARS = {"MulScalar", "AddScalar", "MinimumScalar", "PowScalar"}


def functions_of(outputs: Sequence[nn.Variable]) -> list[Any]:
    """Return the functions that compute the outputs, in execution order, each once."""
    seen: set[Any] = set()
    ordered: list[Any] = []

    def add(function: Any) -> None:
        if function not in seen:
            seen.add(function)
            ordered.append(function)

    for output in outputs:
        output.visit(add)
    return ordered


def parameter_names() -> dict[Any, str]:
    """Return the names of the current scope's parameters by their data, which all their variables share."""
    return {v.data: name for name, v in nn.get_parameters(grad_only=False).items()}


def _picks(arguments: dict[str, Any]) -> bool:
    # A pooling window of one element averages nothing: it subsamples.
    return all(length == 1 for length in arguments["kernel"]) and not any(arguments["pad"])


def _pads_with_zero(arguments: dict[str, Any]) -> bool:
    return arguments["mode"] != "constant" or arguments["constant_value"] == 0


MOVES_IF: dict[str, Callable[[dict[str, Any]], bool]] = {
    "AveragePooling": _picks,
    "SumPooling": _picks,
    "Pad": _pads_with_zero,
    "Shift": lambda arguments: True,
    "Interpolate": lambda arguments: arguments["mode"] == "nearest",
}


def moves(function: Any) -> bool:
    """Return whether a function only moves, picks or repeats numbers, so that a grid survives it.

    Example:
        >>> import nnabla.functions as F
        >>> x = nn.Variable((1, 1, 4, 4))
        >>> moves(F.average_pooling(x, (1, 1), (2, 2)).parent), moves(F.average_pooling(x, (2, 2)).parent)
        (True, False)
    """
    name = function.info.type_name
    return name in MOVES or (name in MOVES_IF and MOVES_IF[name](function.info.args))


def channel_axis(function: Any) -> int:
    """Return the axis of the output channels in a layer's weight."""
    name, arguments = function.info.type_name, function.info.args
    if name == "Affine":
        return 1
    if name == "Deconvolution":
        return function.inputs[1].ndim - 1 if arguments.get("channel_last") else 1
    return 0


def multiplications(function: Any) -> int:
    """Return a layer's multiplications per image: every weight, once for each place that it is used at.

    Example:
        >>> import nnabla.parametric_functions as PF
        >>> multiplications(PF.convolution(nn.Variable((8, 3, 32, 32)), 16, (3, 3), pad=(1, 1)).parent)
        442368
    """
    x, weight, y = function.inputs[0], function.inputs[1], function.outputs[0]
    arguments = function.info.args
    base = arguments["base_axis"] % x.ndim
    kind = LAYER_KIND[function.info.type_name]
    if kind == "affine":
        places = x.shape[1:base]
    else:
        # Each input pixel of a deconvolution meets the whole kernel; of a convolution, each output pixel.
        shape = x.shape if kind == "deconvolution" else y.shape
        pixels = shape[base:-1] if arguments.get("channel_last") else shape[base + 1 :]
        places = (*shape[1:base], *pixels)
    count = 1
    for length in (*weight.shape, *places):
        count *= length
    return count

"""A frozen network in functions that nnabla-c-runtime has, or the reason why it cannot be one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Callable

import nnabla as nn
import nnabla.functions as F

from nnmpq.export.integer.program import ExportError
from nnmpq.graph.functions import functions_of
from nnmpq.graph.rewrite import rewrite

# What the runtime computes in float32 as nnabla does. Everything else stops it with an error, or, as C source whose
# return codes nobody reads, gives wrong numbers without one.
RUNS = frozenset(
    (
        "Abs",
        "Add2",
        "AddScalar",
        "Affine",
        "AveragePooling",
        "BatchNormalization",
        "Concatenate",
        "Convolution",
        "DepthwiseConvolution",
        "Div2",
        "Identity",
        "Log",
        "MaxPooling",
        "MaximumScalar",
        "MinimumScalar",
        "Mul2",
        "MulScalar",
        "Pad",
        "RPowScalar",
        "RSubScalar",
        "ReLU",
        "Reshape",
        "Round",
        "Sign",
        "Sub2",
    )
)
# Arguments that a function must have; others are read by the runtime in another way than nnabla's.
NEEDED: dict[str, dict[str, Any]] = {
    "BatchNormalization": {"batch_stat": False, "no_scale": False, "no_bias": False, "axes": [1]},
    "Convolution": {"channel_last": False, "base_axis": 1},
    "DepthwiseConvolution": {"base_axis": 1},
    "Affine": {"base_axis": 1},
    # With borders the runtime counts windows in another way.
    "MaxPooling": {"ignore_border": True, "channel_last": False},
    "AveragePooling": {"ignore_border": True, "channel_last": False},
    "Pad": {"mode": "constant"},
}
Inputs = Sequence[nn.Variable]


def _relu6(function: Any, inputs: Inputs) -> nn.Variable:
    return F.minimum_scalar(F.maximum_scalar(inputs[0], 0.0), 6.0)


def _global_average(function: Any, inputs: Inputs) -> nn.Variable:
    return F.average_pooling(inputs[0], inputs[0].shape[2:])


def _mean(function: Any, inputs: Inputs) -> nn.Variable:
    axes = sorted(axis % inputs[0].ndim for axis in function.info.args["axes"])
    if inputs[0].ndim != 4 or axes != [2, 3]:
        raise ExportError(f"Mean over axes {axes}: nnabla-c-runtime has it over rows and columns, 2 and 3, alone")
    return F.reshape(_global_average(function, inputs), function.outputs[0].shape, inplace=False)


def _add_n(function: Any, inputs: Inputs) -> nn.Variable:
    total = inputs[0]
    for term in inputs[1:]:
        total = F.add2(total, term)
    return total


def _at_least(x: nn.Variable, number: float) -> nn.Variable:
    """1 where x >= number, else 0; a difference of floats is zero between equals alone, so its sign is exact."""
    return F.mul_scalar(F.add_scalar(F.sign(F.add_scalar(x, -number), 1.0), 1.0), 0.5)


def _greater_equal(function: Any, inputs: Inputs) -> nn.Variable:
    return _at_least(inputs[0], function.info.args["val"])


def _less(function: Any, inputs: Inputs) -> nn.Variable:
    return F.r_sub_scalar(_at_least(inputs[0], function.info.args["val"]), 1.0)


# Functions that the runtime lacks -> the same in functions that it has.
EQUAL: dict[str, Callable[[Any, Inputs], nn.Variable]] = {
    "ReLU6": _relu6,
    "GlobalAveragePooling": _global_average,
    "Mean": _mean,
    "AddN": _add_n,
    "GreaterEqualScalar": _greater_equal,
    "LessScalar": _less,
}


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, (list, tuple)) else value


def _check(function: Any) -> None:
    name, arguments = function.info.type_name, function.info.args
    if name not in RUNS:
        raise ExportError(
            f"{name}: nnabla-c-runtime does not have it, and it has no equal in functions that it has; "
            "the target c99 needs no runtime"
        )
    for key, wanted in NEEDED.get(name, {}).items():
        if _plain(arguments[key]) != wanted:
            raise ExportError(f"{name}: {key} = {arguments[key]}; nnabla-c-runtime computes {key} = {wanted} alone")


def standard(outputs: Sequence[nn.Variable]) -> list[nn.Variable]:
    """Rebuild a frozen graph in functions of nnabla-c-runtime that compute the same.

    ReLU6 becomes two clips, pooling over a whole map average pooling, a sum of many a chain of sums, and the
    comparisons of power-of-two quantizers the sign of a difference.

    Args:
        outputs: of a graph that `nnmpq.graph.bake.bake` made.

    Returns:
        Outputs of the graph; inputs and parameters are shared.

    Raises:
        ExportError: a function has no equal there; the message names it.

    Example:
        >>> x = nn.Variable((1, 2, 4, 4))
        >>> [f.info.type_name for f in functions_of(standard([F.relu6(x)]))]
        ['MaximumScalar', 'MinimumScalar']
    """

    def replace(function: Any, inputs: Inputs) -> list[nn.Variable] | None:
        build = EQUAL.get(function.info.type_name)
        return None if build is None else [build(function, inputs)]

    made, _ = rewrite(outputs, replace)
    for function in functions_of(made):
        _check(function)
    return made

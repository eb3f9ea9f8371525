"""The pass engine: rebuild a graph function by function, with some of them replaced."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Callable

import nnabla as nn
import nnabla.function_bases as function_bases

from nnmpq.graph.trace import functions_of

Replacement = Callable[[nn.function.Function, Sequence[nn.Variable]], "Sequence[nn.Variable] | None"]


class RewriteError(ValueError):
    """A graph holds a function that cannot be built again."""


def copy_function(function: nn.function.Function, inputs: Sequence[nn.Variable]) -> list[nn.Variable]:
    """Build a function again on other inputs.

    Args:
        function: a standard nnabla function of a graph.
        inputs: its new inputs, shapes as before.

    Returns:
        Its new outputs.

    Raises:
        RewriteError: the function is a `PythonFunction`; nnabla keeps no recipe to build one again.
    """
    name = function.info.type_name
    build = getattr(function_bases.F, name, None)
    if build is None:
        raise RewriteError(
            f"cannot rebuild the function {name!r}: it was written in Python, so nnabla keeps no recipe of it; "
            "build the network from standard functions, and quantize it once, from its float graph"
        )
    arguments = dict(function.info.args)
    if arguments.get("inplace"):
        # A quantizer may need the tensor that an in-place function would overwrite.
        arguments["inplace"] = False
    outputs = build(nn.get_current_context(), **arguments)(*inputs, n_outputs=len(function.outputs), auto_forward=False)
    return list(outputs) if isinstance(outputs, (tuple, list)) else [outputs]


def rewrite(
    outputs: Sequence[nn.Variable],
    replace: Replacement,
    leaves: Mapping[nn.Variable, nn.Variable] | None = None,
) -> tuple[list[nn.Variable], dict[nn.Variable, nn.Variable]]:
    """Rebuild a graph in execution order; the old one stays as it was.

    Args:
        outputs: outputs of the graph.
        replace: called with each function and its new inputs; returns the new outputs, or None to copy the function.
        leaves: what stands for an input or parameter; each not named here is shared with the old graph.

    Returns:
        The new outputs, and what stands for every old variable.

    Raises:
        RewriteError: a function that is not replaced cannot be built again.

    Example:
        >>> import nnabla.functions as F
        >>> x = nn.Variable.from_numpy_array([[-1.0, 2.0]])
        >>> y = F.relu(F.mul_scalar(x, 3.0))
        >>> swap = lambda f, inputs: [F.abs(*inputs)] if f.info.type_name == "ReLU" else None
        >>> (new,), _ = rewrite([y], swap)
        >>> new.forward(); new.d.tolist()
        [[3.0, 6.0]]
    """
    new: dict[nn.Variable, nn.Variable] = dict(leaves or {})
    for function in functions_of(outputs):
        inputs = [new.get(v, v) for v in function.inputs]
        made = replace(function, inputs)
        if made is None:
            made = copy_function(function, inputs)
        for old, fresh in zip(function.outputs, made):
            if not old.need_grad and fresh.need_grad:
                fresh.need_grad = False
            new[old] = fresh
    return [new.get(v, v) for v in outputs], new

"""The pass engine: rebuild a graph function by function, with some of them replaced."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Callable

import nnabla as nn
import nnabla.function_bases as function_bases
import nnabla.functions as F

from nnmpq.graph.functions import functions_of

Replacement = Callable[[Any, Sequence[nn.Variable]], "Sequence[nn.Variable] | None"]


class RewriteError(ValueError):
    """A graph holds a function that cannot be built again."""


def _recipe(function: Any) -> Any:
    return getattr(function_bases.F, function.info.type_name, None)


def copy_function(function: Any, inputs: Sequence[nn.Variable]) -> list[nn.Variable]:
    """Build a function again on other inputs, never in place: a quantizer may need what that would overwrite.

    Args:
        function: a standard nnabla function of a graph.
        inputs: its new inputs, shapes as before.

    Returns:
        Its new outputs.

    Raises:
        RewriteError: the function is a `PythonFunction`; nnabla keeps no recipe to build one again.
    """
    name = function.info.type_name
    build = _recipe(function)
    if build is None:
        raise RewriteError(
            f"cannot rebuild the function {name!r}: it was written in Python, and nnabla keeps no recipe of "
            "it. Build the network from standard functions, and rewrite the float graph, not a quantized one"
        )
    arguments = dict(function.info.args)
    if arguments.get("inplace"):
        arguments["inplace"] = False
    outputs = build(nn.get_current_context(), **arguments)(*inputs, n_outputs=len(function.outputs), auto_forward=False)
    return list(outputs) if isinstance(outputs, (tuple, list)) else [outputs]


def _take_flags(function: Any, old: nn.Variable, new: nn.Variable, inputs: Sequence[nn.Variable]) -> nn.Variable:
    """Give a rebuilt variable the flags that the user set on the old one; return it."""
    # Only where a gradient was stopped, not where none came: a learned quantizer upstream may want one now.
    stopped = not old.need_grad and any(v.need_grad for v in function.inputs)
    if stopped and new.need_grad:
        if new in inputs:
            new = F.identity(new)
        new.need_grad = False
    if old.persistent and not new.persistent:
        new.persistent = True
    if old.name and not new.name:
        new.name = old.name
    return new


def rewrite(
    outputs: Sequence[nn.Variable],
    replace: Replacement,
    leaves: Mapping[nn.Variable, nn.Variable] | None = None,
) -> tuple[list[nn.Variable], dict[nn.Variable, nn.Variable]]:
    """Rebuild a graph in execution order; the old one stays as it was.

    Parameters, running statistics of batch normalization and inputs are shared with the old graph. So is a
    function that was written in Python, as long as nothing upstream of it changes.

    Args:
        outputs: outputs of the graph.
        replace: called with each function and its new inputs; returns the new outputs, or None for a copy.
        leaves: what stands for an input or parameter; each not named here is shared with the old graph.

    Returns:
        The new outputs, and what stands for every old variable that was rebuilt.

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
            if _recipe(function) is None and not any(v in new for v in function.inputs):
                continue
            made = copy_function(function, inputs)
        for old, fresh in zip(function.outputs, made):
            new[old] = _take_flags(function, old, fresh, inputs)
    return [new.get(v, v) for v in outputs], new


def _split_fused(function: Any, inputs: Sequence[nn.Variable]) -> list[nn.Variable] | None:
    name, arguments = function.info.type_name, dict(function.info.args)
    if name == "FusedConvolution":
        raise RewriteError(
            "cannot look into a FusedConvolution: build the network with convolution and batch normalization"
        )
    if name != "FusedBatchNormalization":
        return None
    nonlinearity = arguments.pop("nonlinearity")
    if nonlinearity != "relu":
        raise RewriteError(f"cannot rebuild a FusedBatchNormalization with nonlinearity {nonlinearity!r}")
    build = function_bases.F.BatchNormalization(nn.get_current_context(), no_scale=False, no_bias=False, **arguments)
    made = build(*inputs[:5], n_outputs=len(function.outputs), auto_forward=False)
    normalised, *statistics = made if isinstance(made, (tuple, list)) else [made]
    joined = F.add2(normalised, inputs[5]) if len(inputs) > 5 else normalised
    return [F.relu(joined), *statistics]


def unfuse(outputs: Sequence[nn.Variable]) -> list[nn.Variable]:
    """Take functions that hold a ReLU or a sum inside them apart; a graph without any comes back as it is.

    Args:
        outputs: outputs of a graph.

    Returns:
        Outputs of the same network with `FusedBatchNormalization` as batch normalization, sum and ReLU.

    Raises:
        RewriteError: a fused function that cannot be taken apart.

    Example:
        >>> import nnabla.parametric_functions as PF
        >>> x = nn.Variable((2, 3, 4, 4))
        >>> [f.info.type_name for f in functions_of(unfuse([PF.fused_batch_normalization(x, x)]))]
        ['BatchNormalization', 'Add2', 'ReLU']
    """
    if not any(f.info.type_name.startswith("Fused") for f in functions_of(outputs)):
        return list(outputs)
    return rewrite(outputs, _split_fused)[0]

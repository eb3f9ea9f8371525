"""The residual blocks of any network, found in its graph, and the parts between them on other inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import nnabla as nn
import numpy as np

from nnmpq.graph.functions import JOINS, LAYER_KIND, functions_of, parameter_names
from nnmpq.graph.rewrite import copy_function, rewrite


@attrs.frozen(eq=False)
class Block:
    """A part of a graph that one tensor enters and one leaves, with branches that a sum joins in between.

    Args:
        name: longest scope that all its parameters share.
        entry: the tensor that enters.
        exit: the tensor that leaves.
    """

    name: str
    entry: nn.Variable
    exit: nn.Variable


def _single_tensors(functions: Sequence[Any]) -> tuple[list[int], list[nn.Variable]]:
    """Where in execution order all that follows depends on one computed tensor alone, and that tensor."""
    constant = set(parameter_names())
    last_read: dict[nn.Variable, int] = {}
    for place, function in enumerate(functions):
        for variable in function.inputs:
            last_read[variable] = place
    # A tensor computed from parameters alone belongs to no sample.
    computed: set[nn.Variable] = set()
    alive: list[nn.Variable] = []
    places, tensors = [], []
    for place, function in enumerate(functions):
        depends = any(v in computed or (v.parent is None and v.data not in constant) for v in function.inputs)
        alive = [v for v in alive if last_read[v] > place]
        if depends:
            computed.update(function.outputs)
            alive += [v for v in function.outputs if last_read.get(v, -1) > place]
        if len(alive) == 1 and alive[0] in function.outputs:
            places.append(place)
            tensors.append(alive[0])
    return places, tensors


def _shared_scope(functions: Sequence[Any]) -> str:
    names = parameter_names()
    found = [names[v.data].split("/")[:-1] for f in functions for v in f.inputs if v.data in names]
    shared = []
    for parts in zip(*found):
        if len(set(parts)) > 1:
            break
        shared.append(parts[0])
    return "/".join(shared)


def find_blocks(y: nn.Variable) -> list[Block]:
    """Find the residual blocks of a network.

    A block lies between two neighbouring tensors through which every path from input to output leads; it holds a
    layer, and a sum or product that joins branches.

    Args:
        y: output of a float graph.

    Returns:
        The blocks in execution order.

    Raises:
        ValueError: there is none, or two have the same name.

    Example:
        >>> from nnmpq.models import build
        >>> blocks = find_blocks(build("preact_resnet", nn.Variable((1, 3, 32, 32)), 10, num_layers=20))
        >>> len(blocks), blocks[0].name, blocks[3].exit.shape
        (9, 'res1/block1', (1, 32, 16, 16))
    """
    functions = functions_of([y])
    places, tensors = _single_tensors(functions)
    blocks = []
    for i in range(1, len(places)):
        inside = functions[places[i - 1] + 1 : places[i] + 1]
        kinds = {f.info.type_name for f in inside}
        if kinds & JOINS and kinds & LAYER_KIND.keys() and tensors[i].ndim == 4:
            blocks.append(Block(_shared_scope(inside), tensors[i - 1], tensors[i]))
    if not blocks:
        raise ValueError("the network has no residual block: nowhere does one tensor branch and join again")
    names = [block.name for block in blocks]
    for name in names:
        if names.count(name) > 1 or not name:
            raise ValueError(f"two residual blocks are named {name!r}: give each a parameter scope of its own")
    return blocks


def on_other_input(
    output: nn.Variable,
    entry: nn.Variable,
    x: nn.Variable,
    parameters: Mapping[nn.Variable, nn.Variable] | None = None,
) -> tuple[nn.Variable, dict[nn.Variable, nn.Variable]]:
    """Build the part of a graph between two tensors again on another input; quantized graphs too.

    Args:
        output: the tensor that leaves the part.
        entry: the tensor that enters it.
        x: what stands for `entry`, same shape.
        parameters: what stands for parameters, and for tensors computed from them; those not named are shared.

    Returns:
        What stands for `output`, and what stands for every tensor of the part.

    Example:
        >>> import nnabla.functions as F
        >>> a = nn.Variable((2, 3))
        >>> b = F.mul_scalar(a, 2.0)
        >>> y, _ = on_other_input(F.exp(b), b, nn.Variable.from_numpy_array([[0.0, 0.0, 0.0]] * 2))
        >>> y.forward(); float(y.d.max())
        1.0
    """
    if output == entry:
        return x, {entry: x}
    leaves = {**(parameters or {}), entry: x}

    def replace(function: Any, inputs: Sequence[nn.Variable]) -> Sequence[nn.Variable] | None:
        if any(v in leaves for v in function.outputs):
            return [leaves.get(v, v) for v in function.outputs]
        if all(new == old for new, old in zip(inputs, function.inputs)):
            return list(function.outputs)
        if "core" in function.info.args:
            # A fused quantizer keeps what it is made from among its arguments.
            arguments = dict(function.info.args)
            core = arguments.pop("core")
            return [core(nn.get_current_context(), **arguments)(*inputs)]
        return copy_function(function, inputs)

    (made,), variables = rewrite([output], replace, leaves)
    return made, variables


def constants_of(output: nn.Variable, entry: nn.Variable) -> dict[nn.Variable, nn.Variable]:
    """Compute now what a graph computes from parameters alone: quantized weights, steps and ranges.

    Args:
        output: of the graph, in evaluation mode.
        entry: its input; every other leaf counts as a parameter.

    Returns:
        By the tensor of the graph, a leaf with its numbers as they are now; for `on_other_input`.

    Example:
        >>> import nnabla.functions as F
        >>> x, w = nn.Variable((2, 3)), nn.Variable.from_numpy_array([[1.4, 2.6, 3.0]])
        >>> y = F.mul2(F.round(w), x)
        >>> [leaf.d.tolist() for leaf in constants_of(y, x).values()]
        [[[1.0, 3.0, 3.0]]]
    """
    found: dict[nn.Variable, nn.Variable] = {}
    for function in functions_of([output]):
        if all(v in found or (v.parent is None and v != entry) for v in function.inputs):
            for result in function.outputs:
                result.forward()
                found[result] = nn.Variable.from_numpy_array(np.array(result.d, np.float32))
    return found

"""The accelerate pass: a graph in, the same graph on fast CPU functions out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import nnabla as nn

from nnmpq.graph.accelerate.patterns import find_chains
from nnmpq.graph.accelerate.rules import EITHER_ORDER, RULES, SAME_PLACE, chain
from nnmpq.graph.accelerate.scalar_compiler import compile_scalars
from nnmpq.graph.accelerate.scalars import run_scalars
from nnmpq.graph.accelerate.weights import WeightClock
from nnmpq.graph.accelerate.work import Work
from nnmpq.graph.functions import functions_of
from nnmpq.graph.rewrite import copy_function, rewrite
from nnmpq.nnabla_imports import alias_modules


@attrs.frozen(eq=False)
class Accelerated:
    """An accelerated graph.

    Args:
        outputs: in the order that they were given, channels first as before.
        variables: what stands for each variable of the old graph that is still computed; channels may be last.
        clock: its `stopped()` promises that weights stay as they are, say for an evaluation.
    """

    outputs: tuple[nn.Variable, ...]
    variables: Mapping[nn.Variable, nn.Variable]
    clock: WeightClock


def accelerate(outputs: Sequence[nn.Variable], keep: Sequence[nn.Variable] = ()) -> Accelerated:
    """Rebuild a graph on functions backed by oneDNN and numba; the old one stays as it was.

    Parameters, running statistics and inputs are shared. Between convolutions the channels are last, with one reorder
    at each border to functions that want them first. A batch normalization runs as one with the sum, the ReLU or the
    uniform quantizer behind it.

    Args:
        outputs: of a float or quantized graph, in training or inference mode.
        keep: variables inside that will be read; no function runs as one across them.

    Returns:
        The new graph.

    Raises:
        RewriteError: the graph holds a function written in Python that is not ours.
        LibraryMissing: oneDNN cannot be had here.

    Example:
        >>> import nnabla.functions as F, nnabla.parametric_functions as PF
        >>> x = nn.Variable((2, 3, 8, 8))
        >>> y = F.relu(PF.batch_normalization(PF.convolution(x, 4, (3, 3), with_bias=False)))
        >>> [f.info.type_name for f in functions_of(accelerate([y]).outputs)]
        ['ChannelsLast', 'Convolution', 'Normalise', 'ChannelsFirst']
    """
    alias_modules()
    functions = functions_of(outputs)
    chains = {f: c for c in find_chains(functions, {*outputs, *keep}) for f in c.functions}
    work = Work(chains)
    program = compile_scalars(functions, {*outputs, *keep})
    numbers = run_scalars(work.scratch, program) if program is not None else {}
    arithmetic = set(program.functions) if program is not None else set()

    def replace(function: Any, inputs: Sequence[nn.Variable]) -> Sequence[nn.Variable]:
        if function in arithmetic:
            # What nobody outside reads has no variable any more; anything may stand for it.
            return [numbers.get(function.outputs[0], function.outputs[0])]
        if function in chains:
            return chain(work, function, inputs)
        name = function.info.type_name
        made = RULES[name](work, function, inputs) if name in RULES else None
        if made is not None:
            return made
        if name in EITHER_ORDER and work.is_last(inputs[0]):
            return [work.mark(v) for v in copy_function(function, inputs)]
        if name in SAME_PLACE and any(work.is_last(v) for v in inputs) and len({v.shape for v in function.inputs}) == 1:
            return [work.mark(v) for v in copy_function(function, [work.last(v) for v in inputs])]
        return copy_function(function, [work.first(v) for v in inputs])

    made, variables = rewrite(outputs, replace)
    finished = []
    for old, new in zip(outputs, made):
        moved = work.first(new)
        if old.persistent:
            moved.persistent = True
        finished.append(moved)
    inside = {f.outputs[0] for c in set(chains.values()) for f in c.functions[:-1]}
    inside |= {f.outputs[0] for f in arithmetic} - numbers.keys()
    kept = {old: new for old, new in variables.items() if old not in inside}
    return Accelerated(tuple(finished), kept, work.clock)

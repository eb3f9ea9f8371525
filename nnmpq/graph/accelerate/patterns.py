"""Which functions run as one: a batch normalization, the sum behind it, and the ReLU or quantizer behind that."""

from __future__ import annotations

from collections.abc import Sequence, Set
from typing import Any

import attrs
import nnabla as nn

NORMALIZATION = "BatchNormalization"
SUM = "Add2"
RECTIFIERS = {"ReLU": float("inf"), "ReLU6": 6.0}
QUANTIZER = "UniformQuantizerCore"


@attrs.frozen(eq=False)
class Chain:
    """Functions that run as one.

    Args:
        normalization: the first.
        sum: the one that joins a branch, if any.
        last: a ReLU, ReLU6 or quantizer, if any.
    """

    normalization: Any
    sum: Any = None
    last: Any = None

    @property
    def functions(self) -> list[Any]:
        """All of them, in execution order."""
        return [f for f in (self.normalization, self.sum, self.last) if f is not None]


def normalizes(function: Any) -> bool:
    """Return whether a function is a batch normalization over all axes but the channels, which are axis 1."""
    if function.info.type_name != NORMALIZATION or len(function.outputs) != 1 or len(function.inputs) != 5:
        return False
    return list(function.info.args["axes"]) == [1] and function.inputs[0].ndim in (2, 4)


def _scalar_quantizer(function: Any) -> bool:
    return function.info.type_name == QUANTIZER and function.inputs[1].size == 1 and function.inputs[2].size == 1


def find_chains(functions: Sequence[Any], keep: Set[nn.Variable]) -> list[Chain]:
    """Find the chains of a graph.

    Args:
        functions: of the graph, in execution order.
        keep: variables that are read from outside, and so must stay.
    """
    readers: dict[nn.Variable, list[Any]] = {}
    for function in functions:
        for variable in function.inputs:
            readers.setdefault(variable, []).append(function)
    order = {function: place for place, function in enumerate(functions)}

    def next_one(function: Any) -> Any:
        output = function.outputs[0]
        inside = output not in keep and not output.persistent
        # A gradient that the user stopped must stay stopped.
        stopped = not output.need_grad and any(v.need_grad for v in function.inputs)
        found = readers.get(output, [])
        return found[0] if inside and not stopped and len(found) == 1 else None

    sums: dict[Any, Any] = {}
    for function in functions:
        following = next_one(function) if normalizes(function) else None
        if following is not None and _joins(following) and function.inputs[0] not in following.inputs:
            best = sums.get(following)
            # Of two normalized branches the later one is fresh in the cache.
            sums[following] = function if best is None or order[function] > order[best] else best
    chains = []
    for function in functions:
        if not normalizes(function):
            continue
        following, joint = next_one(function), None
        if following is not None and sums.get(following) == function:
            joint, following = following, next_one(following)
        last = following if following is not None and _ends(following) else None
        chains.append(Chain(function, joint, last))
    return chains


def _joins(function: Any) -> bool:
    a, b = function.inputs[0], function.inputs[1] if len(function.inputs) > 1 else None
    return function.info.type_name == SUM and b is not None and a.shape == b.shape and a != b


def _ends(function: Any) -> bool:
    return function.info.type_name in RECTIFIERS or _scalar_quantizer(function)

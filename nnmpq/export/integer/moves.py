"""Functions that only move numbers: max pooling, subsampling, padding with channels of zeros, concatenation."""

from __future__ import annotations

from typing import Any

import attrs
import nnabla as nn
import numpy as np

from nnmpq.export.integer import program as ir
from nnmpq.export.integer.lowering import AVERAGES, Lowering
from nnmpq.export.integer.program import ExportError, Tensor
from nnmpq.graph.functions import moves

ALIASES = ("Identity", "Dropout", "Reshape")
Pair = tuple[int, int]


def _raw(state: Lowering, function: Any, reader: str) -> str:
    """Store sums as they are where no quantizer can stand: they are whole numbers too."""
    from nnmpq.export.integer.joins import lower_raw_average
    from nnmpq.export.integer.layers import lower_raw

    if function in state.traced.layers:
        return lower_raw(state, function)
    if function.info.type_name in AVERAGES:
        return lower_raw_average(state, function)
    raise ExportError(f"{reader} reads {function.info.type_name}, at which no quantizer stands")


def read(state: Lowering, variable: nn.Variable, reader: str) -> Tensor:
    """Return the stored tensor with a variable's numbers, made of stored ones by moving where need be.

    Args:
        state: of the lowering.
        variable: of the float graph.
        reader: name of what reads it, for messages.

    Raises:
        ExportError: it is float.
    """
    if variable not in state.done:
        function = variable.parent
        if function is not None and not moves(function) and variable not in state.traced.sites:
            state.done[variable] = _raw(state, function, reader)
            return state.tensors[state.done[variable]]
        if function is None or not moves(function):
            raise ExportError(state.float_message(variable, reader))
        state.done[variable] = move(state, function)
    return state.tensors[state.done[variable]]


def pair(numbers: Any) -> Pair:
    """Return two lengths, rows and columns, as whole numbers."""
    rows, columns = numbers
    return int(rows), int(columns)


def window_of(function: Any, read: Tensor, name: str) -> tuple[Pair, Pair, Pair]:
    """Kernel, stride and pad of a pooling."""
    arguments, kind = function.info.args, function.info.type_name
    rows, columns = read.shape[1:]
    if kind == "GlobalAveragePooling":
        return (rows, columns), (rows, columns), (0, 0)
    if kind == "Mean":
        axes = sorted(axis % function.inputs[0].ndim for axis in arguments["axes"])
        if axes != [2, 3]:
            raise ExportError(f"{name}: a mean over axes {axes}; over rows and columns, 2 and 3, is needed")
        return (rows, columns), (rows, columns), (0, 0)
    if len(arguments["kernel"]) != 2 or arguments.get("channel_last"):
        raise ExportError(f"{name}: {kind} over rows and columns of maps, channels first, is needed")
    if kind == "AveragePooling" and any(arguments["pad"]) and not arguments["including_pad"]:
        raise ExportError(f"{name}: an average pooling that leaves the padding out: set including_pad = True")
    if not arguments["ignore_border"] and kind != "MaxPooling":
        raise ExportError(f"{name}: {kind} with ignore_border = False has no integer form here")
    return pair(arguments["kernel"]), pair(arguments["stride"]), pair(arguments["pad"])


def move(state: Lowering, function: Any) -> str:
    """Lower a function that only moves numbers; return the name of its tensor."""
    kind, arguments = function.info.type_name, function.info.args
    if kind == "Concatenate":
        return _concatenate(state, function)
    source = read(state, function.inputs[0], kind)
    number = sum(1 for tensor in state.tensors if tensor.startswith(f"{source.name}/{kind}"))
    name = f"{source.name}/{kind}" + (f"_{number + 1}" if number else "")
    if kind in ALIASES:
        elements = function.outputs[0].shape[1:]
        if int(np.prod(elements)) != source.elements or (len(elements) != 1 and tuple(elements) != source.shape):
            raise ExportError(f"{source.name}: a reshape to {tuple(elements)}; only flattening is known")
        return source.name
    channels, rows, columns = source.shape
    if kind == "MaxPooling":
        kernel, stride, pad = window_of(function, source, name)
        shape = (channels, *function.outputs[0].shape[2:])
        return state.add(ir.MaxPool((source.name,), name, kernel, stride, pad), _moved(source, name, shape))
    if kind == "AveragePooling":
        _, stride, _ = window_of(function, source, name)
        shape = (channels, *function.outputs[0].shape[2:])
        return state.add(ir.Select((source.name,), name, stride, 0), _moved(source, name, shape))
    if kind == "Pad":
        width = [int(v) for v in arguments["pad_width"]]
        pairs = [(0, 0)] * (function.inputs[0].ndim - len(width) // 2) + list(zip(width[::2], width[1::2]))
        if arguments["mode"] != "constant" or any(sum(p) for i, p in enumerate(pairs) if i != 1):
            raise ExportError(f"{source.name}: only channels are padded here, with zeros; not {pairs}")
        shape = (channels + sum(pairs[1]), rows, columns)
        zero = attrs.evolve(source, low=min(source.low, 0), high=max(source.high, 0))
        return state.add(ir.Select((source.name,), name, (1, 1), pairs[1][0]), _moved(zero, name, shape))
    raise ExportError(f"{source.name}: {kind} has no integer form here")


def _moved(read: Tensor, name: str, shape: Any) -> Tensor:
    return attrs.evolve(read, name=name, shape=tuple(shape), site=False)


def _concatenate(state: Lowering, function: Any) -> str:
    if function.info.args["axis"] % function.outputs[0].ndim != 1:
        raise ExportError("a concatenation of anything but channels has no integer form here")
    parts = [read(state, v, "Concatenate") for v in function.inputs]
    name = f"{parts[-1].name}/Concatenate"
    name += f"_{len(state.tensors)}" if name in state.tensors else ""
    unit, multipliers = common_multipliers([t.step for t in parts], name)
    # Sums are wide enough for close multiples; levels are not.
    if any(m * unit != t.step and t.bits < 32 for m, t in zip(multipliers, parts)):
        raise ExportError(
            f"{name}: steps {[t.step for t in parts]} have no common one; use quantizers with powers of two"
        )
    low = min(m * t.low for m, t in zip(multipliers, parts))
    high = max(m * t.high for m, t in zip(multipliers, parts))
    shape = (sum(t.shape[0] for t in parts), *parts[0].shape[1:])
    tensor = Tensor(name, shape, low, high, unit, max(t.bits for t in parts), False)
    return state.add(ir.Concatenate(tuple(t.name for t in parts), name, tuple(multipliers)), tensor)


def common_multipliers(steps: list[float], where: str) -> tuple[float, list[int]]:
    """Return the step that all steps are multiples of, and the multiples; 2^-16 of the smallest where there is none.

    Example:
        >>> common_multipliers([0.5, 0.125], "sum")
        (0.125, [4, 1])
    """
    smallest = min(steps)
    for unit in (smallest, smallest / 2**16):
        multiples = [step / unit for step in steps]
        if all(m == round(m) for m in multiples) or unit < smallest:
            if max(multiples) >= 2**24:
                raise ExportError(f"{where}: steps {steps} lie too far apart to be added")
            return unit, [int(round(m)) for m in multiples]
    raise AssertionError("the second unit serves always")

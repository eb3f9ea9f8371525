"""From the integer program to a TensorFlow Lite graph."""

from __future__ import annotations

from typing import Any, Callable

import attrs
import numpy as np

from nnmpq.export.integer import program as ir
from nnmpq.export.integer.program import ExportError, Program
from nnmpq.export.tflite.graph import (
    HIGHEST,
    LOWEST,
    Add,
    Concatenate,
    Graph,
    MaxPool,
    Pad,
    Placement,
    Quantized,
    Requantize,
)
from nnmpq.export.tflite.layers import (
    POINT,
    Products,
    average_pool,
    convolution,
    is_rescaling,
    layer,
    padded,
    pixels,
)
from nnmpq.export.tflite.state import State, place_of, quantized, uniform


def _sum(state: State, operation: ir.Sum) -> None:
    tensor, made = state.program.tensors[operation.output], operation.requantiser
    uniform(made, tensor.name)
    if len(operation.inputs) == 1:
        _change_of_grid(state, operation)
        return
    parts = [state.read(name) for name in operation.inputs]
    (first, _), (second, _) = parts[:2]
    left, right = operation.multipliers[:2]
    ends = [sorted((m * part.low, m * part.high)) for m, (part, _) in zip(operation.multipliers, parts)]
    low, high = (sum(pair[side] for pair in ends) for side in (0, 1))
    plain = is_rescaling(made, first.step / abs(left) / tensor.step, low, high)
    if len(parts) > 2 or not plain or max(left, right) < 0:
        raise ExportError(
            f"{tensor.name}: TensorFlow Lite adds two tensors and rounds; a sum of {len(parts)} with "
            f"{'nothing' if plain else 'a scale or a batch normalization'} behind it has no form there; export --to c99"
        )
    names = (first.name, second.name) if left > 0 else (second.name, first.name)
    written = quantized(tensor)
    relu = tensor.low == 0
    state.finish(
        lambda output: Add(names, output, left * right < 0, relu), written, tensor.low, 0 if relu else -(2**20)
    )


def _change_of_grid(state: State, operation: ir.Sum) -> None:
    source, read = state.read(operation.inputs[0])
    tensor, made = state.program.tensors[operation.output], operation.requantiser
    (multiplier,) = operation.multipliers
    ends = sorted((multiplier * source.low, multiplier * source.high))
    low, high = (np.full(len(made.bias), end, np.int64) for end in ends)
    weights = np.full((read.shape[0], 1, 1, 1), multiplier, np.int64)
    products = Products(read, f"{tensor.name}/scale", weights, POINT, read.shape[0], low, high, False)
    convolution(state, products, tensor, made)


def _max_pool(state: State, operation: ir.MaxPool) -> None:
    read, tensor = state.graph.tensors[operation.inputs[0]], state.program.tensors[operation.output]
    sizes = (read.shape[1:], tensor.shape[1:])
    place, widths = place_of(operation.kernel, operation.stride, (1, 1), operation.pad, sizes)
    source = padded(state, read, widths, LOWEST, tensor.name)
    made = attrs.evolve(read, name=tensor.name, shape=tensor.shape)
    state.graph.add(MaxPool(source.name, made.name, place), made)


def _select(state: State, operation: ir.Select) -> None:
    read, tensor = state.graph.tensors[operation.inputs[0]], state.program.tensors[operation.output]
    after = tensor.shape[0] - operation.before - read.shape[0]
    pads = bool(operation.before or after)
    source = read
    if operation.stride != (1, 1):
        # Every second row and column is a pooling of one element.
        shape = (read.shape[0], *tensor.shape[1:])
        made = attrs.evolve(read, name=f"{tensor.name}/chosen" if pads else tensor.name, shape=shape)
        state.graph.add(MaxPool(source.name, made.name, Placement((1, 1), operation.stride)), made)
        source = made
    if pads:
        made = attrs.evolve(read, name=tensor.name, shape=tensor.shape)
        state.graph.add(Pad(source.name, made.name, ((operation.before, after), (0, 0), (0, 0)), read.zero), made)


def _concatenate(state: State, operation: ir.Concatenate) -> None:
    made = quantized(state.program.tensors[operation.output])
    names = []
    for place, name in enumerate(operation.inputs):
        read = state.graph.tensors[name]
        if (read.scale, read.zero) != (made.scale, made.zero):
            changed = Quantized(f"{made.name}/part{place}", read.shape, made.scale, made.zero)
            read = state.graph.tensors[state.graph.add(Requantize(name, changed.name), changed)]
        names.append(read.name)
    state.graph.add(Concatenate(tuple(names), made.name), made)


WRITERS: dict[type, Callable[[State, Any], None]] = {
    ir.Pixels: pixels,
    ir.Convolve: layer,
    ir.Sum: _sum,
    ir.AveragePool: average_pool,
    ir.MaxPool: _max_pool,
    ir.Select: _select,
    ir.Concatenate: _concatenate,
}


def lower(program: Program, logits: Quantized) -> Graph:
    """Turn an integer program into a TensorFlow Lite graph with INT8 activations.

    The highest level of a tensor stands at 127, where INT8 itself ends; the lowest is held by a fused RELU, or by a
    MAXIMUM where it is negative. Weights fill INT4 or INT8: the fuller they are, the finer is the bias, a whole number.

    Args:
        program: the integer program.
        logits: the tensor of the logits; see `nnmpq.export.tflite.layers.logits_tensor`.

    Raises:
        ExportError: an operation has no form in TensorFlow Lite with INT8 activations; the message names it.

    Source:
        TensorFlow Lite 8-bit quantization specification.
    """
    graph = Graph(program.name)
    first = program.input
    if first.high > HIGHEST - LOWEST:
        raise ExportError(f"{first.name}: pixels up to {first.high} do not fit in INT8")
    graph.tensors[first.name] = Quantized(first.name, first.shape, 1.0, LOWEST)
    graph.output = logits.name
    state = State(program, graph, logits)
    for operation in program.operations:
        WRITERS[type(operation)](state, operation)
    return graph

"""The kernels of TFLM and CMSIS-NN in numpy: what a graph computes, number for number."""

from __future__ import annotations

from typing import Any, Callable

import numpy as np

from nnmpq.export.integer import interpret
from nnmpq.export.tflite import graph as ops
from nnmpq.export.tflite.graph import HIGHEST, LOWEST, Graph
from nnmpq.export.tflite.rounding import mean_of, multiplied, multiplier_of

# ADD takes its operands with this many bits behind the point.
ADD_BITS = 20


def _stored(graph: Graph, name: str, numbers: np.ndarray, relu: bool = False) -> np.ndarray:
    zero = graph.tensors[name].zero
    return np.clip(numbers + zero, max(LOWEST, zero) if relu else LOWEST, HIGHEST)


def _around(place: ops.Placement, x: np.ndarray, rows_columns: tuple[int, int], value: int) -> np.ndarray:
    """A map with what the format's own padding puts around it."""
    widths = [(0, 0), (0, 0)]
    for axis in (0, 1):
        reach = place.dilation[axis] * (place.kernel[axis] - 1) + 1
        total = (rows_columns[axis] - 1) * place.stride[axis] + reach - x.shape[axis + 2]
        widths.append((place.before[axis], max(total - place.before[axis], 0)))
    return np.pad(x, widths, constant_values=value)


def _convolution(graph: Graph, op: ops.Convolution, x: np.ndarray, rounding: str) -> np.ndarray:
    read, written = graph.tensors[op.input], graph.tensors[op.output]
    numbers = _around(op.place, x - read.zero, written.shape[1:], 0)
    geometry = {"stride": op.place.stride, "pad": (0, 0), "dilation": op.place.dilation, "group": op.group}
    sums = interpret.convolve(numbers, op.weights, geometry) + op.bias.reshape(1, -1, 1, 1)
    sums = sums[:, :, : written.shape[1], : written.shape[2]]
    real = np.float64(read.scale) * op.scale.astype(np.float64) / written.scale
    multiplier, shift = (part.reshape(1, -1, 1, 1) for part in multiplier_of(real))
    return _stored(graph, op.output, multiplied(sums, multiplier, shift, rounding), op.relu)


def _add(graph: Graph, op: ops.Add, left: np.ndarray, right: np.ndarray, rounding: str) -> np.ndarray:
    first, second = (graph.tensors[name] for name in op.inputs)
    largest = 2 * max(first.scale, second.scale)

    def scaled(x: np.ndarray, tensor: ops.Quantized) -> np.ndarray:
        return multiplied((x - tensor.zero) << ADD_BITS, *multiplier_of(np.array(tensor.scale / largest)), rounding)

    a, b = scaled(left, first), scaled(right, second)
    real = largest / (2**ADD_BITS * graph.tensors[op.output].scale)
    total = multiplied(a - b if op.subtract else a + b, *multiplier_of(np.array(real)), rounding)
    return _stored(graph, op.output, total, op.relu)


def _mean(graph: Graph, op: ops.Mean, x: np.ndarray, rounding: str) -> np.ndarray:
    read, written = graph.tensors[op.input], graph.tensors[op.output]
    sums = (x - read.zero).sum((2, 3), keepdims=True)
    return _stored(graph, op.output, mean_of(sums, x.shape[2] * x.shape[3], read.scale / written.scale, rounding))


def _requantize(graph: Graph, op: ops.Requantize, x: np.ndarray, rounding: str) -> np.ndarray:
    read, written = graph.tensors[op.input], graph.tensors[op.output]
    real = np.array(read.scale / written.scale)
    return _stored(graph, op.output, multiplied(x - read.zero, *multiplier_of(real), rounding))


def _max_pool(graph: Graph, op: ops.MaxPool, x: np.ndarray, rounding: str) -> np.ndarray:
    rows, columns = graph.tensors[op.output].shape[1:]
    x = _around(op.place, x, (rows, columns), LOWEST)
    view = interpret.windows(x, op.place.kernel, op.place.stride, (0, 0), (1, 1), LOWEST)
    return np.asarray(view[:, :, :rows, :columns].max((4, 5)))


def _pad(graph: Graph, op: ops.Pad, x: np.ndarray, rounding: str) -> np.ndarray:
    return np.pad(x, [(0, 0), *op.widths], constant_values=op.value)


def _concatenate(graph: Graph, op: ops.Concatenate, *parts: Any) -> np.ndarray:
    return np.concatenate(parts[:-1], 1)


def _maximum(graph: Graph, op: ops.Maximum, x: np.ndarray, rounding: str) -> np.ndarray:
    return np.maximum(x, op.value)


KERNELS: dict[type, Callable[..., np.ndarray]] = {
    ops.Convolution: _convolution,
    ops.Add: _add,
    ops.Mean: _mean,
    ops.MaxPool: _max_pool,
    ops.Pad: _pad,
    ops.Concatenate: _concatenate,
    ops.Requantize: _requantize,
    ops.Maximum: _maximum,
}


def inputs_of(operation: ops.Operation) -> tuple[str, ...]:
    """Return the names of the tensors that an operation reads."""
    if isinstance(operation, (ops.Add, ops.Concatenate)):
        return operation.inputs
    return (operation.input,)


def run(graph: Graph, pixels: np.ndarray, rounding: str = "double") -> dict[str, np.ndarray]:
    """Run a graph on images.

    Args:
        graph: the network.
        pixels: uint8 (N, C, H, W).
        rounding: "double" or "single"; see `nnmpq.export.tflite.rounding`.

    Returns:
        What stands in every tensor by name, int64 (N, C, H, W), from -128 to 127.
    """
    values = {graph.input.name: pixels.astype(np.int64) + graph.input.zero}
    for operation in graph.operations:
        parts = [values[name] for name in inputs_of(operation)]
        values[operation.output] = KERNELS[type(operation)](graph, operation, *parts, rounding)
    return values

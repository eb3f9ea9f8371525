"""A graph as the bytes of a TensorFlow Lite file, operation by operation."""

from __future__ import annotations

from typing import Any, Callable

import numpy as np

from nnmpq.export.tflite import graph as ops
from nnmpq.export.tflite.file import Writer, packed_weights
from nnmpq.export.tflite.graph import Graph


def _convolution(writer: Writer, op: ops.Convolution) -> None:
    read = writer.graph.tensors[op.input]
    outputs = len(op.weights)
    # Depthwise weights are one map of rows and columns with all channels.
    stored, axis = (op.weights.transpose(3, 1, 2, 0), 3) if op.depthwise else (op.weights, 0)
    data = packed_weights(np.ascontiguousarray(stored), op.bits)
    weights = writer.tensor(op.name, stored.shape, "INT4" if op.bits == 4 else "INT8", data)
    writer.quantize(weights, op.scale, 0, axis)
    bias = writer.integers(f"{op.name}/bias", op.bias)
    writer.quantize(bias, op.scale * np.float32(read.scale), 0)
    fields: dict[str, Any] = {**writer.padding(op.place), "fusedActivationFunction": writer.relu(op.relu)}
    fields.update(dilationHFactor=op.place.dilation[0], dilationWFactor=op.place.dilation[1])
    inputs = [writer.places[op.input], weights, bias]
    if op.depthwise:
        fields["depthMultiplier"] = outputs // op.group
        writer.operator("DEPTHWISE_CONV_2D", inputs, op.output, "DepthwiseConv2DOptions", **fields)
    else:
        writer.operator("CONV_2D", inputs, op.output, "Conv2DOptions", **fields)


def _add(writer: Writer, op: ops.Add) -> None:
    inputs = [writer.places[name] for name in op.inputs]
    kind, options = ("SUB", "SubOptions") if op.subtract else ("ADD", "AddOptions")
    writer.operator(kind, inputs, op.output, options, fusedActivationFunction=writer.relu(op.relu))


def _mean(writer: Writer, op: ops.Mean) -> None:
    axes = writer.integers(f"{op.output}/axes", [1, 2])
    writer.operator("MEAN", [writer.places[op.input], axes], op.output, "ReducerOptions", keepDims=True)


def _max_pool(writer: Writer, op: ops.MaxPool) -> None:
    kernel = {"filterHeight": op.place.kernel[0], "filterWidth": op.place.kernel[1]}
    inputs = [writer.places[op.input]]
    writer.operator("MAX_POOL_2D", inputs, op.output, "Pool2DOptions", **writer.padding(op.place), **kernel)


def _pad(writer: Writer, op: ops.Pad) -> None:
    channels, rows, columns = op.widths
    inputs = [writer.places[op.input], writer.integers(f"{op.output}/widths", [(0, 0), rows, columns, channels])]
    if op.value == writer.graph.tensors[op.input].zero:
        writer.operator("PAD", inputs, op.output, "PadOptions")
    else:
        writer.operator("PADV2", [*inputs, writer.constant(op.input, op.value)], op.output, "PadV2Options")


def _concatenate(writer: Writer, op: ops.Concatenate) -> None:
    inputs = [writer.places[name] for name in op.inputs]
    writer.operator("CONCATENATION", inputs, op.output, "ConcatenationOptions", axis=3)


def _requantize(writer: Writer, op: ops.Requantize) -> None:
    writer.operator("QUANTIZE", [writer.places[op.input]], op.output, "QuantizeOptions")


def _maximum(writer: Writer, op: ops.Maximum) -> None:
    inputs = [writer.places[op.input], writer.constant(op.input, op.value)]
    writer.operator("MAXIMUM", inputs, op.output, "MaximumMinimumOptions")


WRITERS: dict[type, Callable[[Writer, Any], None]] = {
    ops.Convolution: _convolution,
    ops.Add: _add,
    ops.Mean: _mean,
    ops.MaxPool: _max_pool,
    ops.Pad: _pad,
    ops.Concatenate: _concatenate,
    ops.Requantize: _requantize,
    ops.Maximum: _maximum,
}


def file_of(graph: Graph) -> bytes:
    """Return a graph as a TensorFlow Lite file: pixels - 128, INT8 (1, H, W, C), to logits, INT8 (1, 1, 1, classes).

    Args:
        graph: from `nnmpq.export.tflite.lower.lower`.

    Raises:
        ExportError: the package with the schema is not installed.

    Source:
        TensorFlow Lite schema, version 3.
    """
    writer = Writer(graph)
    writer.activation(graph.input)
    for operation in graph.operations:
        WRITERS[type(operation)](writer, operation)
    return writer.bytes()

"""An integer program as ONNX, operation by operation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Callable

import numpy as np

from nnmpq.export.integer import program as ir
from nnmpq.export.integer.layers import sum_range
from nnmpq.export.integer.program import Program
from nnmpq.export.onnx.model import OPSET, WEIGHT_TYPES, Model, Value, container, is_power_of_two, onnx_module, scale_of
from nnmpq.export.onnx.requantise import requantise

WEIGHTS = "/W"


def _pixels(model: Model, operation: ir.Pixels) -> None:
    tensor = model.program.tensors[operation.output]
    name = model.node("Cast", [operation.inputs[0]], f"{tensor.name}/pixels", to=1)
    channels = len(operation.requantiser.bias)
    low, high = np.zeros(channels, np.int64), np.full(channels, model.program.input.high, np.int64)
    requantise(model, Value(name, 1.0), operation.requantiser, low, high, tensor)


def _convolve(model: Model, operation: ir.Convolve) -> None:
    read, tensor = (model.program.tensors[name] for name in (operation.inputs[0], operation.output))
    x = model.values[read.name]
    numbers = operation.numbers.transpose(0, 3, 1, 2)
    kind = container(int(operation.levels.min()), int(operation.levels.max()), WEIGHT_TYPES)
    assert kind is not None
    weights = _whole(model, f"{operation.layer}{WEIGHTS}", numbers, kind[0])
    geometry = {
        "strides": operation.stride,
        "pads": operation.pad * 2,
        "dilations": operation.dilation,
        "group": operation.group,
    }
    sums = model.node("Conv", [x.name, weights], f"{operation.layer}/sum", **geometry)
    low, high = sum_range(operation.numbers, read)
    requantise(model, Value(sums, x.scale), operation.requantiser, low, high, tensor)


def _whole(model: Model, name: str, numbers: np.ndarray, kind: str) -> str:
    """Weights as whole numbers; their step is in the multiplication behind the sum."""
    stored = model.integers(name, numbers, kind)
    one = model.constant(f"{name}/one", np.float32(1))
    return model.node("DequantizeLinear", [stored, one], f"{name}/value")


def _sum(model: Model, operation: ir.Sum) -> None:
    tensor = model.program.tensors[operation.output]
    parts = [model.values[name] for name in operation.inputs]
    read = [model.program.tensors[name] for name in operation.inputs]
    units = [part.scale / multiplier for part, multiplier in zip(parts, operation.multipliers)]
    # Where all are worth the same, the real numbers can be added as they stand.
    unit = units[0] if len(set(units)) == 1 and units[0] > 0 and is_power_of_two(units[0]) else 1.0
    names = [
        model.times(part.name, multiplier * unit / part.scale, f"{tensor.name}/operand{place}")
        for place, (part, multiplier) in enumerate(zip(parts, operation.multipliers))
    ]
    total = names[0]
    for place, name in enumerate(names[1:]):
        total = model.node("Add", [total, name], f"{tensor.name}/sum{place}")
    ends = [sorted((m * t.low, m * t.high)) for m, t in zip(operation.multipliers, read)]
    channels = len(operation.requantiser.bias)
    low, high = (np.full(channels, sum(pair[side] for pair in ends), np.int64) for side in (0, 1))
    requantise(model, Value(total, unit), operation.requantiser, low, high, tensor)


def _average_pool(model: Model, operation: ir.AveragePool) -> None:
    read, tensor = (model.program.tensors[name] for name in (operation.inputs[0], operation.output))
    x = model.values[read.name]
    elements = operation.kernel[0] * operation.kernel[1]
    geometry = {"strides": operation.stride, "pads": operation.pad * 2}
    name = f"{tensor.name}/window"
    if is_power_of_two(elements):
        name = model.node("AveragePool", [x.name], name, kernel_shape=operation.kernel, count_include_pad=1, **geometry)
        sums = Value(name, x.scale / elements)
    else:
        # A division by 9 would round; sums do not.
        ones = np.ones((read.shape[0], 1, *operation.kernel), np.int64)
        weights = _whole(model, f"{name}/ones", ones, "INT4")
        sums = Value(model.node("Conv", [x.name, weights], name, group=read.shape[0], **geometry), x.scale)
    channels = len(operation.requantiser.bias)
    low, high = (np.full(channels, end * elements, np.int64) for end in (min(read.low, 0), max(read.high, 0)))
    requantise(model, sums, operation.requantiser, low, high, tensor)


def _max_pool(model: Model, operation: ir.MaxPool) -> None:
    read, tensor = (model.program.tensors[name] for name in (operation.inputs[0], operation.output))
    x = model.values[read.name]
    after = [
        # The last windows may hang over the edge.
        max((tensor.shape[axis + 1] - 1) * operation.stride[axis] + operation.kernel[axis] - length - pad, 0)
        for axis, (length, pad) in enumerate(zip(read.shape[1:], operation.pad))
    ]
    geometry = {"kernel_shape": operation.kernel, "strides": operation.stride, "pads": (*operation.pad, *after)}
    model.values[tensor.name] = Value(model.node("MaxPool", [x.name], tensor.name, **geometry), x.scale)


def _select(model: Model, operation: ir.Select) -> None:
    read, tensor = (model.program.tensors[name] for name in (operation.inputs[0], operation.output))
    x = model.values[read.name]
    name = x.name
    if operation.stride != (1, 1):
        parts = {"starts": [0, 0], "ends": read.shape[1:], "axes": [2, 3], "steps": operation.stride}
        inputs = [model.constant(f"{tensor.name}/{key}", numbers, np.int64) for key, numbers in parts.items()]
        name = model.node("Slice", [name, *inputs], f"{tensor.name}/sliced")
    after = tensor.shape[0] - operation.before - read.shape[0]
    if operation.before or after:
        pads = model.constant(f"{tensor.name}/pads", [0, operation.before, 0, 0, 0, after, 0, 0], np.int64)
        name = model.node("Pad", [name, pads], f"{tensor.name}/padded")
    model.values[tensor.name] = Value(name, x.scale)


def _concatenate(model: Model, operation: ir.Concatenate) -> None:
    tensor = model.program.tensors[operation.output]
    scale = scale_of(tensor)
    names = []
    for place, (name, multiplier) in enumerate(zip(operation.inputs, operation.multipliers)):
        x = model.values[name]
        names.append(model.times(x.name, multiplier * scale / x.scale, f"{tensor.name}/part{place}"))
    model.values[tensor.name] = Value(model.node("Concat", names, tensor.name, axis=1), scale)


WRITERS: dict[type, Callable] = {
    ir.Pixels: _pixels,
    ir.Convolve: _convolve,
    ir.Sum: _sum,
    ir.AveragePool: _average_pool,
    ir.MaxPool: _max_pool,
    ir.Select: _select,
    ir.Concatenate: _concatenate,
}


def model_of(program: Program, metadata: Mapping[str, str] | None = None, *, sites: bool = False) -> Any:
    """Return a program as an ONNX model: pixels, uint8 (N, C, H, W), to logits, float32 (N, classes).

    Weights and activations are whole numbers in INT4 and INT8 with DequantizeLinear behind them; float32 holds their
    sums exactly, and one multiplication and one addition a channel, clear of every tie, lead to QuantizeLinear.

    Args:
        program: the integer program.
        metadata: strings to store with it.
        sites: make every quantized activation an output too, by its name.

    Raises:
        ExportError: onnx is not installed, or float32 cannot hold what the program computes.

    Source:
        Operators: the ONNX specification, opset 21. QuantizeLinear rounds ties to even, the trained network away from
        zero; the requantiser's line lies between the sums, where no tie can be.
    """
    onnx = onnx_module()
    helper, kinds = onnx.helper, onnx.TensorProto
    model = Model(program)
    for operation in program.operations:
        WRITERS[type(operation)](model, operation)
    classes = program.tensors[program.output].shape[0]
    outputs = [helper.make_tensor_value_info(model.values[program.output].name, kinds.FLOAT, ["N", classes])]
    if sites:
        for tensor in program.sites:
            name, kind = model.stored.get(tensor.name, (model.values[tensor.name].name, "FLOAT"))
            outputs.append(helper.make_tensor_value_info(name, getattr(kinds, kind), ["N", *tensor.shape]))
    pixels = helper.make_tensor_value_info(program.input.name, kinds.UINT8, ["N", *program.input.shape])
    name = program.name or "network"
    graph = helper.make_graph(model.nodes, name, [pixels], outputs, list(model.constants.values()))
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="nnmpq")
    # Newer packages write versions of the format that runtimes of this opset do not read yet.
    made.ir_version = 10
    helper.set_model_props(made, dict(metadata or {}))
    onnx.checker.check_model(made, full_check=True)
    return made


def site_outputs(program: Program, model: Any) -> dict[str, str]:
    """Return the outputs of a model with `sites` by the name of their site."""
    names = [output.name for output in model.graph.output][1:]
    return dict(zip((tensor.name for tensor in program.sites), names))


def weight_bytes(model: Any) -> int:
    """Return the bytes of the weights in a model."""
    return sum(len(c.raw_data) for c in model.graph.initializer if c.name.endswith(WEIGHTS))

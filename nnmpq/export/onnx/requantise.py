"""From a sum to the next tensor: a line, a clip to the real levels, and a quantize-dequantize pair."""

from __future__ import annotations

import numpy as np

from nnmpq.export.integer.program import Requantiser, Tensor
from nnmpq.export.onnx.line import FloatLine, Stairs, float_line, stairs
from nnmpq.export.onnx.model import ACTIVATION_TYPES, Model, Value, container, scale_of


def requantise(model: Model, sums: Value, made: Requantiser, low: np.ndarray, high: np.ndarray, tensor: Tensor) -> None:
    """Write what turns sums into a tensor.

    Args:
        model: the graph.
        sums: whole numbers times a scale.
        made: the requantiser.
        low: smallest sum of each channel.
        high: largest.
        tensor: what the requantiser makes.

    Raises:
        ExportError: float32 cannot tell the sums apart.
    """
    scale = scale_of(tensor)
    if tensor.name == model.program.output:
        _logits(model, sums, made, tensor, scale)
    elif tensor.bits == 32 and not tensor.site:
        # Kept as they are, for a batch normalization behind a pooling.
        name = model.times(sums.name, scale / sums.scale, tensor.name)
        model.values[tensor.name] = Value(name, scale)
    elif made.edges is None:
        line = float_line(made, low, high, tensor.name)
        name = _along(model, sums, line, tensor, scale)
        _pair(model, name, tensor, scale, (line.low, line.high))
    else:
        _pair(model, _climb(model, sums, stairs(made, low, high, tensor.name), tensor, scale), tensor, scale, None)


def _column(numbers: np.ndarray) -> np.ndarray:
    return numbers.reshape(-1, 1, 1)


def _logits(model: Model, sums: Value, made: Requantiser, tensor: Tensor, scale: float) -> None:
    power = 2.0 ** made.shift.astype(np.float64)
    half = np.where(made.shift > 0, 0.5, 0.0)
    offset = (made.bias / power - half + made.low) * scale
    name = model.times(sums.name, _column(made.multiplier / power * scale / sums.scale), f"{tensor.name}/scaled")
    name = model.node("Add", [name, model.constant(f"{tensor.name}/offset", _column(offset))], f"{tensor.name}/map")
    model.values[tensor.name] = Value(model.node("Flatten", [name], tensor.name, axis=1), scale)


def _along(model: Model, sums: Value, line: FloatLine, tensor: Tensor, scale: float) -> str:
    name = tensor.name
    # Scales are powers of two: both products are exact.
    slope, offset = line.slope * np.float32(scale / sums.scale), line.offset * np.float32(scale)
    found = model.node("Mul", [sums.name, model.constant(f"{name}/slope", _column(slope))], f"{name}/scaled")
    found = model.node("Add", [found, model.constant(f"{name}/offset", _column(offset))], f"{name}/line")
    if not line.exception_sum.shape[1]:
        return found
    apart = model.node("Unsqueeze", [sums.name, model.constant(f"{name}/last", [4], np.int64)], f"{name}/apart")
    shape = (-1, 1, 1, line.exception_sum.shape[1])
    listed = model.constant(f"{name}/exceptions", (line.exception_sum * sums.scale).reshape(shape))
    numbers = model.constant(f"{name}/numbers", (line.exception_number * scale).reshape(shape))
    equal = model.node("Equal", [apart, listed], f"{name}/equal")
    hit = model.node("Cast", [equal], f"{name}/hit", to=1)
    last = f"{name}/last"
    met = model.node("ReduceMax", [hit, last], f"{name}/met", keepdims=0)
    given = model.node(
        "ReduceSum", [model.node("Mul", [hit, numbers], f"{name}/each"), last], f"{name}/given", keepdims=0
    )
    listed_here = model.node("Cast", [met], f"{name}/listed", to=9)
    return model.node("Where", [listed_here, given, found], f"{name}/corrected")


def _climb(model: Model, sums: Value, made: Stairs, tensor: Tensor, scale: float) -> str:
    name = tensor.name
    last = model.constant(f"{name}/last", [4], np.int64)
    found = model.times(sums.name, _column(made.sign / np.float32(sums.scale)), f"{name}/signed")
    apart = model.node("Unsqueeze", [found, last], f"{name}/apart")
    threshold = model.constant(f"{name}/thresholds", made.threshold.reshape(-1, 1, 1, made.threshold.shape[1]))
    reached = model.node("GreaterOrEqual", [apart, threshold], f"{name}/reached")
    steps = model.node("Cast", [reached], f"{name}/steps", to=1)
    rises = model.node("Mul", [steps, model.constant(f"{name}/rises", made.rise * scale)], f"{name}/risen")
    total = model.node("ReduceSum", [rises, last], f"{name}/total", keepdims=0)
    return model.node("Add", [total, model.constant(f"{name}/first", [made.first * scale])], f"{name}/line")


def _pair(model: Model, name: str, tensor: Tensor, scale: float, ends: tuple[int, int] | None) -> None:
    """Clip, quantize and dequantize; numbers too large for any container stay as they are, exact in float32."""
    low, high = ends or (tensor.low, tensor.high)
    kind = container(low, high, ACTIVATION_TYPES)
    if kind is None:
        model.values[tensor.name] = Value(name, scale)
        return
    if ends is not None and (low, high) != kind[1:]:
        clip = [
            model.constant(f"{tensor.name}/{end}", np.float32(n * scale)) for end, n in (("low", low), ("high", high))
        ]
        name = model.node("Clip", [name, *clip], f"{tensor.name}/clipped")
    step = model.constant(f"{tensor.name}/step", np.float32(scale))
    zero = model.constant(f"{tensor.name}/zero", 0, np.dtype(kind[0].lower()))
    stored = model.node("QuantizeLinear", [name, step, zero], f"{tensor.name}/levels")
    model.stored[tensor.name] = (stored, kind[0])
    value = model.node("DequantizeLinear", [stored, step, zero], f"{tensor.name}/value")
    model.values[tensor.name] = Value(value, scale)

"""Convolutions, depthwise convolutions and affines, the last one included."""

from __future__ import annotations

from typing import Any

import attrs
import nnabla as nn
import numpy as np

from nnmpq.export.integer import program as ir
from nnmpq.export.integer.chain import CLIPS, Chain, Link
from nnmpq.export.integer.levels import SiteGrid
from nnmpq.export.integer.logits import logits_requantiser
from nnmpq.export.integer.lowering import Lowering
from nnmpq.export.integer.moves import pair, read
from nnmpq.export.integer.program import ExportError, Requantiser, Tensor
from nnmpq.export.integer.requantise import LARGEST_SUM, as_it_is
from nnmpq.export.integer.weights import integer_weights

LOGITS = "logits"
# Stands in an operation until its own is known.
PENDING = Requantiser(np.zeros(1, np.int32), np.zeros(1, np.int64), np.zeros(1, np.uint8), 1, 0)


@attrs.frozen(eq=False)
class _Sums:
    """A layer up to its sums: the operation, with a requantiser still to come, the chain behind it and its units."""

    operation: ir.Convolve
    chain: Chain
    unit: np.ndarray
    low: np.ndarray
    high: np.ndarray


def _sums(state: Lowering, links: list[Link], function: Any, name: str) -> _Sums:
    layer = state.traced.layers[function]
    weight = layer.weight.name
    if layer.kind == "deconvolution":
        raise ExportError(f"{layer.name}: a deconvolution has no integer form here")
    if weight not in state.baked.codes:
        raise ExportError(f"{weight}: this weight is float. Set w_quantize, or keep = {weight}:8 for it alone")
    weights = integer_weights(state.baked.codes[weight], state.baked.grids[weight], weight)
    source = read(state, function.inputs[0], layer.name)
    index, geometry = _geometry(layer.kind, function, weights.index, source)
    low, high = sum_range(weights.levels[index], source)
    operation = ir.Convolve(
        (source.name,), name, layer.name, index, weights.levels, weights.bits, requantiser=PENDING, **geometry
    )
    chain = Chain(tuple(links), len(index), function.outputs[0].ndim, name, state.bias_of(function))
    # One unit a channel belongs to the output channels.
    return _Sums(operation, chain, np.ravel(weights.unit * source.step), low, high)


def lower_layer(state: Lowering, links: list[Link], function: Any, name: str, target: SiteGrid) -> ir.Convolve:
    """Lower a layer with a quantizer behind it.

    Args:
        state: of the lowering.
        links: functions between the two.
        function: the layer.
        name: of the site.
        target: its grid.

    Raises:
        ExportError: the layer has no integer form.
    """
    sums = _sums(state, links, function, name)
    requantiser = state.requantiser(sums.chain, sums.unit, sums.low, sums.high, target)
    return attrs.evolve(sums.operation, requantiser=requantiser)


def _geometry(kind: str, function: Any, index: np.ndarray, read: Tensor) -> tuple[np.ndarray, dict[str, Any]]:
    """Return the weights as (O, rows, columns, C / group) with stride, pad, dilation and group."""
    arguments = function.info.args
    if arguments["base_axis"] != 1 or arguments.get("channel_last"):
        raise ExportError(f"{function.info.type_name}: base_axis = 1 and channels first are needed")
    if kind == "affine":
        channels, rows, columns = read.shape
        outputs = int(np.prod(function.outputs[0].shape[1:]))
        kernel = index.reshape(channels, rows, columns, outputs).transpose(3, 1, 2, 0)
        plain = {"stride": (1, 1), "pad": (0, 0), "dilation": (1, 1), "group": 1}
        return np.ascontiguousarray(kernel), plain
    if index.ndim - (2 if kind == "convolution" else 1) != 2:
        raise ExportError(f"{function.info.type_name}: maps of rows and columns are needed")
    geometry = {key: pair(arguments[key]) for key in ("stride", "pad", "dilation")}
    if kind == "depthwise":
        return np.ascontiguousarray(index[..., None]), {**geometry, "group": read.shape[0]}
    return np.ascontiguousarray(index.transpose(0, 2, 3, 1)), {**geometry, "group": int(arguments["group"])}


def sum_range(numbers: np.ndarray, read: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Return the smallest and largest sum of each output channel, int64 (O,); zeros of the padding included.

    Args:
        numbers: weights, shape (O, ...).
        read: the tensor that they are multiplied with.
    """
    flat = numbers.reshape(len(numbers), -1).astype(np.int64)
    low, high = min(read.low, 0), max(read.high, 0)
    positive, negative = np.maximum(flat, 0).sum(1), np.minimum(flat, 0).sum(1)
    return positive * low + negative * high, positive * high + negative * low


def lower_raw(state: Lowering, function: Any) -> str:
    """Store a layer's sums as they are; return their tensor's name.

    Where pooling or concatenation stands between a layer and its batch normalization, there is no quantizer between
    the two; the sums take 32 bits each.

    Args:
        state: of the lowering.
        function: the layer.

    Raises:
        ExportError: it has a bias, or one step a channel.
    """
    name = f"{state.traced.layers[function].name}/sum"
    sums = _sums(state, [], function, name)
    if sums.chain.bias is not None or len(sums.unit) > 1:
        raise ExportError(f"{name}: sums with a bias, or of one step a channel, cannot be stored; quantize the output")
    low, high = int(sums.low.min()), int(sums.high.max())
    if max(-low, high) > LARGEST_SUM:
        raise ExportError(f"{name}: sums reach {max(-low, high)}, more than {LARGEST_SUM}")
    shape = (len(sums.low), *function.outputs[0].shape[2:], 1, 1)[:3]
    tensor = Tensor(name, shape, low, high, float(sums.unit[0]), 32, False)
    return state.add(attrs.evolve(sums.operation, requantiser=as_it_is(low, high, shape[0])), tensor)


def lower_output(state: Lowering, variable: nn.Variable) -> str:
    """Lower the last layer, whose sums are the logits; return their tensor's name.

    Args:
        state: of the lowering.
        variable: the network's output.

    Raises:
        ExportError: the output is computed by something else.
    """
    links, source = state.climb(variable)
    function = source.parent
    if function is None or function not in state.traced.layers:
        found = "nothing" if function is None else function.info.type_name
        raise ExportError(f"the output is computed by {found}; a layer's logits are needed, without softmax")
    if any(link.name in CLIPS for link in links):
        raise ExportError("the output is clipped: logits are needed")
    sums = _sums(state, links, function, LOGITS)
    made, step = logits_requantiser(sums.chain, sums.unit, sums.low, sums.high)
    classes = len(sums.operation.weights)
    tensor = Tensor(LOGITS, (classes, 1, 1), made.low, made.low + made.levels - 1, step, 32, False)
    return state.add(attrs.evolve(sums.operation, requantiser=made), tensor)

"""Convolutions, and what is written as one: pixels, changes of grid, average pooling."""

from __future__ import annotations

from typing import Callable

import attrs
import numpy as np

from nnmpq.export.integer import program as ir
from nnmpq.export.integer.layers import sum_range
from nnmpq.export.integer.program import ExportError, Requantiser, Tensor
from nnmpq.export.integer.saved import levels_of
from nnmpq.export.tflite.fit import LARGEST_BIAS, KernelLine, nearest_line
from nnmpq.export.tflite.graph import HIGHEST, LOWEST, Convolution, Mean, Pad, Placement, Quantized
from nnmpq.export.tflite.rounding import mean_of
from nnmpq.export.tflite.state import CONTAINERS, State, container_bits, per_channel, place_of, quantized, uniform

POINT = Placement((1, 1), (1, 1))
# A requantiser that is looked at at so many sums and differs from a change of scale at this share is written as one.
SAMPLES = 2**16
FEW = 0.01
LARGEST_ONES = 4096
LARGEST_REACH = 2**31 - 1 - 2 * int(LARGEST_BIAS)


def padded(state: State, read: Quantized, widths: tuple[tuple[int, int], ...], value: int, reader: str) -> Quantized:
    """Return a tensor with its map padded, itself where there is nothing to pad."""
    if not any(map(any, widths)):
        return read
    (above, below), (left, right) = widths
    channels, rows, columns = read.shape
    shape = (channels, rows + above + below, columns + left + right)
    made = attrs.evolve(read, name=f"{reader}/padded", shape=shape)
    state.graph.add(Pad(read.name, made.name, ((0, 0), widths[0], widths[1]), value), made)
    return made


def is_rescaling(made: Requantiser, slope: float, low: int, high: int) -> bool:
    """Whether a requantiser does no more than round(sum * slope), but for a few sums near ties.

    Args:
        made: the requantiser.
        slope: steps of the grid for one more in the sum.
        low: smallest sum.
        high: largest sum.

    Example:
        >>> halves = Requantiser(np.array([2], np.int32), np.array([2]), np.array([2], np.uint8), 8, 0)
        >>> is_rescaling(halves, 0.5, 0, 14), is_rescaling(halves, 0.6, 0, 14)  # (2 s + 2) >> 2
        (True, False)
    """
    if len(made.bias) > 1 or made.edges is not None:
        return False
    sums = np.unique(np.linspace(low, high, SAMPLES).astype(np.int64))
    rounded = np.sign(sums) * np.floor(np.abs(sums) * slope + 0.5)
    level = np.clip(rounded - made.low, 0, made.levels - 1)
    return bool(np.mean(level != levels_of(made)(sums[:, None])[:, 0]) <= FEW)


@attrs.frozen(eq=False)
class Products:
    """Sums of products of a tensor with weights.

    Args:
        read: the tensor in the graph, padded.
        name: of the weights.
        numbers: the weights as whole numbers, int64 (O, rows, columns, C / group).
        place: of the windows.
        group: groups of channels.
        low: smallest sum, int64, of each channel or of all.
        high: largest sum.
        counted: whether the policy counts these weights.
    """

    read: Quantized
    name: str
    numbers: np.ndarray
    place: Placement
    group: int
    low: np.ndarray
    high: np.ndarray
    counted: bool = True

    def container(self, multiplier: np.ndarray) -> tuple[int, int]:
        """Return the bits of the container, and what the weights can be multiplied by to fill it.

        Raises:
            ExportError: INT8 does not hold the weights, or 32 bits the sums.
        """
        signs = np.broadcast_to(np.where(multiplier < 0, -1, 1), (len(self.numbers),))
        bits = container_bits(self.numbers, self.group, signs, self.name) if self.counted else 8
        reach = max(-int(self.low.min()), int(self.high.max()), 1)
        fill = min(CONTAINERS[bits] // max(int(np.abs(self.numbers).max(initial=0)), 1), LARGEST_REACH // reach)
        if fill < 1 and reach > LARGEST_REACH:
            raise ExportError(f"{self.name}: sums reach {reach:,}; {LARGEST_REACH:,} leave room in 32 bits for a bias")
        return bits, max(fill, 1)


def convolution(state: State, products: Products, tensor: Tensor, made: Requantiser) -> None:
    """Append a convolution whose weights fill their container.

    Args:
        state: of the lowering.
        products: its sums.
        tensor: of the program, that is written.
        made: the requantiser.

    Raises:
        ExportError: weights or levels do not fit in INT8.
    """
    uniform(made, tensor.name)
    written = quantized(tensor)
    bits, fill = products.container(made.multiplier)
    unit = products.read.scale / written.scale
    line = per_channel(made, products.low, products.high, fill, unit, len(products.numbers))
    state.missed += int(line.missed.sum())
    lowest = int(np.clip(_smallest(products, line, fill), -(2**20), 2**20))
    make = _maker(products, line, bits, fill, tensor.low == 0)
    state.finish(make, written, tensor.low, tensor.low if tensor.low == 0 else lowest)


def _smallest(products: Products, line: KernelLine, fill: int) -> float:
    """The smallest number that any sum becomes."""
    sums = np.minimum(products.low * line.sign, products.high * line.sign) * ~line.flat
    return float(np.floor((fill * sums + line.bias) * line.rate + 0.5).min())


def _maker(products: Products, line: KernelLine, bits: int, fill: int, relu: bool) -> Callable[[str], Convolution]:
    weights = products.numbers * (fill * line.sign * ~line.flat).reshape(-1, 1, 1, 1)

    def make(output: str) -> Convolution:
        return Convolution(
            products.read.name,
            output,
            products.name,
            weights,
            bits,
            line.bias,
            line.scale,
            products.place,
            products.group,
            relu,
            products.counted,
        )

    return make


def pixels(state: State, operation: ir.Pixels) -> None:
    """Write the input's normalisation as a depthwise convolution of 1 x 1."""
    tensor, made = state.program.tensors[operation.output], operation.requantiser
    low = np.zeros(len(made.bias), np.int64)
    ones = np.ones((tensor.shape[0], 1, 1, 1), np.int64)
    high = low + state.program.input.high
    products = Products(state.graph.input, f"{tensor.name}/scale", ones, POINT, len(ones), low, high, False)
    convolution(state, products, tensor, made)


def layer(state: State, operation: ir.Convolve) -> None:
    """Write a layer."""
    source, read = state.read(operation.inputs[0])
    tensor, made = state.program.tensors[operation.output], operation.requantiser
    numbers = operation.numbers.astype(np.int64)
    sizes = (read.shape[1:], tensor.shape[1:])
    kernel = (numbers.shape[1], numbers.shape[2])
    place, widths = place_of(kernel, operation.stride, operation.dilation, operation.pad, sizes)
    read = padded(state, read, widths, read.zero, operation.layer)
    low, high = sum_range(numbers, source)
    products = Products(read, operation.layer, numbers, place, operation.group, low, high)
    if operation.output == state.program.output:
        _logits(state, products, tensor.step / state.logits.scale, made)
    else:
        convolution(state, products, tensor, made)


def _logits(state: State, products: Products, step: float, made: Requantiser) -> None:
    """The last layer: a fine grid of logits, rounded to INT8."""
    power = 2.0 ** made.shift.astype(np.float64)
    # Numbers of the fine grid are rounded down from `bias`, which has its half in it where it is shifted.
    half = np.where(made.shift > 0, 0.5, 0.0)
    slope, offset = made.multiplier / power * step, (made.bias / power + made.low - half) * step
    bits, fill = products.container(made.multiplier)
    reach = np.maximum(np.abs(products.low), np.abs(products.high)).astype(np.float64)
    line = nearest_line(slope, offset, reach, fill, products.read.scale / state.logits.scale)
    state.graph.add(_maker(products, line, bits, fill, False)(state.logits.name), state.logits)


def average_pool(state: State, operation: ir.AveragePool) -> None:
    """Write an average pooling: MEAN where it is one of the whole map, else a depthwise convolution with ones."""
    source, read = state.read(operation.inputs[0])
    tensor, made = state.program.tensors[operation.output], operation.requantiser
    channels, elements = read.shape[0], operation.kernel[0] * operation.kernel[1]
    written = quantized(tensor)
    whole = operation.kernel == read.shape[1:] and not any(operation.pad)
    ends = (elements * source.low, elements * source.high)
    if whole and is_rescaling(made, source.step / tensor.step / elements, *ends):
        sums = np.arange(ends[0], ends[1] + 1)
        found = np.clip(mean_of(sums, elements, read.scale / written.scale), tensor.low, tensor.high)
        # Rounded twice, the mean of 1, 0, 0, 0 is 1. Ones, which fill INT8, keep the first rounding fine.
        if elements * channels > LARGEST_ONES or np.array_equal(found, levels_of(made)(sums[:, None])[:, 0] + made.low):
            lowest = round(source.low * source.step / tensor.step) - 1 if source.low < 0 else 0
            state.finish(lambda output: Mean(read.name, output), written, tensor.low, lowest)
            return
    count = len(made.bias)
    low, high = (np.full(count, end * elements, np.int64) for end in (min(source.low, 0), max(source.high, 0)))
    sizes = (read.shape[1:], tensor.shape[1:])
    place, widths = place_of(operation.kernel, operation.stride, (1, 1), operation.pad, sizes)
    read = padded(state, read, widths, read.zero, tensor.name)
    ones = np.ones((channels, *operation.kernel, 1), np.int64)
    convolution(state, Products(read, f"{tensor.name}/ones", ones, place, channels, low, high, False), tensor, made)


def logits_tensor(tensor: Tensor, low: float, high: float) -> Quantized:
    """Return the INT8 tensor of logits between two real numbers.

    Args:
        tensor: of the program.
        low: smallest logit.
        high: largest logit.

    Example:
        >>> logits_tensor(Tensor("logits", (10, 1, 1), -9, 9, 1.0, 32, False), -10.0, 41.0)
        Quantized(name='logits', shape=(10, 1, 1), scale=0.20000000298023224, zero=-78)
    """
    low, high = min(low, 0.0), max(high, 0.0)
    scale = np.float32(max(high - low, 2.0**-20) / (HIGHEST - LOWEST))
    return Quantized(tensor.name, tensor.shape, float(scale), int(np.rint(LOWEST - low / scale)))

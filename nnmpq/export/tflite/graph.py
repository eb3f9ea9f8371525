"""A TensorFlow Lite graph as plain numbers: quantized tensors and the few operations that networks need."""

from __future__ import annotations

from typing import Union

import attrs
import numpy as np

LOWEST, HIGHEST = -128, 127


@attrs.frozen
class Quantized:
    """An INT8 tensor: what stands there as q is worth scale * (q - zero).

    Args:
        name: in the file.
        shape: (channels, rows, columns) of one image; the file has rows, columns, channels.
        scale: a float32.
        zero: what stands for 0, from -128 to 127.
    """

    name: str
    shape: tuple[int, int, int]
    scale: float
    zero: int


@attrs.frozen
class Placement:
    """Where windows lie on a map: before and after are zeros around it, rows then columns.

    Args:
        kernel: rows, columns.
        stride: rows, columns.
        dilation: rows, columns.
        before: rows above, columns left.
        same: whether the format's own SAME padding puts them there; otherwise there is no padding.
    """

    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int] = (1, 1)
    before: tuple[int, int] = (0, 0)
    same: bool = False


@attrs.frozen(eq=False)
class Convolution:
    """CONV_2D, or DEPTHWISE_CONV_2D where each group has one input channel.

    Args:
        input: name of the tensor that it reads.
        output: name of the tensor that it writes.
        name: of the weights.
        weights: whole numbers, int64 (O, rows, columns, C / group).
        bits: 4 or 8, the container of the weights.
        bias: int64 (O,), in 32 bits.
        scale: of the weights, float32 (O,).
        place: of the windows.
        group: groups of channels.
        relu: hold the result at or above 0.
        counted: whether the policy counts these weights; ones for pooling and the like are not in it.
    """

    input: str
    output: str
    name: str
    weights: np.ndarray
    bits: int
    bias: np.ndarray
    scale: np.ndarray
    place: Placement
    group: int
    relu: bool
    counted: bool = True

    @property
    def depthwise(self) -> bool:
        """Whether it is a DEPTHWISE_CONV_2D."""
        return self.group > 1 and self.weights.shape[3] == 1


@attrs.frozen
class Add:
    """ADD of two tensors, or SUB."""

    inputs: tuple[str, str]
    output: str
    subtract: bool
    relu: bool


@attrs.frozen
class Mean:
    """MEAN over all rows and columns, to another scale."""

    input: str
    output: str


@attrs.frozen
class MaxPool:
    """MAX_POOL_2D."""

    input: str
    output: str
    place: Placement


@attrs.frozen
class Pad:
    """PADV2: what stands around a map and before and after its channels.

    Args:
        input: name.
        output: name.
        widths: (before, after) of channels, rows and columns.
        value: what stands there.
    """

    input: str
    output: str
    widths: tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
    value: int


@attrs.frozen
class Concatenate:
    """CONCATENATION of channels."""

    inputs: tuple[str, ...]
    output: str


@attrs.frozen
class Requantize:
    """QUANTIZE to another scale and zero."""

    input: str
    output: str


@attrs.frozen
class Maximum:
    """MAXIMUM with a constant: the lower end of signed levels."""

    input: str
    output: str
    value: int


Operation = Union[Convolution, Add, Mean, MaxPool, Pad, Concatenate, Requantize, Maximum]


@attrs.define(eq=False)
class Graph:
    """A network in TensorFlow Lite's terms.

    Args:
        name: of the network.
        tensors: by name, the input first.
        operations: in execution order.
        output: name of the tensor of logits.
    """

    name: str
    tensors: dict[str, Quantized] = attrs.field(factory=dict)
    operations: list[Operation] = attrs.field(factory=list)
    output: str = ""

    def add(self, operation: Operation, tensor: Quantized) -> str:
        """Append an operation with the tensor that it writes; return the tensor's name."""
        self.operations.append(operation)
        self.tensors[tensor.name] = tensor
        return tensor.name

    @property
    def input(self) -> Quantized:
        """The tensor of pixels."""
        return next(iter(self.tensors.values()))

    def numbers(self, name: str, stored: np.ndarray) -> np.ndarray:
        """Return what stands in a tensor as whole numbers of its step."""
        return stored.astype(np.int64) - self.tensors[name].zero

"""The integer program: what a microcontroller computes, as plain numbers.

Every tensor holds whole numbers q that stand for q * step; a layer adds up products in 32 bits, and a `Requantiser`
turns the sum into the next tensor's number with one 32-bit multiplication, one 64-bit addition and one shift.
"""

from __future__ import annotations

from typing import Any, Union

import attrs
import numpy as np

TYPES = (("uint8", 0, 255), ("int8", -128, 127), ("int16", -(2**15), 2**15 - 1), ("int32", -(2**31), 2**31 - 1))


class ExportError(ValueError):
    """A network that cannot become the wanted file; the message says where and what to do."""


def storage(low: int, high: int) -> str:
    """Return the smallest type of `TYPES` that holds every number from low to high.

    Example:
        >>> storage(0, 200), storage(-7, 7), storage(0, 256)
        ('uint8', 'int8', 'int16')
    """
    for name, least, largest in TYPES:
        if least <= low and high <= largest:
            return name
    raise ExportError(f"numbers from {low} to {high} do not fit in 32 bits")


@attrs.frozen
class Tensor:
    """One stored tensor.

    Args:
        name: the site's name, or of what moves its numbers.
        shape: (channels, rows, columns).
        low: smallest number that it can hold.
        high: largest number that it can hold.
        step: what one stands for.
        bits: width that the policy counts, 32 for sums that are not quantized.
        site: whether the trained network has a quantizer here.
    """

    name: str
    shape: tuple[int, int, int]
    low: int
    high: int
    step: float
    bits: int
    site: bool

    @property
    def type(self) -> str:
        """The type that holds it in memory."""
        return storage(self.low, self.high)

    @property
    def elements(self) -> int:
        """Number of elements of one image."""
        return int(np.prod(self.shape))

    @property
    def bytes(self) -> int:
        """Bytes in memory of one image."""
        return self.elements * np.dtype(self.type).itemsize


@attrs.frozen(eq=False)
class Requantiser:
    """From a sum to a level: v = sum * multiplier + bias, then which level v lies in.

    Uniform grids: level = v >> shift, held between 0 and `levels` - 1, and the number is low + level. Others: level =
    how many edges are not above v, and the number is values[level]. A few sums have their level corrected.

    Args:
        multiplier: int32, shape (C,) or (1,).
        bias: int64, same shape; rounding and the grid's lower end are in it.
        shift: uint8, same shape.
        levels: how many there are.
        low: number of the lowest level.
        edges: int64, shape (levels - 1,), ascending; None for uniform grids.
        values: int32, shape (levels,), ascending; None for uniform grids.
        exception_channel: int32, shape (E,), ascending: channels of sums whose level the line misses.
        exception_sum: int32, shape (E,): the sums.
        exception_correction: int8, shape (E,): levels to add there.
    """

    multiplier: np.ndarray
    bias: np.ndarray
    shift: np.ndarray
    levels: int
    low: int
    edges: np.ndarray | None = None
    values: np.ndarray | None = None
    exception_channel: np.ndarray = attrs.field(factory=lambda: np.zeros(0, np.int32))
    exception_sum: np.ndarray = attrs.field(factory=lambda: np.zeros(0, np.int32))
    exception_correction: np.ndarray = attrs.field(factory=lambda: np.zeros(0, np.int8))

    @property
    def bytes(self) -> int:
        """Bytes that its tables take in flash."""
        shared = sum(a.nbytes for a in (self.edges, self.values) if a is not None)
        exceptions = len(self.exception_sum) * 5 + (2 * (len(self.bias) + 1) if len(self.exception_sum) else 0)
        shifts = 0 if self.edges is not None else len(self.bias)
        return len(self.bias) * 12 + shifts + shared + exceptions


@attrs.frozen(eq=False)
class Pixels:
    """The input: pixels from 0 to 255, normalised and quantized in one step."""

    inputs: tuple[str, ...]
    output: str
    requantiser: Requantiser


@attrs.frozen(eq=False)
class Convolve:
    """Convolution, depthwise (group = channels) or affine (a kernel as large as the map).

    Args:
        inputs: the tensor that it reads.
        output: the tensor that it writes.
        layer: name of the layer.
        weights: place of each weight in `levels`, uint8, shape (O, kernel rows, kernel columns, C / group).
        levels: numbers that a weight can be, int32, ascending.
        bits: width that a weight is packed at.
        stride: rows, columns.
        pad: rows, columns; of zeros.
        dilation: rows, columns.
        group: groups of channels.
        requantiser: per output channel.
    """

    inputs: tuple[str, ...]
    output: str
    layer: str
    weights: np.ndarray
    levels: np.ndarray
    bits: int
    stride: tuple[int, int]
    pad: tuple[int, int]
    dilation: tuple[int, int]
    group: int
    requantiser: Requantiser

    @property
    def numbers(self) -> np.ndarray:
        """The weights as whole numbers, int32."""
        return self.levels[self.weights]


@attrs.frozen(eq=False)
class Sum:
    """Sum of multiples of its inputs, element by element; of one input a change of grid."""

    inputs: tuple[str, ...]
    output: str
    multipliers: tuple[int, ...]
    requantiser: Requantiser


@attrs.frozen(eq=False)
class AveragePool:
    """Sum over windows; the division is in the requantiser."""

    inputs: tuple[str, ...]
    output: str
    kernel: tuple[int, int]
    stride: tuple[int, int]
    pad: tuple[int, int]
    requantiser: Requantiser


@attrs.frozen(eq=False)
class MaxPool:
    """Largest number of each window; what lies outside the map does not count."""

    inputs: tuple[str, ...]
    output: str
    kernel: tuple[int, int]
    stride: tuple[int, int]
    pad: tuple[int, int]


@attrs.frozen(eq=False)
class Select:
    """Every stride-th row and column, with channels of zeros before and after."""

    inputs: tuple[str, ...]
    output: str
    stride: tuple[int, int]
    before: int


@attrs.frozen(eq=False)
class Concatenate:
    """Channels of all inputs, each times its multiplier, so that they share one step."""

    inputs: tuple[str, ...]
    output: str
    multipliers: tuple[int, ...]


Operation = Union[Pixels, Convolve, Sum, AveragePool, MaxPool, Select, Concatenate]
OPERATIONS: dict[str, Any] = {
    "pixels": Pixels,
    "convolve": Convolve,
    "sum": Sum,
    "average_pool": AveragePool,
    "max_pool": MaxPool,
    "select": Select,
    "concatenate": Concatenate,
}


def kind_of(operation: Operation) -> str:
    """Return the name of an operation in `OPERATIONS`."""
    return next(name for name, type_ in OPERATIONS.items() if isinstance(operation, type_))


@attrs.frozen(eq=False)
class Program:
    """A network as integer operations in execution order.

    Args:
        name: of the network.
        tensors: by name, the pixels first.
        operations: in execution order.
        output: name of the tensor of logits; a logit is number * step.
    """

    name: str
    tensors: dict[str, Tensor]
    operations: tuple[Operation, ...]
    output: str

    @property
    def input(self) -> Tensor:
        """The pixels."""
        return next(iter(self.tensors.values()))

    @property
    def sites(self) -> list[Tensor]:
        """The tensors at which the trained network has a quantizer."""
        return [tensor for tensor in self.tensors.values() if tensor.site]

"""What is known of a program while it becomes a TensorFlow Lite graph."""

from __future__ import annotations

from typing import Callable

import attrs
import numpy as np

from nnmpq.export.integer.program import ExportError, Program, Requantiser, Tensor
from nnmpq.export.tflite.fit import KernelLine, fit_line
from nnmpq.export.tflite.graph import HIGHEST, LOWEST, Graph, Maximum, Operation, Placement, Quantized

# The fullest numbers of the containers: both ends, so that a sign can change.
CONTAINERS = {4: 7, 8: 127}


@attrs.define(eq=False)
class State:
    """A graph in the making; lives for one call of `nnmpq.export.tflite.lower.lower`.

    Args:
        program: where it comes from.
        graph: the graph so far.
        logits: its last tensor.
        missed: sums that come into another level than the program's, of all layers.
    """

    program: Program
    graph: Graph
    logits: Quantized
    missed: int = 0

    def read(self, name: str) -> tuple[Tensor, Quantized]:
        """Return a tensor of the program and what stands for it in the graph."""
        return self.program.tensors[name], self.graph.tensors[name]

    def finish(self, make: Callable[[str], Operation], made: Quantized, low: int, lowest: int) -> None:
        """Append an operation; where it can go below the tensor's levels, a MAXIMUM behind it.

        Args:
            make: the operation by the name of its output.
            made: the tensor.
            low: its lowest number.
            lowest: the lowest number that the operation can come to, before INT8 holds it.
        """
        if max(lowest + made.zero, LOWEST) >= low + made.zero:
            self.graph.add(make(made.name), made)
            return
        below = attrs.evolve(made, name=f"{made.name}/unclipped")
        self.graph.add(make(below.name), below)
        self.graph.add(Maximum(below.name, made.name, low + made.zero), made)


def quantized(tensor: Tensor) -> Quantized:
    """Return what stands for a tensor of the program: its highest number at 127, where INT8 ends by itself.

    Raises:
        ExportError: the tensor has more numbers than INT8.

    Example:
        >>> quantized(Tensor("relu", (4, 8, 8), 0, 15, 0.25, 4, True))
        Quantized(name='relu', shape=(4, 8, 8), scale=0.25, zero=112)
    """
    if tensor.bits == 32:
        raise ExportError(
            f"{tensor.name}: sums of 32 bits have no place in TensorFlow Lite's INT8 networks; quantize them "
            "(activation_sites = input, relu, sum, branch, pool), or export --to c99"
        )
    if tensor.high - tensor.low > HIGHEST - LOWEST or not 0 <= tensor.high <= HIGHEST - LOWEST:
        raise ExportError(f"{tensor.name}: numbers from {tensor.low} to {tensor.high} do not fit in INT8 around 0")
    return Quantized(tensor.name, tensor.shape, float(np.float32(tensor.step)), HIGHEST - tensor.high)


def uniform(made: Requantiser, name: str) -> None:
    """Make sure that levels are evenly spaced.

    Raises:
        ExportError: they are powers of two.
    """
    if made.edges is not None:
        raise ExportError(
            f"{name}: activations that are powers of two have no form in TensorFlow Lite; use a uniform quantizer for "
            "activations, or export --to c99"
        )


def container_bits(numbers: np.ndarray, group: int, signs: np.ndarray, name: str) -> int:
    """Return 4 or 8: the smallest container of some weights, of both signs where a channel's sign changes.

    Args:
        numbers: whole numbers (O, rows, columns, C / group).
        group: groups of channels.
        signs: 1 or -1 of each channel.
        name: for messages.

    Raises:
        ExportError: INT8 does not hold them.

    Example:
        >>> weights = np.array([-7, 7]).reshape(2, 1, 1, 1)
        >>> [container_bits(weights * k, 1, np.ones(2), "w") for k in (1, 2)]
        [4, 8]
    """
    signed = numbers * signs.astype(np.int64).reshape(-1, 1, 1, 1)
    low, high = int(signed.min(initial=0)), int(signed.max(initial=0))
    # CMSIS-NN has no kernel for groups of several channels with INT4 weights.
    if low >= -8 and high <= 7 and (group == 1 or numbers.shape[3] == 1):
        return 4
    if low >= LOWEST and high <= HIGHEST:
        return 8
    raise ExportError(
        f"{name}: weights from {low} to {high} steps do not fit in INT8; lower w_bitwidth_max, or export --to c99"
    )


def place_of(
    kernel: tuple[int, int],
    stride: tuple[int, int],
    dilation: tuple[int, int],
    pad: tuple[int, int],
    sizes: tuple[tuple[int, int], tuple[int, int]],
) -> tuple[Placement, tuple[tuple[int, int], ...]]:
    """Return where windows lie, and (before, after) of rows and columns that must be padded before.

    Args:
        kernel: rows, columns.
        stride: rows, columns.
        dilation: rows, columns.
        pad: rows above and columns left.
        sizes: of the map that is read, and of the one that is written.

    Example:
        >>> place_of((3, 3), (2, 2), (1, 1), (1, 1), ((8, 8), (4, 4)))[1]  # SAME would begin at the first row
        ((1, 0), (1, 0))
        >>> place_of((3, 3), (1, 1), (1, 1), (1, 1), ((8, 8), (8, 8)))[0].same
        True
    """
    needed, same = [], True
    for axis in (0, 1):
        read, written = sizes[0][axis], sizes[1][axis]
        total = max((written - 1) * stride[axis] + dilation[axis] * (kernel[axis] - 1) + 1 - read, 0)
        same &= written == -(-read // stride[axis]) and total // 2 == pad[axis]
        needed.append((pad[axis], max(total - pad[axis], 0)))
    if same:
        return Placement(kernel, stride, dilation, pad, True), ((0, 0), (0, 0))
    return Placement(kernel, stride, dilation), tuple(needed)


def per_channel(
    made: Requantiser, low: np.ndarray, high: np.ndarray, fill: int, unit: float, channels: int
) -> KernelLine:
    """Return `fit_line` with an entry for each channel, also where the requantiser has one for all."""
    line = fit_line(made, low, high, fill, unit)
    return line if len(line.bias) == channels else KernelLine(*(np.repeat(v, channels) for v in attrs.astuple(line)))

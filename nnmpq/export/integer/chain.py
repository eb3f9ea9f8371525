"""What the trained network does between a layer's sum and the next quantizer, element by element."""

from __future__ import annotations

from typing import Any, Callable

import attrs
import nnabla as nn
import nnabla.functions as F
import numpy as np

from nnmpq.export.integer.program import ExportError
from nnmpq.graph.rewrite import copy_function

Line = tuple[np.ndarray, np.ndarray]


@attrs.frozen(eq=False)
class Link:
    """One function of a chain.

    Args:
        function: of the float graph.
        position: which of its inputs the chain comes through; the others are constants.
    """

    function: Any
    position: int = 0

    @property
    def name(self) -> str:
        """Type name of the function."""
        return self.function.info.type_name

    def constants(self) -> list[np.ndarray]:
        """The other inputs, float64, shape (C,) or (1,)."""
        found = []
        for index, variable in enumerate(self.function.inputs):
            if index != self.position:
                if variable.parent is not None:
                    variable.forward()
                numbers = np.array(variable.d, np.float64)
                if numbers.size > 1 and numbers.size != max(numbers.shape):
                    raise ExportError(f"{self.name}: a constant of shape {numbers.shape} is not one number a channel")
                found.append(numbers.ravel())
        return found


def _batch_normalization(link: Link, line: Line) -> Line:
    arguments = link.function.info.args
    if arguments["batch_stat"]:
        raise ExportError("batch normalization uses the batch's statistics: export the evaluation graph")
    beta, gamma, mean, variance = link.constants()
    gain = gamma / np.sqrt(variance + arguments["eps"])
    return line[0] * gain, (line[1] - mean) * gain + beta


def _times(link: Link, line: Line, factor: Any) -> Line:
    return line[0] * factor, line[1] * factor


def _plus(link: Link, line: Line, term: Any) -> Line:
    return line[0], line[1] + term


def _minus(link: Link, line: Line) -> Line:
    (other,) = link.constants()
    return (line[0], line[1] - other) if link.position == 0 else (-line[0], other - line[1])


def _over(link: Link, line: Line) -> Line:
    if link.position:
        raise ExportError("a division by an activation has no integer form")
    (other,) = link.constants()
    return line[0] / other, line[1] / other


def _same(link: Link, line: Line) -> Line:
    return line


# Function -> what it makes of slope and offset. Clips only hold the result between two levels, and so change neither.
LINES: dict[str, Callable[[Link, Line], Line]] = {
    "BatchNormalization": _batch_normalization,
    "MulScalar": lambda link, line: _times(link, line, link.function.info.args["val"]),
    "AddScalar": lambda link, line: _plus(link, line, link.function.info.args["val"]),
    "Mul2": lambda link, line: _times(link, line, link.constants()[0]),
    "Add2": lambda link, line: _plus(link, line, link.constants()[0]),
    "Sub2": _minus,
    "Div2": _over,
    "Identity": _same,
    "Dropout": _same,
    "ReLU": _same,
    "ReLU6": _same,
    "MaximumScalar": _same,
    "MinimumScalar": _same,
}
CLIPS = ("ReLU", "ReLU6", "MaximumScalar", "MinimumScalar")


@attrs.frozen(eq=False)
class Chain:
    """Functions from a sum to a quantizer, one after the other.

    Args:
        links: in execution order; may be none.
        channels: channels of the sum.
        dimensions: dimensions of the sum's tensor, the batch included.
        bias: float32 (C,), added to the sum first; None without.
        window: kernel of an average pooling whose window the sum goes over first; None without.
        where: name for messages.
    """

    links: tuple[Link, ...]
    channels: int
    dimensions: int
    where: str
    bias: np.ndarray | None = None
    window: tuple[int, int] | None = None

    def line(self, unit: np.ndarray) -> Line:
        """Return slope and offset of the result, float64 (C,): result = slope * sum + offset, but for clips.

        Args:
            unit: what one in the sum stands for, float64 () or (C,).

        Raises:
            ExportError: a function is not linear.
        """
        slope = np.ones(self.channels) * unit
        offset = np.zeros(self.channels) if self.bias is None else self.bias.astype(np.float64)
        if self.window is not None:
            slope = slope / (self.window[0] * self.window[1])
        line: Line = (slope, offset)
        clipped = ""
        for link in self.links:
            if link.name not in LINES:
                raise ExportError(f"{self.where}: {link.name} has no integer form here; {', '.join(LINES)} have one")
            if clipped and link.name not in CLIPS and LINES[link.name] is not _same:
                raise ExportError(f"{self.where}: {link.name} behind {clipped}: quantize what lies between them")
            clipped = link.name if link.name in CLIPS else clipped
            line = LINES[link.name](link, line)
        return line

    def evaluator(self, unit: np.ndarray, count: int) -> Callable[[np.ndarray], np.ndarray]:
        """Return the trained network's own function: sums, int64 (count, C), to float32 (count, C).

        Args:
            unit: what one in the sum stands for, float64 () or (C,).
            count: rows of the sums.

        Raises:
            ExportError: a function depends on the map's size.
        """
        window = self.window or (1, 1)
        shape = (count, self.channels) + ((1, 1) if self.window else (1,) * (self.dimensions - 2))
        leaf = nn.Variable((count, self.channels, *window) if self.window else shape)
        result = leaf
        if self.window is not None:
            result = F.average_pooling(leaf, window)
        if result.ndim != self.dimensions:
            result = F.reshape(result, (count, self.channels) + (1,) * (self.dimensions - 2))
        for link in self.links:
            inputs = list(link.function.inputs)
            inputs[link.position] = result
            try:
                result = copy_function(link.function, inputs)[0]
            except RuntimeError as error:
                raise ExportError(f"{self.where}: {link.name} depends on the map's size") from error
        wanted = (count, self.channels)

        def evaluate(sums: np.ndarray) -> np.ndarray:
            values = (sums.astype(np.float64) * unit).astype(np.float32)
            if self.bias is not None:
                values = values + self.bias
            leaf.d = 0
            if self.window is not None:
                leaf.d[:, :, 0, 0] = values
            else:
                leaf.d = values.reshape(leaf.shape)
            if result is leaf:
                return values
            result.forward()
            return np.array(result.d).reshape(wanted)

        return evaluate

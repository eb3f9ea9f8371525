"""The bake pass: what was learned becomes constants and standard functions, ready to be saved."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import attrs
import nnabla as nn
import nnabla.functions as F
import numpy as np

from nnmpq.graph.network import Network, Site
from nnmpq.graph.quantize import QuantizedNetwork, quantize
from nnmpq.graph.schemes import Quantized
from nnmpq.graph.trace import functions_of
from nnmpq.quantizers.grid import UNIFORM, Grid
from nnmpq.quantizers.pow2_core import LOWER_RATIO, UPPER_RATIO
from nnmpq.quantizers.scalars import LN2

# The cores round on the bits of a number: below the normal numbers, this one and larger ones go up to 2^-126.
LEAST_ROUNDED_UP = float(np.int32(0x3504F4).view(np.float32))
SMALLEST_NORMAL = float(np.finfo(np.float32).tiny)


@attrs.frozen(eq=False)
class Baked:
    """A network without quantizers that computes what the quantized one does.

    Args:
        outputs: of the graph.
        inputs: its inputs.
        parameters: the parameters that it uses, by name; quantized weights hold numbers of their grids.
        grids: of every quantized site.
        codes: whole numbers of every quantized weight and bias.
    """

    outputs: tuple[nn.Variable, ...]
    inputs: tuple[nn.Variable, ...]
    parameters: dict[str, nn.Variable]
    grids: dict[str, Grid]
    codes: dict[str, np.ndarray]


def on_grid(x: nn.Variable, grid: Grid) -> nn.Variable:
    """Quantize an activation by standard scalar functions, equal to the fused quantizer's bit for bit.

    Args:
        x: the tensor.
        grid: one step or range for the whole tensor.

    Raises:
        ValueError: the grid has a step a channel, or no zero; no activation quantizer makes one.
    """
    if grid.channel_axis is not None or grid.offset != 0:
        raise ValueError("an activation's grid has one step and holds zero")
    if grid.kind == UNIFORM:
        step = np.float32(grid.step)
        low, high = float(np.float32(grid.low) * step), float(np.float32(grid.high) * step)
        clipped = F.minimum_scalar(F.maximum_scalar(x, low), high)
        return F.mul_scalar(F.round(F.mul_scalar(clipped, float(np.float32(1) / step))), float(step))
    xmin, xmax = float(np.float32(grid.xmin)), float(np.float32(grid.xmax))
    a = F.abs(x) if grid.signed else F.relu(x)
    clipped = F.minimum_scalar(F.maximum_scalar(a, xmin), xmax)
    guess = F.r_pow_scalar(F.round(F.mul_scalar(F.log(clipped), 1.0 / LN2)), 2.0)
    # Near sqrt(2) times a power the logarithm can guess wrong by one; the ratio, which is exact, says so.
    ratio = F.div2(clipped, guess)
    correction = F.sub2(F.greater_equal_scalar(ratio, UPPER_RATIO), F.less_scalar(ratio, LOWER_RATIO))
    y = F.mul2(guess, F.r_pow_scalar(correction, 2.0))
    if grid.with_zero:
        threshold = xmin * LOWER_RATIO
        y = F.mul2(y, F.greater_equal_scalar(a, threshold if threshold >= SMALLEST_NORMAL else LEAST_ROUNDED_UP))
    return F.mul2(F.sign(x, 1.0), y) if grid.signed else y


@attrs.frozen(eq=False)
class _Frozen:
    """The scheme that puts constants at weights and standard functions at activations."""

    done: dict[str, Quantized]
    grids: dict[str, Grid]
    codes: dict[str, np.ndarray]

    def check(self, network: Network) -> None:
        """Everything fits: the sites are this network's."""

    def covers(self, site: Site) -> bool:
        return site.name in self.done

    def weight(self, site: Site, w: nn.Variable) -> Quantized:
        quantized = self.done[site.name]
        if quantized.quantizer is None:
            return Quantized(w)
        quantized.output.forward()
        values = np.array(quantized.output.d, np.float32)
        grid = quantized.grid()
        codes = grid.encode(values)
        if not np.array_equal(grid.decode(codes), values):
            raise ValueError(
                f"{site.name}: its weights are not on the grid of its quantizer {quantized.quantizer_name}"
            )
        self.grids[site.name] = grid
        self.codes[site.name] = codes.astype(np.int8) if np.max(np.abs(codes)) < 128 else codes
        constant = nn.Variable.from_numpy_array(values)
        nn.parameter.set_parameter(site.name, constant)
        return Quantized(constant)

    def activation(self, site: Site, x: nn.Variable) -> Quantized:
        quantized = self.done[site.name]
        if quantized.quantizer is None:
            return Quantized(F.relu(x) if site.kind == "relu" else x)
        self.grids[site.name] = quantized.grid()
        return Quantized(on_grid(x, self.grids[site.name]))


def bake(quantized: QuantizedNetwork) -> Baked:
    """Freeze a quantized network.

    Args:
        quantized: the evaluation graph, parameters as they shall be shipped.

    Returns:
        The frozen graph, in a parameter scope of its own.

    Example:
        >>> import nnabla.parametric_functions as PF
        >>> from nnmpq.graph.schemes import Fixed
        >>> y = PF.affine(F.relu(PF.affine(nn.Variable((2, 4)), 8, name="a")), 3, name="b")
        >>> baked = bake(quantize(y, Fixed(2, 4)))
        >>> sorted(set(baked.codes["a/affine/W"].ravel().tolist()) - {-1, 0, 1})
        []
    """
    names = {v.data: name for name, v in nn.get_parameters(grad_only=False).items()}
    scope: OrderedDict = OrderedDict()
    grids: dict[str, Grid] = {}
    codes: dict[str, np.ndarray] = {}
    with nn.parameter_scope("", scope):
        # The frozen graph is traced under the names that it had, whatever scope that was.
        for leaf in _leaves(quantized.float_outputs):
            if leaf.data in names:
                nn.parameter.set_parameter(names[leaf.data], leaf)
        scheme = _Frozen(dict(quantized.sites), grids, codes)
        frozen = quantize(quantized.float_outputs, scheme)
        leaves = _leaves(frozen.outputs)
        known = {v.data: name for name, v in nn.get_parameters(grad_only=False).items()}
    parameters = {known[v.data]: v for v in leaves if v.data in known}
    inputs = tuple(v for v in leaves if v.data not in known)
    return Baked(frozen.outputs, inputs, parameters, grids, codes)


def _leaves(outputs: Any) -> list[nn.Variable]:
    """Inputs and parameters of a graph, each once, in the order that they are read."""
    found: dict = {}
    for function in functions_of(outputs):
        for variable in function.inputs:
            if variable.parent is None:
                found.setdefault(variable.data, variable)
    return list(found.values())

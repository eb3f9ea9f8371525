"""What is known of a graph while it becomes an integer program."""

from __future__ import annotations

from typing import Any, Callable

import attrs
import nnabla as nn
import numpy as np

from nnmpq.export.integer import program as ir
from nnmpq.export.integer.chain import LINES, Chain, Link
from nnmpq.export.integer.levels import SiteGrid, site_grid
from nnmpq.export.integer.program import Requantiser, Tensor
from nnmpq.export.integer.requantise import fit
from nnmpq.graph.bake import Baked
from nnmpq.graph.functions import LAYER_KIND
from nnmpq.graph.trace import Traced

AVERAGES = ("AveragePooling", "GlobalAveragePooling", "Mean")
Prepare = Callable[[np.ndarray], np.ndarray]


@attrs.define(eq=False)
class Lowering:
    """What is known while a graph is lowered; lives for one call of `lower`.

    Args:
        traced: the float graph.
        baked: its quantized weights and grids.
        inputs: data of the network's input.
        dependent: the variables that depend on it.
        prepare: from pixels uint8 to the input, float32.
        largest_pixel: pixels go from 0 to this.
    """

    traced: Traced
    baked: Baked
    inputs: Any
    dependent: set[nn.Variable]
    prepare: Prepare
    largest_pixel: int
    tensors: dict[str, Tensor] = attrs.field(factory=dict)
    operations: list[ir.Operation] = attrs.field(factory=list)
    done: dict[nn.Variable, str] = attrs.field(factory=dict)

    def add(self, operation: ir.Operation, tensor: Tensor) -> str:
        """Append an operation with the tensor that it writes; return the tensor's name."""
        self.operations.append(operation)
        self.tensors[tensor.name] = tensor
        return tensor.name

    def site(self, variable: nn.Variable) -> SiteGrid | None:
        """Return the grid at a variable, None where there is no quantizer."""
        site = self.traced.sites.get(variable)
        if site is None or site.name not in self.baked.grids:
            return None
        return site_grid(site.name, self.baked.grids[site.name])

    def float_message(self, variable: nn.Variable, reader: str) -> str:
        """Say which site is float and what to set."""
        site = self.traced.sites.get(variable)
        if site is None:
            kind = "input" if variable.parent is None else variable.parent.info.type_name
            return f"{reader} reads {kind}, at which no quantizer stands"
        kinds = dict.fromkeys(s.kind for s in self.traced.network.activations)
        return (
            f"{site.name}: this {site.kind} is float, and {reader} reads it. Set activation_sites = "
            f"{', '.join(kinds)} and train again, or keep = {site.name}:8 for this one alone"
        )

    def dynamic(self, function: Any) -> list[int]:
        """Return which inputs of a function depend on the network's input."""
        return [index for index, v in enumerate(function.inputs) if v in self.dependent]

    def climb(self, variable: nn.Variable) -> tuple[list[Link], nn.Variable]:
        """Go up from a variable to the sum, pooling, site or input that it is computed from."""
        links: list[Link] = []
        while variable.parent is not None and (not links or variable not in self.done):
            function = variable.parent
            places = self.dynamic(function)
            name = function.info.type_name
            if name in LAYER_KIND or name in AVERAGES or len(places) != 1 or name not in LINES:
                break
            links.insert(0, Link(function, places[0]))
            variable = function.inputs[places[0]]
        return links, variable

    def bias_of(self, function: Any) -> np.ndarray | None:
        """Return a layer's bias as the trained network adds it, float32 (C,)."""
        if len(function.inputs) < 3:
            return None
        site = self.traced.layers[function].bias
        if site is not None and site.name in self.baked.codes:
            return self.baked.grids[site.name].decode(self.baked.codes[site.name]).ravel()
        return np.array(function.inputs[2].d, np.float32).ravel()

    def requantiser(
        self, chain: Chain, unit: np.ndarray, low: np.ndarray, high: np.ndarray, target: SiteGrid
    ) -> Requantiser:
        """Fit a requantiser to a chain and the quantizer behind it."""
        slope, _ = chain.line(unit)
        count = target.grid.levels - 1
        evaluate = chain.evaluator(unit, count)
        return fit(
            lambda sums: target.level_of(evaluate(sums)), target.grid, slope / target.unit, low, high, chain.where
        )

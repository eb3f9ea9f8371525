"""What frames an update of the raw quantizer parameters: decay, clamped gradients, values kept in limits.

Quantizers with equal settings go through their rules together, as one array: forty of them cost about a
millisecond.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import nnabla as nn
import numpy as np

from nnmpq.graph.schemes import Quantized
from nnmpq.quantizers.buffers import float_view

# The rules run in numpy; nnabla copies what they change back to a GPU by itself.
CPU = nn.Context(["cpu:float"], "CpuCachedArray", "0")


@attrs.frozen
class Alike:
    """Quantizers with equal settings.

    Args:
        quantizer: the settings that they share.
        learned: names of the parameters that a solver moves.
        parameters: by name, that parameter's variable of each quantizer.
    """

    quantizer: Any
    learned: tuple[str, ...]
    parameters: dict[str, list[nn.Variable]]

    def values(self) -> dict[str, np.ndarray]:
        """Return the raw values of all, one flat array a name."""
        return {name: _gather([v.data for v in variables]) for name, variables in self.parameters.items()}

    def gradients(self) -> dict[str, np.ndarray]:
        """Return the gradients of all, one flat array a learned name."""
        return {name: _gather([v.grad for v in self.parameters[name]]) for name in self.learned}

    def decay_and_clamp(self, weight_decay: float, clamp: bool) -> None:
        """Add weight_decay * value to the gradients, then apply the quantizer's clamp to them."""
        values, before = self.values(), self.gradients()
        after = before
        if weight_decay:
            after = {name: g + np.float32(weight_decay) * values[name] for name, g in before.items()}
        if clamp:
            after = self.quantizer.clamp_gradients(values, after)
        for name, numbers in after.items():
            if numbers is not before[name]:
                _scatter([v.grad for v in self.parameters[name]], numbers)

    def constrain(self) -> None:
        """Put the raw values back in order and inside their limits."""
        before = self.values()
        after = self.quantizer.constrain(before)
        for name in self.learned:
            if not np.array_equal(after[name], before[name]):
                _scatter([v.data for v in self.parameters[name]], after[name])


def _gather(arrays: Sequence[Any]) -> np.ndarray:
    # A gradient's buffer moves from step to step, so no view outlives one.
    return np.concatenate([float_view(array, CPU) for array in arrays])


def _scatter(arrays: Sequence[Any], numbers: np.ndarray) -> None:
    start = 0
    for array in arrays:
        view = float_view(array, CPU)
        view[:] = numbers[start : start + view.size]
        start += view.size


def learned_names(quantized: Quantized) -> tuple[str, ...]:
    """Return the names of a site's parameters that get gradients."""
    return tuple(name for name in quantized.parameters if quantized.quantizer.learned(name))


def group_alike(sites: Mapping[str, Quantized]) -> list[Alike]:
    """Sort the sites whose quantizers learn something into groups of equal settings.

    Args:
        sites: what stands at each site, by name.
    """
    groups: dict[Any, list[Quantized]] = {}
    for quantized in sites.values():
        if quantized.quantizer is not None and learned_names(quantized):
            groups.setdefault(quantized.quantizer, []).append(quantized)
    return [
        Alike(
            quantizer,
            learned_names(members[0]),
            {name: [member.parameters[name] for member in members] for name in members[0].parameters},
        )
        for quantizer, members in groups.items()
    ]

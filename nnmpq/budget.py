"""Budgets: limits on what a network may cost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from nnmpq.cost import TARGETS, Cost, cost
from nnmpq.graph.network import Network


def _positive(instance: Any, attribute: Any, value: float | None) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < float("inf"):
        raise ValueError(f"{attribute.name} = {value}: a limit is a number above 0")


@attrs.frozen
class Budget:
    """One or more limits; None does not limit.

    Args:
        weights_kib: of weights and biases.
        activations_sum_kib: of all counted activations together, for one image.
        activations_max_kib: of the largest counted activation, for one image.
        bitops: of all layers, for one image.
        mean_bits: sqrt(BitOps / MACs).

    Example:
        >>> Budget(weights_kib=70.1).limits()
        {'weights_kib': 70.1}
    """

    weights_kib: float | None = attrs.field(default=None, validator=_positive)
    activations_sum_kib: float | None = attrs.field(default=None, validator=_positive)
    activations_max_kib: float | None = attrs.field(default=None, validator=_positive)
    bitops: float | None = attrs.field(default=None, validator=_positive)
    mean_bits: float | None = attrs.field(default=None, validator=_positive)

    def limits(self) -> dict[str, float]:
        """Return the limits that are set, by the cost's names."""
        return {name: value for name, value in attrs.asdict(self).items() if value is not None}

    def excess(self, used: Cost) -> dict[str, float]:
        """Return by how much each limit is exceeded; only those that are."""
        over = {name: float(getattr(used, name)) - limit for name, limit in self.limits().items()}
        # A cost that is not a number meets nothing.
        return {name: value for name, value in over.items() if not value <= 0}

    def met_by(self, used: Cost) -> bool:
        """Return whether a cost is within every limit."""
        return not self.excess(used)


def least_reachable(network: Network, budget: Budget, narrowest: Mapping[str, int]) -> dict[str, float]:
    """Return the limits that cannot be met even with every site at its narrowest, with the least that is reachable.

    Args:
        network: the network.
        budget: its limits.
        narrowest: fewest bits of each site.

    Example:
        >>> import nnabla as nn, nnabla.parametric_functions as PF
        >>> from nnmpq.graph.trace import trace
        >>> network = trace(PF.affine(nn.Variable((1, 64)), 64, with_bias=False, name="fc"))
        >>> least_reachable(network, Budget(weights_kib=0.9), {"fc/affine/W": 2})
        {'weights_kib': 1.0}
    """
    least = cost(network, narrowest)
    return {name: float(getattr(least, name)) for name in budget.excess(least) if name in TARGETS}

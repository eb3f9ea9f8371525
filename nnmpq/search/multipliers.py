"""Limits as terms of a loss: a multiplier each, which rises while its limit is exceeded."""

from __future__ import annotations

from collections.abc import Mapping

import attrs
import nnabla as nn
import nnabla.functions as F
import nnabla.initializer as I

from nnmpq.budget import Budget
from nnmpq.cost import TARGETS, Bits
from nnmpq.graph.network import Network

SCOPE = "search/multiplier"
# k: pressure per relative excess.
STIFFNESS = 2.0


@attrs.frozen
class Multipliers:
    """A budget's limits in a training graph: an augmented Lagrangian.

    The loss gets max(mu_t + k g_t, 0)^2 / 2k for each limit t, g_t = cost_t / limit_t - 1. Its gradient is that of
    max(mu_t + k g_t, 0) g_t: below the limit the pressure falls at once, however high the multiplier has risen.

    The multipliers are parameters without gradients, "search/multiplier/<limit>": a checkpoint holds them.

    Args:
        network: the network.
        limits: those that expected bits decide on.
        values: by limit, its multiplier, shape (), at least 0.
        terms: by limit, what the loss gets, shape ().
    """

    network: Network
    limits: Mapping[str, float]
    values: Mapping[str, nn.Variable]
    terms: Mapping[str, nn.Variable]

    def excess(self, bits: Mapping[str, float]) -> dict[str, float]:
        """Return cost / limit - 1 by limit.

        Args:
            bits: of each site, expected ones as numbers.
        """
        return {name: TARGETS[name](self.network, bits) / limit - 1.0 for name, limit in self.limits.items()}

    def ascend(self, rate: float, bits: Mapping[str, float]) -> None:
        """Move each multiplier by its limit's excess: mu = max(mu + rate * excess, 0).

        Args:
            rate: step per update and relative excess, >= 0.
            bits: of each site, expected ones as numbers.

        Source:
            Bertsekas, "Constrained Optimization and Lagrange Multiplier Methods", 1982, section 3.1.
        """
        for name, excess in self.excess(bits).items():
            self.values[name].d = max(float(self.values[name].d) + rate * excess, 0.0)


def multipliers(network: Network, bits: Bits, budget: Budget, start: float = 0.0) -> Multipliers:
    """Return a budget's terms for a loss; their multipliers are made in the current scope where they are not there.

    Args:
        network: the network.
        bits: by site; expected bits are graph variables. A limit that no variable decides has no term.
        budget: limits.
        start: first value of each multiplier.
    """
    limits, values, terms = {}, {}, {}
    for name, limit in budget.limits().items():
        used = TARGETS[name](network, bits)
        if not isinstance(used, nn.Variable):
            continue
        with nn.parameter_scope(SCOPE):
            values[name] = nn.parameter.get_parameter_or_create(name, (), I.ConstantInitializer(start), need_grad=False)
        limits[name] = limit
        excess = F.add_scalar(F.mul_scalar(used, STIFFNESS / limit), -STIFFNESS)
        pressure = F.relu(F.add2(values[name], excess))
        terms[name] = F.mul_scalar(F.mul2(pressure, pressure), 0.5 / STIFFNESS)
    return Multipliers(network, limits, values, terms)

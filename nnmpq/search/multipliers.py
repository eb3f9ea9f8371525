"""Limits as terms of a loss: a multiplier each, which rises while its limit is exceeded."""

from __future__ import annotations

import math
from collections.abc import Mapping

import attrs
import nnabla as nn
import nnabla.functions as F
import nnabla.initializer as I

from nnmpq.budget import Budget
from nnmpq.cost import TARGETS, Bits
from nnmpq.graph.network import Network

SCOPE = "search/multiplier"
# k: at 1 / k below its limit a limit presses no more, at 1 / k above it twice as hard.
STIFFNESS = 10.0
# A larger excess does not move a multiplier faster: on their way down, shares need their time whatever it is.
LARGEST_EXCESS = 0.1
# So small a multiplier presses on nothing, and still gets back.
LEAST = 1e-4


@attrs.frozen
class Multipliers:
    """A budget's limits in a training graph: an augmented Lagrangian whose multipliers are found by their logarithms.

    The loss gets mu_t max(1 + k g_t, 0)^2 / 2k for each limit t, g_t = cost_t / limit_t - 1. Its gradient is that of
    mu_t max(1 + k g_t, 0) g_t: mu_t at the limit and none at 1/k below it, however high the multiplier has risen.
    How much cross entropy a bit is worth differs by orders of magnitude between networks; steps of the logarithm
    find it from above as soon as from below.

    The multipliers are parameters without gradients, "search/multiplier/<limit>": a checkpoint holds them.

    Args:
        network: the network.
        limits: those that expected bits decide on.
        values: by limit, its multiplier, shape (), above 0.
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
        """Move each multiplier by its limit's excess: mu = mu exp(rate * min(max(excess, -0.1), 0.1)).

        Args:
            rate: step of the logarithm per update and relative excess, >= 0.
            bits: of each site, expected ones as numbers.

        Source:
            Bertsekas, "Constrained Optimization and Lagrange Multiplier Methods", 1982: chapter 2 for the ascent,
            chapter 5 for multipliers that are multiplied.
        """
        for name, excess in self.excess(bits).items():
            step = rate * min(max(excess, -LARGEST_EXCESS), LARGEST_EXCESS)
            self.values[name].d = max(float(self.values[name].d) * math.exp(step), LEAST)


def multipliers(network: Network, bits: Bits, budget: Budget, start: float = 0.0) -> Multipliers:
    """Return a budget's terms for a loss; their multipliers are made in the current scope where they are not there.

    Args:
        network: the network.
        bits: by site; expected bits are graph variables. A limit that no variable decides has no term.
        budget: limits.
        start: first value of each multiplier, at least `LEAST`.
    """
    limits, values, terms = {}, {}, {}
    for name, limit in budget.limits().items():
        used = TARGETS[name](network, bits)
        if not isinstance(used, nn.Variable):
            continue
        with nn.parameter_scope(SCOPE):
            values[name] = nn.parameter.get_parameter_or_create(
                name, (), I.ConstantInitializer(max(start, LEAST)), need_grad=False
            )
        limits[name] = limit
        pressure = F.relu(F.add_scalar(F.mul_scalar(used, STIFFNESS / limit), 1.0 - STIFFNESS))
        terms[name] = F.mul2(values[name], F.mul_scalar(F.mul2(pressure, pressure), 0.5 / STIFFNESS))
    return Multipliers(network, limits, values, terms)

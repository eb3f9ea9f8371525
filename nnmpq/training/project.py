"""Projection: after the bits were learned, narrow sites until the model meets its budget."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from nnmpq.budget import Budget, least_reachable
from nnmpq.cost import TARGETS, cost
from nnmpq.graph.network import ACTIVATION, Network
from nnmpq.graph.quantize import QuantizedNetwork
from nnmpq.training.errors import BudgetError
from nnmpq.training.ladder import Rung, ladder

# Each bit of a site saves the same of these, whatever the other sites' bits are.
ADDITIVE = ("weights_kib", "activations_sum_kib")
Ladders = Mapping[str, "list[Rung]"]


def check_reachable(quantized: QuantizedNetwork, budget: Budget) -> None:
    """Refuse a budget that no narrowing can meet, before any time is spent on learning.

    Args:
        quantized: a network with quantizers.
        budget: its limits.

    Raises:
        BudgetError: names each such limit with the least that is reachable.
    """
    if budget.limits():
        _refuse_unreachable(quantized.network, budget, _ladders(quantized, {}))


def project(
    quantized: QuantizedNetwork, budget: Budget, inputs: Mapping[str, np.ndarray]
) -> dict[str, tuple[int, int]]:
    """Narrow quantizers, in place, until the network meets the budget.

    A limit on the largest activation narrows each site above it. Any other limit is met greedily: time and
    again the site loses a bit whose loss adds the least error per unit saved, of ||Q(x) - x||^2 / ||x||^2
    over the weights, or over sampled activations. What the last steps saved too much is given back.

    Args:
        quantized: network whose quantizers share their parameters with the training graph.
        budget: limits in KiB, BitOps or mean bits.
        inputs: by name of activation site, what its quantizer sees, or a sample; needed where activations
            count.

    Returns:
        Bits before and after of the sites that changed, by name.

    Raises:
        BudgetError: the budget cannot be met; nothing was changed.
    """
    limits = budget.limits()
    if not limits:
        return {}
    sites = quantized.sites
    ladders = _ladders(quantized, inputs)
    _refuse_unreachable(quantized.network, budget, ladders)
    place = dict.fromkeys(ladders, 0)
    # The largest activation first: what it has to narrow anyway counts towards the sums.
    for target in sorted(limits, key=lambda name: name != "activations_max_kib"):
        if target == "activations_max_kib":
            _narrow_largest(quantized.network, ladders, place, limits[target])
        else:
            _narrow_greedily(quantized.network, ladders, place, target, limits[target])
    _give_back(quantized.network, budget, ladders, place)
    changed = {}
    for name, position in place.items():
        if position:
            changed[name] = (ladders[name][0].bits, ladders[name][position].bits)
            for key, value in ladders[name][position].values.items():
                sites[name].parameters[key].d = value
    return changed


def _ladders(quantized: QuantizedNetwork, inputs: Mapping[str, np.ndarray]) -> dict[str, list[Rung]]:
    found = {}
    for name, site in quantized.sites.items():
        if _is_weight(quantized.network, name) and site.source is not None:
            if site.source.parent is not None:
                site.source.forward()
            found[name] = ladder(site, np.array(site.source.d, np.float32))
        else:
            found[name] = ladder(site, inputs.get(name))
    return found


def _is_weight(network: Network, name: str) -> bool:
    return network.site(name).role != ACTIVATION


def _bits(ladders: Ladders, place: Mapping[str, int]) -> dict[str, int]:
    return {name: rungs[place[name]].bits for name, rungs in ladders.items()}


def _refuse_unreachable(network: Network, budget: Budget, ladders: Ladders) -> None:
    missed = least_reachable(network, budget, {name: rungs[-1].bits for name, rungs in ladders.items()})
    if missed:
        limits = budget.limits()
        said = [f"{name} {limits[name]:g} is wanted, {least:g} is the least" for name, least in missed.items()]
        raise BudgetError(
            f"the budget is out of reach with these quantizers: {'; '.join(said)}; "
            "raise the limit, or let the bits go lower (w_bitwidth_min, a_bitwidth_min, keep)"
        )


def _narrow_largest(network: Network, ladders: Ladders, place: dict[str, int], limit: float) -> None:
    measure = TARGETS["activations_max_kib"]
    for name, rungs in ladders.items():
        while not _is_weight(network, name) and measure(network, {name: rungs[place[name]].bits}) > limit:
            place[name] += 1


def _narrow_greedily(network: Network, ladders: Ladders, place: dict[str, int], target: str, limit: float) -> None:
    measure = TARGETS[target]
    known: dict[str, float] = {}
    while (used := measure(network, _bits(ladders, place))) > limit:
        best, least = None, np.inf
        for name, rungs in ladders.items():
            here = place[name]
            if here + 1 == len(rungs):
                continue
            if name not in known or target not in ADDITIVE:
                known[name] = used - measure(network, _bits(ladders, {**place, name: here + 1}))
            if known[name] > 0:
                price = (rungs[here + 1].error - rungs[here].error) / known[name]
                if price < least:
                    best, least = name, price
        assert best is not None  # or the budget would have been refused
        place[best] += 1


def _give_back(network: Network, budget: Budget, ladders: Ladders, place: dict[str, int]) -> None:
    """Widen again what was narrowed further than the limits need, the site with the most error to lose first."""
    while True:
        offers = []
        for name, rungs in ladders.items():
            here = place[name]
            if here and budget.met_by(cost(network, _bits(ladders, {**place, name: here - 1}))):
                offers.append((rungs[here].error - rungs[here - 1].error, name))
        if not offers:
            return
        place[max(offers)[1]] -= 1

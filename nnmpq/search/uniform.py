"""Uniform: the same width everywhere, as wide as the limits allow; what every search has to beat."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from nnmpq.budget import Budget
from nnmpq.cost import cost
from nnmpq.graph.network import Network
from nnmpq.policy import Policy
from nnmpq.search.allocate import allocate, check_reachable
from nnmpq.search.candidates import candidate_quantizers, searched_widths
from nnmpq.search.sensitivity import uniform_bits
from nnmpq.search.task import SearchTask, make_policy, network_of

Widths = Mapping[str, "tuple[int, ...]"]


def search(task: SearchTask) -> Policy:
    """Return the widest uniform policy that meets the budget.

    Every site gets the narrowest of its widths from the uniform one on, and its widest beyond; what `keep` decides
    stays. With ``nearest_uniform`` as many sites as the limits allow get the next width.

    Args:
        task: what was asked for; nothing is trained, no image is looked at.

    Raises:
        BudgetError: the budget cannot be met; each limit is named with the least that is reachable.
    """
    network = network_of(task.experiment, task.data.shape, task.data.classes)
    kept = task.kept(network)
    widths = searched_widths(task.experiment, network, task.widths(network))
    for name, bits in uniform_bits(widths).items():
        used = cost(network, {**kept, **bits})
        task.report({"candidate": name, "meets_budget": task.budget.met_by(used), **attrs.asdict(used)})
    bits = widest_uniform(network, widths, kept, task.budget)
    if task.experiment.nearest_uniform:
        bits = _widened(network, widths, kept, task.budget, bits)
        used = cost(network, {**kept, **bits})
        task.report({"candidate": "nearest uniform", "meets_budget": True, **attrs.asdict(used)})
    quantizers = candidate_quantizers(task.experiment, network, bits)
    return make_policy(task, network, bits, "uniform", quantizers)


def widest_uniform(network: Network, widths: Widths, kept: Mapping[str, int], budget: Budget) -> dict[str, int]:
    """Return the bits of the widest uniform allocation that meets a budget.

    Args:
        network: the network.
        widths: what each site may get.
        kept: bits of sites without a choice.
        budget: its limits.

    Raises:
        BudgetError: not even the narrowest does.

    Example:
        >>> import nnabla as nn, nnabla.parametric_functions as PF
        >>> from nnmpq.graph.trace import trace
        >>> network = trace(PF.affine(nn.Variable((1, 64)), 64, with_bias=False, name="fc"))
        >>> widest_uniform(network, {"fc/affine/W": (2, 3, 4, 8)}, {}, Budget(weights_kib=2.4))
        {'fc/affine/W': 4}
    """
    check_reachable(network, budget, {**kept, **{name: min(own) for name, own in widths.items()}})
    fitting = [bits for bits in uniform_bits(widths).values() if budget.met_by(cost(network, {**kept, **bits}))]
    return fitting[-1] if fitting else {}


def _widened(
    network: Network, widths: Widths, kept: Mapping[str, int], budget: Budget, bits: Mapping[str, int]
) -> dict[str, int]:
    """As many sites as possible at their next width."""
    harm: dict[str, dict[int, float]] = {}
    for name, own in widths.items():
        wider = [width for width in own if width > bits[name]]
        harm[name] = {bits[name]: 1.0, **({wider[0]: 0.0} if wider else {})}
    found = allocate(harm, network, budget, fixed=kept)
    return {name: found[name] for name in widths}

"""What a policy leaves of its budget, spent on wider tensors."""

from __future__ import annotations

import heapq
from collections.abc import Mapping

from nnmpq.budget import Budget
from nnmpq.cost import cost
from nnmpq.graph.network import Network
from nnmpq.search.table import Losses


def spend(bits: Mapping[str, int], losses: Losses, network: Network, budget: Budget) -> dict[str, int]:
    """Return bits of which none can be widened any more without exceeding the budget.

    Time and again the site gets its next width that adds the least loss, or takes most away; one that exceeds a limit
    is not tried again. More bits never make a grid coarser: where losses are -log of shares that are all but 0 or 1, as
    at the end of a search, a policy below its limits gives away accuracy for nothing.

    Args:
        bits: of every site; they meet the budget.
        losses: by site, the loss at each width; the other sites keep their bits.
        network: the network.
        budget: its limits; without any all sites would get their widest.

    Example:
        >>> import nnabla as nn, nnabla.parametric_functions as PF
        >>> from nnmpq.graph.trace import trace
        >>> network = trace(PF.affine(nn.Variable((1, 64)), 64, with_bias=False, name="fc"))
        >>> spend({"fc/affine/W": 2}, {"fc/affine/W": {2: 0.1, 4: 0.5, 8: 3.0}}, network, Budget(weights_kib=2.5))
        {'fc/affine/W': 4}
    """
    found = dict(bits)
    order = [site.name for site in network.sites() if site.name in losses and site.name in bits]
    offers: list[tuple[float, int]] = []

    def offer(place: int) -> None:
        own = losses[order[place]]
        wider = [width for width in own if width > found[order[place]]]
        if wider:
            heapq.heappush(offers, (own[min(wider)] - own[found[order[place]]], place))

    for place in range(len(order)):
        offer(place)
    while offers:
        _, place = heapq.heappop(offers)
        name = order[place]
        wider = min(width for width in losses[name] if width > found[name])
        if budget.met_by(cost(network, {**found, name: wider})):
            found[name] = wider
            offer(place)
    return found

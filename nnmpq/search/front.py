"""Allocations for many limits of one cost: what the network's structure lets be chosen apart is chosen apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs
import numpy as np

from nnmpq.budget import Budget
from nnmpq.cost import FLOAT_BITS, cost
from nnmpq.graph.network import ACTIVATION, Layer, Network
from nnmpq.search.allocate import allocate, check_problem, check_reachable, worthwhile
from nnmpq.search.knapsack import Units, solve, undominated
from nnmpq.search.program import BITS_PER_KIB
from nnmpq.search.table import Losses

SEPARABLE = ("weights_kib", "activations_sum_kib", "bitops", "mean_bits")


@attrs.frozen(eq=False)
class _Options:
    """Options of some sites together: what they cost, what they lose, and the bits of each."""

    costs: np.ndarray
    losses: np.ndarray
    bits: list[dict[str, int]]

    def best(self) -> _Options:
        """Leave out those that another one beats."""
        kept = undominated(self.costs, self.losses)
        return _Options(self.costs[kept], self.losses[kept], [self.bits[i] for i in kept])

    def beside(self, other: _Options) -> _Options:
        """Return every option of these with every one of those."""
        costs = (self.costs[:, None] + other.costs).ravel()
        losses = (self.losses[:, None] + other.losses).ravel()
        kept = undominated(costs, losses)
        pairs = [divmod(int(i), len(other.costs)) for i in kept]
        return _Options(costs[kept], losses[kept], [{**self.bits[i], **other.bits[j]} for i, j in pairs])


def sweep(
    table_loss: Losses,
    network: Network,
    target: str,
    limits: Sequence[float],
    *,
    budget: Budget | None = None,
    fixed: Mapping[str, int] | None = None,
) -> list[dict[str, int]]:
    """Return the bits with the least loss at each limit of a cost; each is what `allocate` finds.

    Stored bits are each site's own. BitOps are those of all layers that read the same activations: given the width that
    these are read at, every weight and every one of the activations is chosen apart. Options of such a group are
    listed, and a knapsack over the groups is solved to the optimum for each limit. Networks without such groups (dense
    concatenations, a weight that reads in two places) and further limits go through `allocate`, point by point.

    Args:
        table_loss: by site, the loss at each width.
        network: the network.
        target: a limit of `Budget`.
        limits: of the target, one a point.
        budget: further limits, that every point meets.
        fixed: bits of sites that have no choice.

    Raises:
        BudgetError: a limit cannot be met.
        TableError: a loss is no number.

    Example:
        >>> import nnabla as nn, nnabla.parametric_functions as PF
        >>> from nnmpq.graph.trace import trace
        >>> network = trace(PF.affine(nn.Variable((1, 64)), 64, with_bias=False, name="fc"))
        >>> sweep({"fc/affine/W": {2: 0.5, 4: 0.1, 8: 0.0}}, network, "weights_kib", [1.0, 2.0, 3.0])
        [{'fc/affine/W': 2}, {'fc/affine/W': 4}, {'fc/affine/W': 4}]
    """
    fixed, budget = dict(fixed or {}), budget or Budget()
    check_problem(table_loss, fixed)
    budgets = [attrs.evolve(budget, **{target: float(limit)}) for limit in limits]
    others = budget.limits().keys() - {target, "activations_max_kib"}
    groups = None
    if target in SEPARABLE and not others and table_loss:
        narrowest = {**fixed, **{site: min(losses) for site, losses in table_loss.items()}}
        for wanted in budgets:
            check_reachable(network, wanted, narrowest)
        choices = worthwhile(table_loss, network, budget)
        groups = _groups(table_loss, network, target, choices, fixed)
    if groups is None:
        return [allocate(table_loss, network, wanted, fixed=fixed) for wanted in budgets]
    units = Units([group.costs for group in groups], [group.losses for group in groups])
    return [_point(groups, units, network, target, wanted, fixed) for wanted in budgets]


def _point(
    groups: Sequence[_Options], units: Units, network: Network, target: str, budget: Budget, fixed: Mapping[str, int]
) -> dict[str, int]:
    limit = float(getattr(budget, target))
    capacity = {"mean_bits": limit**2 * network.macs, "bitops": limit}.get(target, limit * BITS_PER_KIB)
    # Whole numbers, written with a rounding error: half a bit more is none more. The exact cost has the last word.
    capacity = max(float(np.floor(capacity + 0.5)), units.least)
    while True:
        chosen = solve(units, capacity)
        bits = dict(fixed)
        for group, option in zip(groups, chosen):
            bits.update(group.bits[option])
        if budget.met_by(cost(network, bits)):
            return bits
        capacity = sum(float(group.costs[option]) for group, option in zip(groups, chosen)) - 1


def _groups(
    loss: Losses, network: Network, target: str, choices: Mapping[str, tuple[int, ...]], fixed: Mapping[str, int]
) -> list[_Options] | None:
    """Options of the sites that are chosen together; None where not all of them come apart."""
    if target in ("bitops", "mean_bits"):
        return _by_reading(loss, network, choices, fixed)
    counts = target == "activations_sum_kib"
    groups = []
    for site in network.sites():
        if (site.role == ACTIVATION) == counts:
            own = choices.get(site.name)
            if own is not None:
                groups.append(_alone(loss, site.name, own, float(site.elements)))
            elif not counts or site.name in fixed:
                bits = fixed.get(site.name, FLOAT_BITS)
                groups.append(_Options(np.array([float(site.elements * bits)]), np.zeros(1), [{}]))
        elif site.name in choices:
            groups.append(_alone(loss, site.name, choices[site.name], 0.0))
    return groups


def _alone(loss: Losses, site: str, widths: Sequence[int], price: float) -> _Options:
    made = _Options(
        np.array([price * bits for bits in widths]),
        np.array([loss[site][bits] for bits in widths]),
        [{site: bits} for bits in widths],
    )
    return made.best()


def _by_reading(
    loss: Losses, network: Network, choices: Mapping[str, tuple[int, ...]], fixed: Mapping[str, int]
) -> list[_Options] | None:
    readers: dict[frozenset[str], list[Layer]] = {}
    for layer in network.layers:
        readers.setdefault(frozenset(layer.inputs), []).append(layer)
    places: dict[str, set[frozenset[str]]] = {}
    for inputs, layers in readers.items():
        for name in (*inputs, *(layer.weight.name for layer in layers)):
            places.setdefault(name, set()).add(inputs)
    if any(len(found) > 1 for name, found in places.items() if name in choices):
        return None
    groups = [_group(loss, inputs, layers, choices, fixed) for inputs, layers in readers.items()]
    return groups + [_alone(loss, site, widths, 0.0) for site, widths in choices.items() if site not in places]


def _group(
    loss: Losses,
    inputs: frozenset[str],
    layers: Sequence[Layer],
    choices: Mapping[str, tuple[int, ...]],
    fixed: Mapping[str, int],
) -> _Options:
    """Options of all layers that read the same activations, and of these: the union over the width of reading."""
    macs: dict[str, int] = {}
    for layer in layers:
        macs[layer.weight.name] = macs.get(layer.weight.name, 0) + layer.macs
    free = sorted(name for name in inputs if name in choices)
    given = [fixed.get(name, FLOAT_BITS) for name in inputs if name not in choices]
    least = max([*given, *(choices[name][0] for name in free)], default=FLOAT_BITS)
    costs, losses, bits = [], [], []
    for width in sorted({least, *(b for name in free for b in choices[name] if b > least)}):
        # An activation below the width that is read takes the widest that costs nothing more.
        read = {name: max(b for b in choices[name] if b <= width) for name in free}
        found = _Options(np.zeros(1), np.array([sum(loss[name][b] for name, b in read.items())]), [read])
        for weight, count in macs.items():
            if weight in choices:
                found = found.beside(_alone(loss, weight, choices[weight], float(count * width)))
            else:
                found = attrs.evolve(found, costs=found.costs + float(count * width * fixed.get(weight, FLOAT_BITS)))
        costs.append(found.costs)
        losses.append(found.losses)
        bits += found.bits
    return _Options(np.concatenate(costs), np.concatenate(losses), bits).best()

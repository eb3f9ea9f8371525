"""The best bits for a budget: an exact optimum over every limit at once."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from scipy.optimize import Bounds, linprog, milp
from scipy.sparse import vstack

from nnmpq.budget import Budget, least_reachable
from nnmpq.cost import cost
from nnmpq.graph.network import ACTIVATION, Network
from nnmpq.search.program import BITS_PER_KIB, Program, build
from nnmpq.search.table import Losses, TableError, check_losses
from nnmpq.training.errors import BudgetError

# The solver's own precision is absolute: losses are brought to this size at most.
LOSS_SCALE = 1e4


def allocate(
    table_loss: Losses, network: Network, budget: Budget, *, fixed: Mapping[str, int] | None = None
) -> dict[str, int]:
    """Return the bits with the least loss that meet a budget.

    minimise sum_s loss[s][b_s] over b_s in loss[s], subject to cost(b) <= budget in every limit.

    An integer linear program, solved to the optimum; what it finds is held against `nnmpq.cost.cost` itself. Of
    allocations with equal losses it takes one that stores the fewest bits, weights and activations together.

    Args:
        table_loss: by site, the loss at each width, >= 0.
        network: the network; its sites that are in neither mapping are float, as in `nnmpq.cost`.
        budget: limits in KiB, BitOps and mean bits, any several at once.
        fixed: bits of sites that have no choice.

    Returns:
        Bits of every site of the table and of `fixed`.

    Raises:
        BudgetError: the budget cannot be met; it names the least that is reachable of each limit.
        TableError: a loss is no number, or a site is in both mappings.

    Example:
        >>> import nnabla as nn, nnabla.parametric_functions as PF
        >>> from nnmpq.graph.trace import trace
        >>> network = trace(PF.affine(nn.Variable((1, 64)), 64, with_bias=False, name="fc"))
        >>> allocate({"fc/affine/W": {2: 0.5, 4: 0.1, 8: 0.0}}, network, Budget(weights_kib=2.5))
        {'fc/affine/W': 4}

    Source:
        Yao et al., "HAWQ-V3", ICML 2021, section 3.4: an integer linear program over layers.
    """
    fixed = dict(fixed or {})
    check_problem(table_loss, fixed)
    check_reachable(network, budget, {**fixed, **{site: min(losses) for site, losses in table_loss.items()}})
    choices = worthwhile(table_loss, network, budget)
    widest = {site: widths[-1] for site, widths in choices.items()}
    if budget.met_by(cost(network, {**fixed, **widest})):
        return {**fixed, **widest}
    return {**fixed, **_optimum(table_loss, network, budget, choices, fixed)}


def adjust(bits: Mapping[str, int], table_loss: Losses, network: Network, budget: Budget) -> dict[str, int]:
    """Return bits that meet a budget, from bits that may not: no site gets wider, the added loss is the least.

    Args:
        bits: by site name; those that meet the budget come back as they are.
        table_loss: losses of the sites that may get narrower; the others keep their bits.
        network: the network.
        budget: its limits.

    Raises:
        BudgetError: no narrowing of these sites meets the budget.

    Example:
        >>> import nnabla as nn, nnabla.parametric_functions as PF
        >>> from nnmpq.graph.trace import trace
        >>> network = trace(PF.affine(nn.Variable((1, 64)), 64, with_bias=False, name="fc"))
        >>> adjust({"fc/affine/W": 8}, {"fc/affine/W": {2: 0.5, 4: 0.1, 8: 0.0}}, network, Budget(weights_kib=1.9))
        {'fc/affine/W': 2}
    """
    if budget.met_by(cost(network, bits)):
        return dict(bits)
    narrower = {
        site: {width: loss for width, loss in losses.items() if width <= bits[site]}
        for site, losses in table_loss.items()
        if site in bits
    }
    narrower = {site: losses for site, losses in narrower.items() if losses}
    fixed = {site: width for site, width in bits.items() if site not in narrower}
    found = allocate(narrower, network, budget, fixed=fixed)
    return {site: found[site] for site in bits}


def check_problem(table_loss: Losses, fixed: Mapping[str, int]) -> None:
    """Refuse losses that are no numbers, and sites that have both a choice and none.

    Raises:
        TableError: the first such site is named.
    """
    check_losses(table_loss)
    for site in table_loss:
        if site in fixed:
            raise TableError(f"{site}: it is fixed at {fixed[site]} bits, and has losses to choose by")


def check_reachable(network: Network, budget: Budget, narrowest: Mapping[str, int]) -> None:
    """Refuse a budget that not even the narrowest bits meet.

    Every cost falls with every site's bits: what all of them at their narrowest do not meet, nothing does.

    Args:
        network: the network.
        budget: its limits.
        narrowest: fewest bits of each site.

    Raises:
        BudgetError: names what is wanted and the least that is reachable, of each limit.
    """
    if not least_reachable(network, budget, narrowest):
        return
    least = cost(network, narrowest)
    said = [
        f"{name} {limit:g} is wanted, {getattr(least, name):g} is the least" for name, limit in budget.limits().items()
    ]
    raise BudgetError(f"the budget is out of reach: {'; '.join(said)}; raise the limit, or allow narrower widths")


def worthwhile(table_loss: Losses, network: Network, budget: Budget) -> dict[str, tuple[int, ...]]:
    """Return the widths of each site that an optimum can have, ascending.

    A width whose loss a narrower one has too is not, nor is one above the limit on the largest activation.

    Example:
        >>> import nnabla as nn, nnabla.parametric_functions as PF
        >>> from nnmpq.graph.trace import trace
        >>> network = trace(PF.affine(nn.Variable((1, 64)), 64, with_bias=False, name="fc"))
        >>> worthwhile({"fc/affine/W": {2: 0.5, 3: 0.5, 4: 0.6, 8: 0.0}}, network, Budget())
        {'fc/affine/W': (2, 8)}
    """
    found = {}
    largest = budget.activations_max_kib
    for site in network.sites():
        if site.name not in table_loss:
            continue
        widths: list[int] = []
        least = math.inf
        for bits, loss in sorted(table_loss[site.name].items()):
            too_large = (
                site.role == ACTIVATION and largest is not None and site.elements * bits / BITS_PER_KIB > largest
            )
            if loss < least and not too_large:
                widths.append(bits)
                least = loss
        found[site.name] = tuple(widths)
    return found


def _optimum(
    loss: Losses, network: Network, budget: Budget, choices: Mapping[str, tuple[int, ...]], fixed: Mapping[str, int]
) -> dict[str, int]:
    program = build(network, budget, choices, fixed)
    sizes = {site.name: site.elements for site in network.sites()}
    span = max(loss[site][widths[0]] - loss[site][widths[-1]] for site, widths in choices.items())
    scale = LOSS_SCALE / span if span > 0 else 1.0
    losses = np.zeros(program.rows.columns)
    stored = np.zeros(program.rows.columns)
    for site, places in program.columns.items():
        # Only differences matter; without what a site loses anyway the numbers are smaller.
        losses[places] = [scale * (loss[site][b] - loss[site][choices[site][-1]]) for b in choices[site]]
        stored[places] = [float(sizes[site] * b) for b in choices[site]]
    stored *= LOSS_SCALE / stored.max()

    def total(bits: Mapping[str, int]) -> float:
        return math.fsum(loss[site][width] for site, width in bits.items())

    best = _solve(program, losses, network, budget, fixed)
    assert best is not None  # or the budget would have been refused
    found = total(best)
    # Of equal losses the one that stores least.
    own = sum(losses[program.columns[site][choices[site].index(bits)]] for site, bits in best.items())
    most = own + 1e-9 * LOSS_SCALE
    possible = _possible(program, losses, most)
    every = [place for columns in program.columns.values() for place in columns]
    program.rows.add(every, losses[every].tolist(), -np.inf, most)
    cheaper = _solve(program, stored, network, budget, fixed, possible)
    if cheaper is not None and total(cheaper) <= found * (1 + 1e-12):
        return cheaper
    return best


def _possible(program: Program, objective: np.ndarray, most: float) -> np.ndarray:
    """Upper bounds of the columns: 0 for those that no solution up to this objective has, by their reduced costs."""
    rows = program.rows.constraint()
    upper, lower = np.isfinite(rows.ub), np.isfinite(rows.lb)
    relaxed = linprog(
        objective,
        A_ub=vstack([rows.A[upper], -rows.A[lower]]),
        b_ub=np.concatenate([rows.ub[upper], -rows.lb[lower]]),
        bounds=(0, None),
    )
    bounds = np.ones(len(objective))
    if relaxed.x is not None:
        # A column at zero adds at least its reduced cost to the relaxation's optimum.
        bounds[relaxed.fun + relaxed.lower.marginals > most + 1e-6] = 0
    return bounds


def _solve(
    program: Program,
    objective: np.ndarray,
    network: Network,
    budget: Budget,
    fixed: Mapping[str, int],
    upper: np.ndarray | float = 1.0,
) -> dict[str, int] | None:
    """Solve until what is found meets the budget exactly: the solver's own limits have a tolerance."""
    whole = np.zeros(len(objective))
    for places in program.columns.values():
        whole[places] = 1
    options = {"mip_rel_gap": 0.0}
    while True:
        found = milp(
            objective,
            integrality=whole,
            bounds=Bounds(0, upper),
            constraints=program.rows.constraint(),
            options=options,
        )
        if found.x is None:
            return None
        bits = program.chosen(found.x)
        if budget.met_by(cost(network, {**fixed, **bits})):
            return bits
        program.forbid(bits)

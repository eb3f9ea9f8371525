"""Candidates of a progressive search: which sites are lowered together, and the last step onto the budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Callable

import attrs
import numpy as np

from nnmpq.budget import Budget
from nnmpq.cost import cost
from nnmpq.graph.network import Network
from nnmpq.search.allocate import adjust
from nnmpq.search.program import BITS_PER_KIB
from nnmpq.search.uniform import widest_uniform

Bits = dict[str, int]
# The squared error of a grid grows by this factor with each bit less.
ERROR_PER_BIT = 4.0


@attrs.frozen(eq=False)
class Space:
    """What may be lowered, by how much, and what for.

    Args:
        network: the network.
        widths: of each site, ascending.
        fixed: bits of the sites that have no choice.
        budget: what to get down to.
        interval: bits that a site is lowered by, at least.
    """

    network: Network
    widths: dict[str, tuple[int, ...]]
    fixed: dict[str, int]
    budget: Budget
    interval: int = 1

    @property
    def narrowest(self) -> Bits:
        """All sites at their fewest bits."""
        return {**self.fixed, **{name: widths[0] for name, widths in self.widths.items()}}

    def met(self, bits: Mapping[str, int]) -> bool:
        """Return whether bits meet the budget."""
        return self.budget.met_by(cost(self.network, {**self.fixed, **bits}))

    def excess(self, bits: Mapping[str, int]) -> float:
        """Return the sum over all limits of what is used beyond it, as shares of the limits; 0 where all are met.

        Of a limit on the largest activation each site above it counts, so that lowering any of them helps.
        """
        every = {**self.fixed, **bits}
        used, limits = cost(self.network, every), self.budget.limits()
        total = 0.0
        for name, limit in limits.items():
            values = [float(getattr(used, name))]
            if name == "activations_max_kib":
                sites = [site for site in self.network.activations if site.name in every]
                values = [site.elements * every[site.name] / BITS_PER_KIB for site in sites]
            total += sum(max(value / limit - 1.0, 0.0) for value in values)
        return total

    def lower(self, name: str, bits: int) -> int:
        """Return the next width of a site: the widest that is `interval` narrower, else its narrowest."""
        return max((w for w in self.widths[name] if w <= bits - self.interval), default=self.widths[name][0])

    def lowered(self, bits: Mapping[str, int], names: Sequence[str]) -> Bits:
        """Return bits with some sites at their next width."""
        return {**bits, **{name: self.lower(name, bits[name]) for name in names}}

    def savings(self, bits: Mapping[str, int]) -> dict[str, float]:
        """Return what lowering each site alone takes off the excess, of the sites that it helps to lower.

        Where no site alone helps, every site that has narrower widths is worth the same.
        """
        free = [name for name in self.widths if self.lower(name, bits[name]) < bits[name]]
        before = self.excess(bits)
        saved = {name: before - self.excess(self.lowered(bits, [name])) for name in free}
        helpful = {name: value for name, value in saved.items() if value > 0}
        return helpful or dict.fromkeys(free, 1.0)

    def filled(self, bits: Mapping[str, int], harm: Mapping[str, float]) -> Bits:
        """Widen sites in rounds, in each the most harmed first, until the budget lets none be wider.

        Args:
            bits: they meet the budget.
            harm: of each site; others come last.
        """
        bits, order = dict(bits), sorted(self.widths, key=lambda name: -harm.get(name, 0.0))
        changed = True
        while changed:
            changed = False
            for name in order:
                wider = min((w for w in self.widths[name] if w > bits[name]), default=None)
                if wider is not None and self.met({**bits, name: wider}):
                    bits[name], changed = wider, True
        return bits


def random_subsets(names: Sequence[str], ratio: float, count: int, rng: np.random.Generator) -> list[list[str]]:
    """Return subsets of floor(ratio * n) names, all equally likely, as published: a subset may come twice.

    Example:
        >>> [len(subset) for subset in random_subsets("abcdefg", 0.5, 3, np.random.default_rng(0))]
        [3, 3, 3]
    """
    size = max(int(ratio * len(names)), 1)
    return [[names[i] for i in rng.choice(len(names), size, replace=False)] for _ in range(count)]


def sampled_subsets(prices: Mapping[str, float], ratio: float, count: int, rng: np.random.Generator) -> list[list[str]]:
    """Return different subsets of floor(ratio * n) names, cheap ones likelier; the cheapest of all is the first.

    p(name) ~ exp(-price / median price), one after the other without putting back.

    Args:
        prices: of each name, 0 or more.
        ratio: share of the names in a subset; one name at least.
        count: most subsets.
        rng: source of chance.

    Example:
        >>> prices = {"a": 1.0, "b": 50.0, "c": 2.0, "d": 60.0}
        >>> sampled_subsets(prices, 0.5, 1, np.random.default_rng(0))
        [['a', 'c']]

    Source:
        Kool et al., "Stochastic Beams and Where to Find Them", ICML 2019: the largest of Gumbel-perturbed logarithms.
    """
    names = list(prices)
    values = np.array([prices[name] for name in names])
    positive = values[values > 0]
    logarithms = -values / (np.median(positive) if len(positive) else 1.0)
    size = max(int(ratio * len(names)), 1)
    subsets = {tuple(sorted(np.argsort(values, kind="stable")[:size])): None}
    # Small problems have fewer subsets than are wanted.
    for _ in range(4 * count):
        if len(subsets) >= count:
            break
        chosen = np.argsort(-(logarithms + rng.gumbel(size=len(names))), kind="stable")[:size]
        subsets.setdefault(tuple(sorted(chosen)))
    return [[names[i] for i in subset] for subset in subsets]


def last_steps(space: Space, bits: Bits, candidates: Sequence[Bits], harm: Mapping[str, float]) -> list[Bits]:
    """Return the candidates that end the search exactly at the budget; empty while none of them meets it.

    Those that meet it get back what they lowered in vain; the one of least harm, and the widest uniform one, join them.

    Args:
        space: what may be lowered.
        bits: bits now.
        candidates: bits of the step's candidates.
        harm: of each site, what lowering it once adds to the score.
    """
    meeting = [candidate for candidate in candidates if space.met(candidate)]
    if not meeting:
        return []
    once = {name: {bits[name]: 0.0, space.lower(name, bits[name]): value} for name, value in harm.items()}
    everything = space.lowered(bits, list(once))
    if space.met(everything):
        found = adjust({**space.fixed, **bits}, once, space.network, space.budget)
        meeting.append({name: found[name] for name in bits})
    filled = [space.filled(candidate, harm) for candidate in meeting]
    filled.append(widest_uniform(space.network, space.widths, space.fixed, space.budget))
    return [dict(unique) for unique in dict.fromkeys(tuple(candidate.items()) for candidate in filled)]


def jump(space: Space, bits: Bits, harm: Mapping[str, float]) -> Bits:
    """Return bits at the budget in one go, for a search that has no time for more steps.

    minimise sum_s harm_s (4^d_s - 1) / (4^d1_s - 1), d_s the bits taken off site s, d1_s those of one step.

    Args:
        space: what may be lowered.
        bits: bits now.
        harm: of each site that may be lowered, what lowering it once adds to the score.
    """

    def grown(name: str) -> Callable[[int], float]:
        once = ERROR_PER_BIT ** (bits[name] - space.lower(name, bits[name])) - 1.0
        return lambda width: harm[name] * (ERROR_PER_BIT ** (bits[name] - width) - 1.0) / once

    losses = {}
    for name in space.widths:
        narrower = [w for w in space.widths[name] if w < bits[name]]
        if narrower and name in harm:
            losses[name] = {bits[name]: 0.0, **{w: grown(name)(w) for w in narrower}}
    found = adjust({**space.fixed, **bits}, losses, space.network, space.budget)
    return space.filled({name: found[name] for name in bits}, harm)

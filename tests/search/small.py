"""Small made-up networks with losses and budgets, and what an exhaustive search says about them."""

from __future__ import annotations

import itertools
import math

from hypothesis import strategies as st

from nnmpq.budget import Budget
from nnmpq.cost import cost
from nnmpq.graph.network import Layer, Network, Site

LIMITS = ("weights_kib", "activations_sum_kib", "activations_max_kib", "bitops", "mean_bits")


def weight(name: str, elements: int) -> Site:
    return Site(f"{name}/W", "weight", "affine", (elements,), True, layer=name)


def network(
    sizes: list[int], activations: list[int], reads: list[tuple[int, ...]], shared: bool = False, bias: bool = False
) -> Network:
    """Layers of these weights that read these activations; `shared` gives the last layer the first one's weight."""
    acts = [Site(f"a{i}/relu", "activation", "relu", (n,), False) for i, n in enumerate(activations)]
    layers: list[Layer] = []
    for i, (size, read) in enumerate(zip(sizes, reads)):
        own = layers[0].weight if shared and layers and i == len(sizes) - 1 else weight(f"l{i}", size)
        names = tuple(acts[j].name for j in read)
        biased = Site(f"l{i}/b", "bias", "affine", (3,), True, layer=f"l{i}") if bias and i == 0 else None
        layers.append(
            Layer(f"l{i}", "affine", own, biased, 7 * size, names[0] if names else None, (size,), (1,), names)
        )
    return Network(tuple(layers), tuple(acts))


@st.composite
def problems(draw):
    """A network, losses, bits of sites without a choice, and a budget with one to four limits that can be met."""
    activations = draw(st.lists(st.integers(1, 40), min_size=1, max_size=3))
    sizes = draw(st.lists(st.integers(1, 60), min_size=1, max_size=3))
    read = st.lists(st.integers(0, len(activations) - 1), max_size=3, unique=True).map(tuple)
    net = network(sizes, activations, [draw(read) for _ in sizes], draw(st.booleans()), draw(st.booleans()))
    losses, fixed = {}, {}
    # Whole numbers often tie; the others are as scores are.
    value = draw(st.sampled_from([st.integers(0, 6).map(float), st.floats(0, 10, allow_subnormal=False)]))
    for site in net.sites():
        role = draw(st.sampled_from(["free", "free", "free", "fixed", "float"]))
        if role == "fixed":
            fixed[site.name] = draw(st.integers(1, 8))
        elif role == "free":
            widths = draw(st.lists(st.integers(1, 9), min_size=1, max_size=3, unique=True))
            losses[site.name] = {bits: draw(value) for bits in widths}
    least = cost(net, {**fixed, **{name: min(by_bits) for name, by_bits in losses.items()}})
    most = cost(net, {**fixed, **{name: max(by_bits) for name, by_bits in losses.items()}})
    limits = {}
    for name in draw(st.lists(st.sampled_from(LIMITS), min_size=1, max_size=4, unique=True)):
        low, high = getattr(least, name), getattr(most, name)
        limit = low + draw(st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.8, 1.0])) * (high - low)
        if limit > 0:
            limits[name] = limit
    return net, losses, fixed, Budget(**limits)


def exhaustive(net, losses, fixed, budget):
    """The least loss of all allocations that meet the budget, and the fewest stored bits among those that have it."""
    elements = {site.name: site.elements for site in net.sites()}
    found = []
    for bits in itertools.product(*(sorted(by_bits) for by_bits in losses.values())):
        chosen = dict(zip(losses, bits))
        if budget.met_by(cost(net, {**fixed, **chosen})):
            loss = math.fsum(losses[name][width] for name, width in chosen.items())
            found.append((loss, sum(elements[name] * width for name, width in chosen.items())))
    least = min(loss for loss, _ in found)
    return least, min(size for loss, size in found if loss <= least + 1e-12)

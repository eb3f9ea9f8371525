"""Projection: after bits were learned under a penalty, make the network meet its budget exactly."""

from __future__ import annotations

from typing import Any, Mapping

import numpy as np

from nnmpq.budget import Budget, least_reachable
from nnmpq.cost import cost
from nnmpq.graph.network import ACTIVATION
from nnmpq.graph.quantize import QuantizedNetwork
from nnmpq.graph.schemes import Quantized
from nnmpq.training.errors import TrainingError

Values = dict[str, np.ndarray]


def _error(site: Quantized, values: Values, sample: np.ndarray) -> float:
    """Squared error that a site's quantizer makes, relative to the tensor's energy."""
    grid = site.quantizer.grid(values, sample)
    reference = sample if site.quantizer.signed else np.maximum(sample, 0)
    energy = float(np.sum(np.square(reference, dtype=np.float64))) + 1e-30
    return float(np.sum(np.square(grid.quantize(sample) - reference, dtype=np.float64))) / energy


def narrower(site: Quantized, sample: np.ndarray) -> tuple[Values, float] | None:
    """Return the best way to spend one bit less at a site, and the relative squared error that it adds.

    Args:
        site: a quantized site.
        sample: its tensor, or examples of it.

    Returns:
        Raw values and added error, None where the site is at its narrowest.
    """
    ways = site.quantizer.narrowed(site.values())
    if not ways:
        return None
    now = _error(site, site.values(), sample)
    errors = [_error(site, way, sample) for way in ways]
    best = int(np.argmin(errors))
    return ways[best], errors[best] - now


def narrowest_bits(quantized: QuantizedNetwork) -> dict[str, int]:
    """Return the fewest bits that each site can have."""
    found = {}
    for name, site in quantized.sites.items():
        if site.quantizer is None:
            found[name] = site.bit_number()
            continue
        values = site.values()
        while True:
            ways = site.quantizer.narrowed(values)
            if not ways:
                break
            values = ways[0]
        grid_data = None if site.source is None or site.source.parent is not None else np.array(site.source.d)
        found[name] = int(site.quantizer.grid(values, grid_data).bits)
    return found


def project(quantized: QuantizedNetwork, budget: Budget, samples: Mapping[str, np.ndarray]) -> list[str]:
    """Narrow sites, one bit at a time, until the network meets its budget.

    Each step takes the site whose narrowing adds the least relative squared error for each bit of excess that it removes.

    Args:
        quantized: the network; its quantizer parameters are changed in place.
        budget: limits to meet.
        samples: tensor of each quantized site, or examples of it.

    Returns:
        The names of the narrowed sites, in order.

    Raises:
        TrainingError: a limit cannot be met; names it and the least that is reachable.
    """
    network = quantized.network
    bits = quantized.bit_numbers()
    if budget.met_by(cost(network, bits)):
        return []
    unreachable = least_reachable(network, budget, narrowest_bits(quantized))
    if unreachable:
        limits = budget.limits()
        said = [f"{name} = {limits[name]:g}: the least reachable is {v:.4g}" for name, v in unreachable.items()]
        raise TrainingError("the budget cannot be met: " + "; ".join(said))
    offers: dict[str, Any] = {}
    narrowed = []
    while True:
        used = cost(network, bits)
        excess = budget.excess(used)
        if not excess:
            return narrowed
        best_name, best_price = None, np.inf
        for name, site in quantized.sites.items():
            gain = _gain(network, budget, bits, name, excess) if site.quantizer is not None else 0.0
            if gain <= 0:
                continue
            if name not in offers:
                offers[name] = narrower(site, samples[name])
            if offers[name] is not None and offers[name][1] / gain < best_price:
                best_name, best_price = name, offers[name][1] / gain
        if best_name is None:
            raise TrainingError(f"the budget cannot be met: {', '.join(excess)} stay over their limits")
        site = quantized.sites[best_name]
        for key, value in offers.pop(best_name)[0].items():
            site.parameters[key].d = value
        bits[best_name] = site.bit_number()
        narrowed.append(best_name)


def _gain(network: Any, budget: Budget, bits: dict[str, int], name: str, excess: dict[str, float]) -> float:
    """Share of the excess that one bit less at a site removes, summed over the exceeded limits.

    A site as large as the limit on the largest one removes excess by itself, whatever the other sites hold.
    """
    fewer = {**bits, name: bits[name] - 1}
    now, then = cost(network, bits), cost(network, fewer)
    gain = 0.0
    for limit_name, over in excess.items():
        if limit_name == "activations_max_kib":
            site = network.site(name)
            if site.role == ACTIVATION:
                size = site.elements * bits[name] / 8 / 1024
                gain += float(size > budget.limits()[limit_name])
        else:
            saved = float(getattr(now, limit_name)) - float(getattr(then, limit_name))
            gain += min(saved, over) / over
    return gain


def collect_samples(graph: Any, images: np.ndarray) -> dict[str, np.ndarray]:
    """Return the tensor that each quantizer of an evaluation graph reads, for one batch.

    Args:
        graph: the evaluation graph.
        images: float32, shape of its input.
    """
    graph.x.d = images
    graph.quantized.output.forward(clear_buffer=False)
    return {
        name: np.array(site.source.d)
        for name, site in graph.quantized.sites.items()
        if site.quantizer is not None and site.source is not None
    }

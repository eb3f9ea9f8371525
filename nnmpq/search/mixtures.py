"""What a search knows about its mixtures: shares, the bits that they lean to, ranges to begin with."""

from __future__ import annotations

from collections.abc import Mapping

import nnabla as nn
import nnabla.functions as F
import numpy as np

from nnmpq.graph.network import ACTIVATION
from nnmpq.graph.quantize import QuantizedNetwork
from nnmpq.graph.quantized import Quantized
from nnmpq.quantizers.mixture import CandidateMixture
from nnmpq.search.differentiable import Graphs
from nnmpq.search.scores.ranges import best_grid
from nnmpq.search.trial import settle
from nnmpq.training.evaluate import quantizer_inputs

CALIBRATION_IMAGES = 256
# e^-x is 0 in float32.
CERTAIN = 1e4
TINY = 1e-8


def mixtures(quantized: QuantizedNetwork) -> dict[str, Quantized]:
    """Return the sites that have not chosen their width yet."""
    return {name: site for name, site in quantized.sites.items() if isinstance(site.quantizer, CandidateMixture)}


def log_shares(site: Quantized) -> dict[int, float]:
    """Return log softmax(alpha)_k by width, in double precision: it stays a number however small a share is."""
    alpha = np.array(site.parameters["alpha"].d, np.float64)
    shifted = alpha - alpha.max()
    logs = shifted - np.log(np.sum(np.exp(shifted)))
    return {bits: float(number) for bits, number in zip(site.quantizer.candidates, logs)}


def expected_bits(quantized: QuantizedNetwork) -> dict[str, float]:
    """Return sum_k p_k b_k of each mixture as a number, and the bits of the other sites as they are."""
    found: dict[str, float] = {}
    for name, site in quantized.sites.items():
        if isinstance(site.quantizer, CandidateMixture):
            found[name] = float(sum(bits * np.exp(log) for bits, log in log_shares(site).items()))
        else:
            found[name] = float(site.bit_number())
    return found


def unlikeliness(quantized: QuantizedNetwork) -> dict[str, dict[int, float]]:
    """Return -log of the shares, by site and width: of all policies the one with the least sum is the likeliest.

    Without limits that is the argmax of every site alone.

    Args:
        quantized: a network with mixtures.
    """
    return {name: {bits: -log for bits, log in log_shares(site).items()} for name, site in mixtures(quantized).items()}


def largest_shares(quantized: QuantizedNetwork) -> dict[str, int]:
    """Return the width of the largest share of each mixture; the narrower of equal ones."""
    return {name: site.quantizer.chosen(site.values()) for name, site in mixtures(quantized).items()}


def entropy(quantized: QuantizedNetwork) -> nn.Variable:
    """Return sum over mixtures of -sum_k p_k log p_k / log K, shape (): 0 where all have chosen, 1 each at first.

    Args:
        quantized: a network with mixtures; those of one candidate have none.
    """
    terms = []
    for site in mixtures(quantized).values():
        count = len(site.quantizer.candidates)
        if count > 1:
            p = site.quantizer.probabilities(site.parameters)
            terms.append(F.mul_scalar(F.sum(F.mul2(p, F.log(F.add_scalar(p, TINY)))), -1.0 / float(np.log(count))))
    return F.sum(F.stack(*terms)) if terms else F.constant(0.0, ())


def mean_entropy(quantized: QuantizedNetwork) -> float:
    """Return the mean over mixtures of the same, as a number."""
    found = []
    for site in mixtures(quantized).values():
        logs = np.array(list(log_shares(site).values()))
        if len(logs) > 1:
            found.append(-float(np.sum(np.exp(logs) * logs)) / float(np.log(len(logs))))
    return float(np.mean(found)) if found else 0.0


def decide(quantized: QuantizedNetwork, bits: Mapping[str, int]) -> None:
    """Give the whole share of each mixture to one width.

    Args:
        quantized: a network with mixtures.
        bits: by name, one of each mixture's candidates.
    """
    for name, site in mixtures(quantized).items():
        chosen = [0.0 if width == bits[name] else -CERTAIN for width in site.quantizer.candidates]
        site.parameters["alpha"].d = np.array(chosen, np.float32)


def start_ranges(graphs: Graphs) -> None:
    """Set the range of every candidate to that of the grid with the least squared error, or to max|x| where it stays.

    Args:
        graphs: those of the search; weights say it themselves, activations on a few training images.
    """
    sites = {name: s for name, s in mixtures(graphs.evaluation.quantized).items() if "xmax" in s.parameters}
    network = graphs.evaluation.quantized.network
    weights = [name for name in sites if network.site(name).role != ACTIVATION]
    for name in weights:
        source = sites[name].source
        assert source is not None
        if source.parent is not None:
            source.forward()
        _set_ranges(sites[name], np.array(source.d, np.float32))
    if len(weights) == len(sites):
        return
    settle(graphs)
    inputs = quantizer_inputs(graphs.evaluation, graphs.task.data, CALIBRATION_IMAGES)
    for name, site in sites.items():
        if name not in weights:
            x = inputs[name]
            _set_ranges(site, x if site.quantizer.signed else np.maximum(x, 0))


def _set_ranges(site: Quantized, x: np.ndarray) -> None:
    if not np.any(x):
        return
    quantizer = site.quantizer
    if quantizer.frozen:
        site.parameters["xmax"].d = np.clip(np.max(np.abs(x)), *quantizer.xmax_limits)
        return
    grids = [best_grid(x, bits, signed=quantizer.signed) for bits in quantizer.candidates]
    found = np.array([float(grid.step * grid.high) for grid in grids], np.float32)
    site.parameters["xmax"].d = np.clip(found, *quantizer.xmax_limits)

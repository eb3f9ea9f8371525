"""Ranges of quantizers from the float network's numbers, before anything is trained at a policy's bits."""

from __future__ import annotations

from typing import Any

import numpy as np

from nnmpq.config.experiment import Experiment
from nnmpq.data import DataSet
from nnmpq.graph.network import ACTIVATION, Site
from nnmpq.graph.quantized import Quantized
from nnmpq.graph.schemes import Float
from nnmpq.training.evaluate import quantizer_inputs
from nnmpq.training.graphs import EvaluationGraph, build_evaluation

# From so many bits on nothing is cut off.
WIDE_BITS = 5
IMAGES = 512
# The published code's, of activations; only a faithful experiment keeps to it.
PUBLISHED_MOST = 6.0


def calibrate(
    experiment: Experiment, data: DataSet, evaluation: EvaluationGraph, *, images: int = IMAGES
) -> dict[str, float]:
    """Set the range of every quantizer with a fixed number of bits from the float network in the current scope.

    Weights and biases are looked at themselves; activations are those of the float network in evaluation mode on
    training images, so that no quantizer's first range decides the next one's.

    Args:
        experiment: network and batch size; `faithful` keeps activations to 6, as published.
        data: its training images.
        evaluation: the quantized network, whose parameters are set.
        images: how many of them.

    Returns:
        The range of each site that was set; of one with channels the largest. Quantizers without range are left out.

    Source:
        The published code of Wang et al., "Generalizable Mixed-Precision Quantization via Attribution Rank
        Preservation", ICCV 2021: below 5 bits by `kl_range`, above by the largest magnitude.
    """
    quantized = evaluation.quantized
    chosen = {name: site for name, site in quantized.sites.items() if _has_range(site)}
    network = quantized.network
    kinds = {network.site(name).kind for name in chosen if network.site(name).role == ACTIVATION}
    seen: dict[str, np.ndarray] = {}
    if kinds:
        plain = build_evaluation(experiment, data, Float(tuple(sorted(kinds))), accelerate=evaluation.clock is not None)
        seen = quantizer_inputs(plain, data, images)
    found = {}
    for name, own in chosen.items():
        site = network.site(name)
        numbers = seen[name] if site.role == ACTIVATION else _numbers(own)
        most = PUBLISHED_MOST if experiment.faithful and site.role == ACTIVATION else None
        values = own.quantizer.initial(own.bit_number(), _steps(site, own, numbers, most))
        if not np.any(numbers):
            continue
        for key, value in own.quantizer.constrain(values).items():
            if key != "bits":
                own.parameters[key].d = value
        found[name] = float(np.max(own.grid().step * own.grid().high))
    return found


def range_of(numbers: np.ndarray, bits: int, *, signed: bool, most: float | None = None) -> float:
    """Return the range for a width: by `kl_range` below 5 bits, the largest magnitude from there on.

    Args:
        numbers: a tensor, or a sample of it.
        bits: width, 1 or more.
        signed: whether one bit is the sign.
        most: no range is larger.

    Returns:
        The range, 0 where there is nothing but zeros.

    Example:
        >>> range_of(np.array([-3.0, 0.5]), 8, signed=True), range_of(np.array([9.0]), 8, signed=False, most=6.0)
        (3.0, 6.0)
    """
    magnitudes = np.abs(numbers) if signed else np.maximum(numbers, 0)
    largest = float(np.max(magnitudes, initial=0.0))
    if bits < WIDE_BITS and largest > 0:
        largest = kl_range(magnitudes, 2 ** (bits - int(signed)))
    return largest if most is None else min(largest, most)


def kl_range(magnitudes: np.ndarray, levels: int) -> float:
    """Return where to cut a tensor off so that few levels tell most about it.

    argmin over t of KL(P_t || Q_t): P_t the histogram up to t with all that lies beyond in its last bin, Q_t the
    histogram up to t spread over `levels` groups of bins, within a group over those that are not empty. Zeros lie on
    every grid, and do not count.

    Args:
        magnitudes: at least 0, any shape; some are not 0.
        levels: number of groups.

    Returns:
        An edge of the histogram, which has as many bins as the square root of the numbers.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> bulk = np.append(np.abs(rng.normal(size=10000)), 50.0)
        >>> 0.5 < kl_range(bulk, 8) < 5.0
        True

    Source:
        Migacz, "8-bit Inference with TensorRT", GTC 2017.
    """
    numbers = np.asarray(magnitudes, np.float64).reshape(-1)
    numbers = numbers[numbers > 0]
    bins = max(int(np.ceil(np.sqrt(numbers.size))), levels)
    counts, edges = np.histogram(numbers, bins, (0.0, float(np.max(numbers))))
    divergences = [_divergence(counts, kept, levels) for kept in range(levels, bins + 1)]
    return float(edges[levels + int(np.argmin(divergences))])


def _divergence(counts: np.ndarray, kept: int, levels: int) -> float:
    """KL divergence of the first bins, all beyond in the last, from their groups; infinite where it has no bound."""
    inside = counts[:kept].astype(np.float64)
    reference = inside.copy()
    reference[-1] += counts[kept:].sum()
    # The groups share the bins as evenly as whole bins go.
    group = np.arange(kept) * levels // kept
    filled = inside > 0
    mass = np.bincount(group, inside, levels)
    places = np.bincount(group, filled, levels)
    spread = np.where(filled, mass[group] / np.maximum(places[group], 1), 0.0)
    where = reference > 0
    if not spread.any() or np.any(spread[where] == 0):
        return float("inf")
    p, q = reference[where] / reference.sum(), spread[where] / spread.sum()
    return float(np.sum(p * np.log(p / q)))


def _has_range(site: Quantized) -> bool:
    return "bits" in site.parameters and "xmax" in site.parameters and hasattr(site.quantizer, "initial")


def _numbers(site: Quantized) -> np.ndarray:
    source = site.source
    assert source is not None
    if source.parent is not None:
        source.forward()
    return np.array(source.d, np.float32)


def _steps(site: Site, own: Quantized, numbers: np.ndarray, most: float | None) -> Any:
    """The distance of neighbouring levels, shape () or (C,)."""
    bits, quantizer = own.bit_number(), own.quantizer
    levels = 2 ** (bits - int(quantizer.signed)) - 1
    if np.ndim(own.parameters["xmax"].d) == 0:
        return range_of(numbers, bits, signed=quantizer.signed, most=most) / levels
    channels = np.moveaxis(numbers, quantizer.channel_axis, 0)
    return np.array([range_of(row, bits, signed=quantizer.signed, most=most) / levels for row in channels], np.float32)

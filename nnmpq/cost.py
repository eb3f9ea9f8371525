"""What a network costs: one definition for the penalty in training, the search, the report and the export.

Each target is a function of a network and the bits of its sites. Bits may be numbers or graph variables of shape ();
the cost is then of the same sort, so that a penalty can be learned from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Callable

import attrs
import nnabla as nn
import nnabla.functions as F

from nnmpq.graph.network import Network

FLOAT_BITS = 32
BITS_PER_KIB = 8 * 1024
Bits = Mapping[str, Any]


def _weighted_sum(terms: Sequence[tuple[float, Any]]) -> Any:
    """Sum of factor * term, a graph variable as soon as one term is one."""
    constant = sum(factor * term for factor, term in terms if not isinstance(term, nn.Variable))
    variables = [(factor, term) for factor, term in terms if isinstance(term, nn.Variable)]
    if not variables:
        return float(constant)
    stacked = F.stack(*(term for _, term in variables))
    factors = nn.Variable.from_numpy_array([factor for factor, _ in variables])
    total = F.sum(F.mul2(stacked, factors))
    return F.add_scalar(total, float(constant)) if constant else total


def _largest(terms: Sequence[tuple[float, Any]]) -> Any:
    """Largest factor * term; the gradient goes to one of the largest alone."""
    if not any(isinstance(term, nn.Variable) for _, term in terms):
        return float(max((factor * term for factor, term in terms), default=0.0))
    sizes = [
        F.mul_scalar(term, factor) if isinstance(term, nn.Variable) else F.constant(factor * term, ())
        for factor, term in terms
    ]
    return F.max(F.stack(*sizes))


def _stored_weights(network: Network, bits: Bits) -> list[tuple[float, Any]]:
    sites = [s for s in network.sites() if s.role != "activation"]
    return [(site.elements / BITS_PER_KIB, bits.get(site.name, FLOAT_BITS)) for site in sites]


def _stored_activations(network: Network, bits: Bits) -> list[tuple[float, Any]]:
    return [(s.elements / BITS_PER_KIB, bits[s.name]) for s in network.activations if s.name in bits]


def weights_kib(network: Network, bits: Bits) -> Any:
    """Return KiB of all weights and biases; those without bits count 32."""
    return _weighted_sum(_stored_weights(network, bits))


def activations_sum_kib(network: Network, bits: Bits) -> Any:
    """Return KiB of all activation sites that have bits, for one image."""
    return _weighted_sum(_stored_activations(network, bits))


def activations_max_kib(network: Network, bits: Bits) -> Any:
    """Return KiB of the largest activation site that has bits, for one image."""
    return _largest(_stored_activations(network, bits))


def _bitops(network: Network, bits: Bits, layers: Sequence[Any]) -> Any:
    terms: list[tuple[float, Any]] = []
    for layer in layers:
        weight = bits.get(layer.weight.name, FLOAT_BITS)
        # A layer that reads a concatenation works at the width of its widest part.
        read = [bits.get(name, FLOAT_BITS) for name in layer.inputs] or [FLOAT_BITS]
        activation = read[0] if len(read) == 1 else _largest([(1.0, b) for b in read])
        if isinstance(activation, nn.Variable) and isinstance(weight, nn.Variable):
            product: Any = F.mul2(weight, activation)
        elif isinstance(activation, nn.Variable):
            product = F.mul_scalar(activation, float(weight))
        elif isinstance(weight, nn.Variable):
            product = F.mul_scalar(weight, float(activation))
        else:
            product = weight * activation
        terms.append((float(layer.macs), product))
    return _weighted_sum(terms)


def bitops(network: Network, bits: Bits) -> Any:
    """Return the sum over all layers of MACs * weight bits * activation bits, for one image."""
    return _bitops(network, bits, network.layers)


def bitops_inner(network: Network, bits: Bits) -> Any:
    """Return the same without the first and the last layer, the papers' way."""
    return _bitops(network, bits, network.layers[1:-1])


def mean_bits(network: Network, bits: Bits) -> Any:
    """Return sqrt(BitOps / MACs): the one width of everything that would cost as many BitOps."""
    total = bitops(network, bits)
    macs = float(max(network.macs, 1))
    if isinstance(total, nn.Variable):
        return F.pow_scalar(F.mul_scalar(total, 1.0 / macs), 0.5)
    return (total / macs) ** 0.5


TARGETS: dict[str, Callable[[Network, Bits], Any]] = {
    "weights_kib": weights_kib,
    "activations_sum_kib": activations_sum_kib,
    "activations_max_kib": activations_max_kib,
    "bitops": bitops,
    "bitops_inner": bitops_inner,
    "mean_bits": mean_bits,
}


@attrs.frozen
class Cost:
    """What a network costs: KiB of 1024 bytes, BitOps for one image."""

    weights_kib: Any
    activations_sum_kib: Any
    activations_max_kib: Any
    bitops: Any
    bitops_inner: Any
    mean_bits: Any


def cost(network: Network, bits: Bits, *, scale_channels: Mapping[str, int] | None = None) -> Cost:
    """Add up what a network costs at these bits.

    Args:
        network: from `nnmpq.graph.trace.trace`.
        bits: bits by site name, numbers or graph variables of shape (). A weight without bits counts 32. An activation
            site without bits is not counted in KiB (Sony counts ReLU outputs alone), and as 32 bits in BitOps.
        scale_channels: number of scales that a weight site is stored with; each adds 4 bytes to the weights.

    Returns:
        Every target, floats for numbers and graph variables for graph variables.

    Example:
        >>> import nnabla.parametric_functions as PF
        >>> from nnmpq.graph.trace import trace
        >>> network = trace(PF.affine(nn.Variable((1, 64)), 16, with_bias=False, name="fc"))
        >>> cost(network, {"fc/affine/W": 4, "input": 8}).weights_kib
        0.5
    """
    found = {name: target(network, bits) for name, target in TARGETS.items()}
    if scale_channels:
        found["weights_kib"] = found["weights_kib"] + sum(scale_channels.values()) * 4 / 1024
    return Cost(**found)

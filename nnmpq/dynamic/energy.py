"""What a network with gates costs: what is always paid, and what each choice adds."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import attrs
import numpy as np

from nnmpq.files import nearest
from nnmpq.graph.network import Network

FLOAT_BITS = 32
# Energy of one multiplication and addition at 32, 4 and 1 bit, that of 4 bits being 1: fitted to the published results.
PUBLISHED = {32.0: 93.3, 4.0: 1.0, 1.0: 0.075}


def parse_table(words: Iterable[str]) -> dict[float, float]:
    """Read a table of energies: "BITS:ENERGY" for each width.

    Args:
        words: at least one; widths above 0, each once; energies above 0.

    Returns:
        Energy of a multiplication by width.

    Raises:
        ValueError: a word is none; it is named.

    Example:
        >>> parse_table(("32:93.3", "4:1"))
        {32.0: 93.3, 4.0: 1.0}
    """
    table: dict[float, float] = {}
    for word in words:
        bits, colon, energy = word.partition(":")
        try:
            pair = (float(bits), float(energy))
        except ValueError:
            pair = (0.0, 0.0)
        if not colon or not all(0 < number < math.inf for number in pair) or pair[0] in table:
            raise ValueError(f"{word!r}: a width and what a multiplication costs there, such as 4:1, each width once")
        table[pair[0]] = pair[1]
    if not table:
        raise ValueError("no width: at least one is needed, such as 4:1")
    return table


def energy_per_mac(table: Mapping[float, float], weight_bits: float, activation_bits: float) -> float:
    """Return the energy of one multiplication of a weight and an activation.

    The table's at b = sqrt(weight bits * activation bits); between two of its widths by a straight line in log b and
    log energy, outside of them by the line of the nearest two.

    Args:
        table: energy by width; with one width alone, energy grows as b^2, as BitOps do.
        weight_bits: 1 to 32.
        activation_bits: 1 to 32.

    Example:
        >>> [round(energy_per_mac(PUBLISHED, b, b), 3) for b in (1, 2, 4, 32)]
        [0.075, 0.274, 1.0, 93.3]
    """
    widths = sorted(table)
    x = math.log(math.sqrt(weight_bits * activation_bits))
    if len(widths) == 1:
        return table[widths[0]] * math.exp(2 * (x - math.log(widths[0])))
    place = int(np.clip(np.searchsorted(np.log(widths), x), 1, len(widths) - 1))
    low, high = widths[place - 1], widths[place]
    share = (x - math.log(low)) / (math.log(high) - math.log(low))
    return math.exp((1 - share) * math.log(table[low]) + share * math.log(table[high]))


@attrs.frozen
class Work:
    """What some layers do for one image.

    Args:
        energy: in units of the table.
        bitops: sum of MACs * weight bits * activation bits.
        macs: multiplications.
    """

    energy: float = 0.0
    bitops: float = 0.0
    macs: float = 0.0

    def __add__(self, other: Work) -> Work:
        return Work(self.energy + other.energy, self.bitops + other.bitops, self.macs + other.macs)


def work_of(
    network: Network,
    bits: Mapping[str, float],
    table: Mapping[float, float],
    layers: Iterable[str] | None = None,
) -> Work:
    """Add up what layers do for one image.

    Args:
        network: from the trace.
        bits: by site name; 32 where a site has none.
        table: energy of a multiplication by width.
        layers: names of the layers that count; all if None.

    Example:
        >>> import nnabla as nn, nnabla.parametric_functions as PF
        >>> from nnmpq.graph.trace import trace
        >>> network = trace(PF.affine(nn.Variable((1, 64)), 10, with_bias=False, name="fc"))
        >>> work_of(network, {"fc/affine/W": 4, "input": 4}, PUBLISHED)
        Work(energy=640.0, bitops=10240.0, macs=640.0)
    """
    wanted = None if layers is None else set(layers)
    if wanted is not None:
        for name in wanted - {layer.name for layer in network.layers}:
            raise ValueError(f"no layer {name!r}; the nearest is {nearest(name, [x.name for x in network.layers])!r}")
    total = Work()
    for layer in network.layers:
        if wanted is not None and layer.name not in wanted:
            continue
        weight = bits.get(layer.weight.name, FLOAT_BITS)
        read = max((bits.get(name, FLOAT_BITS) for name in layer.inputs), default=FLOAT_BITS)
        energy = energy_per_mac(table, weight, read)
        total += Work(energy * layer.macs, weight * read * layer.macs, layer.macs)
    return total


@attrs.frozen
class Account:
    """What a network with gates costs, choice by choice.

    Args:
        always: stem and tail.
        gates: of each block, its gate.
        paths: of each block, each precision's path, the narrowest first.
        reads_low: the gate reads the narrowest path, which therefore always runs.
    """

    always: Work
    gates: Sequence[Work]
    paths: Sequence[Sequence[Work]]
    reads_low: bool = True

    def _sum(self, choices: Any, of: str) -> np.ndarray:
        chosen = np.asarray(choices)
        total = np.full(len(chosen), getattr(self.always, of), np.float64)
        for block, (gate, paths) in enumerate(zip(self.gates, self.paths)):
            cost = np.array([getattr(path, of) for path in paths])
            if self.reads_low:
                cost[1:] += cost[0]
            total += getattr(gate, of) + cost[chosen[:, block].astype(int)]
        return total

    def energy(self, choices: Any) -> np.ndarray:
        """Return the energy of each image, shape (B,); choices by image and block, 0 the narrowest."""
        return self._sum(choices, "energy")

    def bitops(self, choices: Any) -> np.ndarray:
        """Return the BitOps of each image; arguments as of `energy`."""
        return self._sum(choices, "bitops")

    def uniform(self, precision: int) -> Work:
        """Return what the same network costs with one precision everywhere and no gates, -1 the widest."""
        return sum((paths[precision] for paths in self.paths), self.always)

    def extra(self) -> np.ndarray:
        """Return what each choice adds to the narrowest one, as share of the energy of the uniform widest network.

        Returns:
            Shape (blocks, precisions), the first column zero.
        """
        found = np.array([[path.energy for path in paths] for paths in self.paths])
        if not self.reads_low:
            found = found - found[:, :1]
        found[:, 0] = 0.0
        return found / self.uniform(-1).energy

    def share(self, choices: Any) -> np.ndarray:
        """Return the energy of each image as share of that of the uniform widest network."""
        return self.energy(choices) / self.uniform(-1).energy

    def least_share(self) -> float:
        """Return the share where every gate takes the narrowest path."""
        return float(self.share(np.zeros((1, len(self.gates))))[0])

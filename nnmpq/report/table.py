"""Bits per layer as a text table, with the totals against the budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from nnmpq.budget import Budget
from nnmpq.cost import FLOAT_BITS, Cost, weights_kib
from nnmpq.cost import cost as cost_of
from nnmpq.graph.network import Network

COST_LABELS = {
    "weights_kib": "weights, KiB",
    "activations_sum_kib": "activations, sum, KiB",
    "activations_max_kib": "activations, largest, KiB",
    "bitops": "BitOps, all layers",
    "bitops_inner": "BitOps, without first and last",
    "mean_bits": "mean bits, sqrt(BitOps / MACs)",
}


def bits_table(
    network: Network,
    bits: Mapping[str, float],
    cost: Cost | None = None,
    budget: Budget | None = None,
) -> str:
    """Return a table of bits per layer, followed by what they cost and what the budget allows.

    KiB of a layer = (weights x weight bits + biases x bias bits) / 8192; a weight that several layers share
    is counted with the first of them. "activation bits" are those of the activation that the layer reads.

    Args:
        network: a traced network.
        bits: bits of each site by its name, 32 for float; a missing site counts as float.
        cost: what the bits cost; by default computed here.
        budget: limits to set the cost against; by default none.

    Returns:
        Lines of text without a newline at the end.

    Example:
        >>> from nnmpq.graph.network import Layer, Network, Site
        >>> weight = Site("fc/affine/W", "weight", "affine", (64, 10), signed=True, layer="fc/affine")
        >>> layer = Layer("fc/affine", "affine", weight, None, 640, None, (64,), (10,))
        >>> print(bits_table(Network((layer,), ()), {"fc/affine/W": 4}).splitlines()[1])
        fc/affine  affine         640   640            4               32  0.312
    """
    used = cost_of(network, bits) if cost is None else cost
    return "\n".join([*layer_lines(network, bits), "", *cost_lines(used, budget)])


def layer_lines(network: Network, bits: Mapping[str, float]) -> list[str]:
    """Return the lines of the table proper: one a layer between a heading and the totals."""
    rows = [["layer", "kind", "parameters", "MACs", "weight bits", "activation bits", "KiB"]]
    all_parameters, all_kib = 0, 0.0
    seen: set[str] = set()
    for layer in network.layers:
        alone = Network((layer,) if layer.weight.name not in seen else (), ())
        seen.add(layer.weight.name)
        parameters = sum(site.elements for site in alone.sites())
        kib = float(weights_kib(alone, bits))
        all_parameters, all_kib = all_parameters + parameters, all_kib + kib
        read = FLOAT_BITS if layer.input is None else bits.get(layer.input, FLOAT_BITS)
        numbers = [f"{parameters:,}", f"{layer.macs:,}", bits_text(bits.get(layer.weight.name, FLOAT_BITS))]
        rows.append([layer.name, layer.kind, *numbers, bits_text(read), f"{kib:.3f}"])
    rows.append(["total", "", f"{all_parameters:,}", f"{network.macs:,}", "", "", f"{all_kib:.3f}"])
    return aligned(rows, left=2)


def cost_lines(cost: Cost, budget: Budget | None = None) -> list[str]:
    """Return one line for each cost: what is used and, where the budget limits it, limit and share."""
    budget = budget or Budget()
    limits, excess = budget.limits(), budget.excess(cost)
    rows = [["cost", "used", "budget", "share", ""]]
    for name, label in COST_LABELS.items():
        used, verdict = float(getattr(cost, name)), ["-", "", ""]
        if name in limits:
            share = f"{used / limits[name]:.1%}"
            verdict = [number_text(limits[name]), share, "EXCEEDED" if name in excess else "met"]
        rows.append([label, number_text(used), *verdict])
    return [line.rstrip() for line in aligned(rows, left=1)]


def bits_text(bits: float) -> str:
    """Return a number of bits as text: whole where it is whole, else with two decimals."""
    return f"{bits:.0f}" if float(bits).is_integer() else f"{bits:.2f}"


def number_text(number: float) -> str:
    """Return a cost as text: large ones in millions (M) or billions (G), small ones with three decimals.

    Example:
        >>> number_text(1_523_000_000.0), number_text(70.0)
        ('1.523 G', '70.000')
    """
    for factor, unit in ((1e9, " G"), (1e6, " M")):
        if abs(number) >= factor:
            return f"{number / factor:,.3f}{unit}"
    return f"{number:,.3f}"


def aligned(rows: Sequence[Sequence[str]], left: int) -> list[str]:
    """Return rows as lines with columns of equal width; the first `left` stand left, the others right."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows)]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(width) if index < left else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths))
        ]
        lines.append("  ".join(cells))
    return lines

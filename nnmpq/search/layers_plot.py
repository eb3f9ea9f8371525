"""Bits per layer beside what each layer computes and stores."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from nnmpq.cost import FLOAT_BITS
from nnmpq.files import atomic_write
from nnmpq.graph.network import Network
from nnmpq.report.plots import ACTIVATION_COLOUR, DOTS_PER_INCH, WEIGHT_COLOUR, bar_top, draw_bars

SIZE_COLOUR = "#718096"


def layers_plot(path: Path, network: Network, bits: Mapping[str, float], title: str = "") -> None:
    """Draw a layer's weight bits, the bits of what it reads, its MACs and its parameters, into a PNG file.

    Four panels over the same layers, in execution order; MACs and parameters as shares of the network's.

    Args:
        path: the picture to write, whole or not at all.
        network: a traced network with at least one layer.
        bits: of each site by its name, 32 for float; a missing site counts as float.
        title: text above the picture.

    Raises:
        ValueError: the network has no layer.
    """
    layers = network.layers
    if not layers:
        raise ValueError("a network without layers has no bits to draw")
    weights = [bits.get(layer.weight.name, FLOAT_BITS) for layer in layers]
    reads = [FLOAT_BITS if layer.input is None else bits.get(layer.input, FLOAT_BITS) for layer in layers]
    stored = [sum(site.elements for site in (layer.weight, layer.bias) if site is not None) for layer in layers]
    width = max(6.4, 1.2 + 0.22 * len(layers))
    height = 6.6 + 0.07 * max(len(layer.name) for layer in layers)
    figure = Figure(figsize=(width, height), dpi=DOTS_PER_INCH, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(4, 1, sharex=True, height_ratios=(1.3, 1.3, 1, 1))
    top = bar_top([*weights, *reads])
    draw_bars(panels[0], weights, top, WEIGHT_COLOUR, "weight bits")
    draw_bars(panels[1], reads, top, ACTIVATION_COLOUR, "activation bits")
    for axes, numbers, label in (
        (panels[2], [x.macs for x in layers], "MACs, %"),
        (panels[3], stored, "parameters, %"),
    ):
        total = max(sum(numbers), 1)
        axes.bar(range(len(layers)), [100 * number / total for number in numbers], width=0.75, color=SIZE_COLOUR)
        axes.set_ylabel(label)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(axis="x", length=0)
    panels[3].set_xticks(range(len(layers)), [layer.name for layer in layers], rotation=90, fontsize=8)
    panels[3].set_xlim(-0.7, len(layers) - 0.3)
    if title:
        figure.suptitle(title, fontsize=11)
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    atomic_write(path, picture.getvalue())

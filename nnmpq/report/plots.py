"""Bits per layer as a bar plot."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from nnmpq.cost import FLOAT_BITS
from nnmpq.files import atomic_write
from nnmpq.graph.network import Network
from nnmpq.report.table import bits_text

WEIGHT_COLOUR, ACTIVATION_COLOUR, FLOAT_COLOUR = "#2b6cb0", "#c05621", "#dddddd"
DOTS_PER_INCH = 100


def bits_plot(path: str | os.PathLike[str], network: Network, bits: Mapping[str, float], title: str = "") -> None:
    """Draw weight bits and activation bits per layer, in execution order, into a PNG file.

    Two panels over the same layers: bits of the layer's weight above, of the activation that it reads below.
    Float (32 bit) is drawn as a pale bar of full height. The file appears whole or not at all.

    Args:
        path: the picture to write; its folder is made where it is missing.
        network: a traced network with at least one layer.
        bits: bits of each site by its name, 32 for float; a missing site counts as float.
        title: text above the picture.

    Raises:
        ValueError: the network has no layer.
        OSError: the folder cannot be written.

    Example:
        >>> import tempfile
        >>> from nnmpq.graph.network import Layer, Network, Site
        >>> weight = Site("fc/affine/W", "weight", "affine", (64, 10), signed=True, layer="fc/affine")
        >>> layer = Layer("fc/affine", "affine", weight, None, 640, None, (64,), (10,))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     bits_plot(Path(folder, "bits.png"), Network((layer,), ()), {"fc/affine/W": 4})
        ...     print([item.name for item in Path(folder).iterdir()])
        ['bits.png']
    """
    if not network.layers:
        raise ValueError("a network without layers has no bits to draw")
    weights = [bits.get(layer.weight.name, FLOAT_BITS) for layer in network.layers]
    reads = [FLOAT_BITS if layer.input is None else bits.get(layer.input, FLOAT_BITS) for layer in network.layers]
    top = bar_top([*weights, *reads])
    width = max(6.4, 1.2 + 0.22 * len(network.layers))
    height = 4.6 + 0.07 * max(len(layer.name) for layer in network.layers)
    figure = Figure(figsize=(width, height), dpi=DOTS_PER_INCH, layout="constrained")
    FigureCanvasAgg(figure)
    above, below = figure.subplots(2, 1, sharex=True)
    draw_bars(above, weights, top, WEIGHT_COLOUR, "weight bits")
    draw_bars(below, reads, top, ACTIVATION_COLOUR, "activation bits")
    below.set_xticks(range(len(weights)), [layer.name for layer in network.layers], rotation=90, fontsize=8)
    below.set_xlim(-0.7, len(weights) - 0.3)
    if title:
        figure.suptitle(title, fontsize=11)
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    atomic_write(Path(path), picture.getvalue())


def bar_top(bits: Sequence[float]) -> float:
    """Return the height of the panels: the most bits that are not float, 8 at least."""
    return max([8.0, *(count for count in bits if count < FLOAT_BITS)])


def draw_bars(axes: Axes, bits: Sequence[float], top: float, colour: str, label: str) -> None:
    """Draw one panel: a bar a layer with its number of bits above it."""
    heights = [min(count, top) for count in bits]
    colours = [colour if count < FLOAT_BITS else FLOAT_COLOUR for count in bits]
    axes.bar(range(len(bits)), heights, width=0.75, color=colours)
    for place, (count, height) in enumerate(zip(bits, heights)):
        axes.text(place, height + 0.1, bits_text(count), ha="center", va="bottom", fontsize=8)
    axes.set_ylim(0, top * 1.12)
    axes.set_ylabel(label)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(axis="x", length=0)

"""What the gates of a finished run did: shares by block and class, example images, accuracy against energy."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import attrs
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from nnmpq.dynamic.evaluate import Choices
from nnmpq.files import atomic_write

DOTS_PER_INCH = 100
# A network that needs so many times the energy of all others would leave them one column of the plot.
FAR = 1.5


@attrs.frozen
class Point:
    """A network in the plot of accuracy against energy.

    Args:
        name: what it is.
        energy: as share of the widest uniform network's.
        accuracy: 0 to 1.
    """

    name: str
    energy: float
    accuracy: float


def shares(found: Choices, classes: int) -> np.ndarray:
    """Return the share of images on the widest path by class and block, shape (classes, N); NaN for absent classes.

    Args:
        found: what the gates did.
        classes: number of classes.
    """
    widest = found.chosen == found.probabilities.shape[2] - 1
    table = np.full((classes, widest.shape[1]), np.nan)
    for label in range(classes):
        if np.any(found.labels == label):
            table[label] = widest[found.labels == label].mean(axis=0)
    return table


def write_shares(path: Path, found: Choices, blocks: Sequence[str], classes: int) -> None:
    """Write a CSV with a line a block: mean share, how P(widest) varies between images, share by class.

    Args:
        path: the file.
        found: what the gates did.
        blocks: names of the blocks.
        classes: number of classes.
    """
    table = shares(found, classes)
    widest = found.chosen == found.probabilities.shape[2] - 1
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["block", "widest", "probability", "deviation", *(f"class_{label}" for label in range(classes))])
    for number, name in enumerate(blocks):
        p = found.probabilities[:, number, -1].astype(np.float64)
        numbers = [widest[:, number].mean(), p.mean(), p.std(), *table[:, number]]
        writer.writerow([name, *(f"{value:.4f}" for value in numbers)])
    atomic_write(path, stream.getvalue())


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as a PNG, whole or not at all; equal figures give equal bytes."""
    FigureCanvasAgg(figure)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=DOTS_PER_INCH, metadata={"Software": None})
    atomic_write(path, stream.getvalue())


def draw_shares(path: Path, found: Choices, blocks: Sequence[str], classes: int) -> None:
    """Draw the share of the widest path by class and block; arguments as of `write_shares`."""
    figure = Figure(figsize=(max(4.0, 0.35 * len(blocks) + 1.5), max(3.0, 0.2 * classes + 1.5)), layout="tight")
    axes = figure.add_subplot()
    drawn = axes.imshow(shares(found, classes), vmin=0, vmax=1, aspect="auto", cmap="viridis")
    axes.set_xticks(range(len(blocks)), blocks, rotation=90, fontsize=7)
    axes.set_ylabel("class")
    figure.colorbar(drawn, label="share on the widest path")
    save_figure(figure, path)


def draw_examples(path: Path, found: Choices, images: np.ndarray, count: int = 10) -> None:
    """Draw the images that cost least and most.

    Args:
        path: the picture.
        found: what the gates did with them.
        images: uint8, shape (M, C, H, W), in the same order.
        count: of each kind.
    """
    order = np.argsort(found.energy, kind="stable")
    count = min(count, len(order))
    figure = Figure(figsize=(max(4.0, 0.9 * count), 2.6), layout="tight")
    for row, (word, chosen) in enumerate((("cheap", order[:count]), ("dear", order[::-1][:count]))):
        for column, number in enumerate(chosen):
            axes = figure.add_subplot(2, count, row * count + column + 1)
            pixels = images[number].transpose(1, 2, 0)
            axes.imshow(pixels if pixels.shape[2] == 3 else pixels[:, :, 0], cmap="gray")
            axes.set_axis_off()
            axes.set_title(f"{word if not column else ''} {found.energy[number]:.2f}", fontsize=7)
    save_figure(figure, path)


def mark_uniform(axes: Axes, point: Point, limit: float) -> None:
    """Mark a uniform network; one beyond the limit, such as a float one, as a level line with its energy in words."""
    if point.energy <= limit:
        axes.plot([point.energy], [100 * point.accuracy], marker="s", linestyle="", label=point.name)
    else:
        label = f"{point.name}, at {point.energy:.3g}"
        axes.axhline(100 * point.accuracy, color="gray", linestyle=":", label=label)


def draw_energy(path: Path, curve: Sequence[Point], others: Sequence[Point]) -> None:
    """Draw accuracy against energy: the curve of one network at many prices, and others as points.

    Args:
        path: the picture.
        curve: in order of energy.
        others: uniform networks.
    """
    figure = Figure(figsize=(5, 3.5), layout="tight")
    axes = figure.add_subplot()
    ordered = sorted(curve, key=lambda point: point.energy)
    axes.plot([p.energy for p in ordered], [100 * p.accuracy for p in ordered], marker="o", label="gates")
    limit = FAR * max(point.energy for point in (*curve, Point("widest", 1.0, 0.0)))
    for point in others:
        mark_uniform(axes, point, limit)
    axes.set_xlabel("energy, share of the widest uniform network's")
    axes.set_ylabel("validation accuracy, %")
    axes.legend(fontsize=7)
    save_figure(figure, path)


def write_points(path: Path, points: Mapping[str, Sequence[Point]]) -> None:
    """Write the points of the plot as a CSV: kind, name, energy, accuracy."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["kind", "name", "energy", "accuracy"])
    for kind, members in points.items():
        writer.writerows([kind, p.name, f"{p.energy:.5f}", f"{p.accuracy:.5f}"] for p in members)
    atomic_write(path, stream.getvalue())

"""The comparison of searches as a picture: each method's test accuracies at each budget, uniform's mean as a line."""

from __future__ import annotations

import io
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

DOTS_PER_INCH = 130
SEED_COLOUR, MEAN_COLOUR, UNIFORM_COLOUR = "#56b4e9", "#0072b2", "#7f7f7f"
UNIFORM = "uniform"


def accuracy_chart(accuracies: Mapping[str, Mapping[str, Sequence[float]]]) -> bytes:
    """Draw a panel for each budget and return the PNG.

    Args:
        accuracies: by budget and method, a share of right answers a seed; methods without any are left out.

    Raises:
        ValueError: there is no accuracy at all.
    """
    shown = {
        budget: {method: values for method, values in found.items() if values} for budget, found in accuracies.items()
    }
    shown = {budget: found for budget, found in shown.items() if found}
    if not shown:
        raise ValueError("no accuracies to draw: no policy has been trained yet")
    rows = max(len(found) for found in shown.values())
    figure = Figure(figsize=(3.4 * len(shown) + 1.2, 0.42 * rows + 1.3), dpi=DOTS_PER_INCH, layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (budget, found) in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown.items()):
        _panel(axes, found)
        axes.set_title(f"limits: what uniform {budget} bits cost", fontsize=9)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _panel(axes: Any, found: Mapping[str, Sequence[float]]) -> None:
    if UNIFORM in found:
        axes.axvline(100 * statistics.mean(found[UNIFORM]), color=UNIFORM_COLOUR, linewidth=1, linestyle="--")
    for place, values in enumerate(found.values()):
        percent = [100 * value for value in values]
        axes.plot(percent, [place] * len(percent), "o", color=SEED_COLOUR, markersize=5)
        axes.plot([statistics.mean(percent)], [place], "|", color=MEAN_COLOUR, markersize=16, markeredgewidth=2.5)
    axes.set_yticks(range(len(found)), list(found), fontsize=9)
    axes.set_ylim(len(found) - 0.5, -0.5)
    axes.set_xlabel("test accuracy, %: a dot a seed, a bar their mean", fontsize=8)
    axes.tick_params(axis="x", labelsize=8)
    axes.grid(axis="x", linewidth=0.4)
    axes.spines[["top", "right"]].set_visible(False)

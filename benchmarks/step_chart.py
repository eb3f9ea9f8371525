"""The step-time benchmark as a bar chart: how many times longer than the accelerated step each other one takes."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt  # noqa: E402

from benchmarks.round_robin import Spread, ratios, spread  # noqa: E402
from benchmarks.step_contenders import ACCELERATED, PLAIN, TORCH, Contender  # noqa: E402
from benchmarks.step_race import Result  # noqa: E402

# Colours that those who see no red or green tell apart, by what a contender is called without its threads.
COLOURS = {
    PLAIN: "#7f7f7f",
    f"{TORCH} nchw": "#56b4e9",
    f"{TORCH} channels_last": "#0072b2",
    f"{TORCH} compiled": "#e69f00",
}


def bars(result: Result, threads: int) -> dict[str, Spread]:
    """Return by contender's name its time over the accelerated one's, of one number of threads.

    Plain nnabla, which has one thread, stands beside every number.
    """
    ours = Contender(ACCELERATED, "accelerated", threads)
    found = {}
    for contender, times in result.seconds.items():
        if contender.library == ACCELERATED or (contender.library == TORCH and contender.threads != threads):
            continue
        if ours in result.seconds:
            found[contender.name.split(",")[0]] = spread(ratios(times, result.seconds[ours]))
    return found


def _panel(axes: Any, result: Result, threads: int) -> None:
    found = bars(result, threads)
    for place, (name, numbers) in enumerate(found.items()):
        axes.barh(place, numbers.median - 1, left=1, color=COLOURS[name], height=0.7)
        axes.plot(numbers[::2], (place, place), color="black", linewidth=1)
        axes.annotate(
            f"{numbers.median:.2f}" if numbers.median < 10 else f"{numbers.median:.0f}",
            (max(numbers.most, 1.0), place),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
        )
    axes.set_xscale("log")
    axes.set_yticks(range(len(found)), list(found), fontsize=8)
    axes.invert_yaxis()
    axes.axvline(1, color="black", linewidth=1.2)
    axes.set_title(
        f"{result.race.network}, {result.race.kind}, {threads} thread{'s' if threads > 1 else ''}", fontsize=9
    )


def draw(results: Sequence[Result]) -> bytes:
    """Return a PNG: a row a race, a column a number of threads, a bar a contender, a thin line from min to max.

    Raises:
        ValueError: no race has anyone to compare with.
    """
    shown = [result for result in results if any(c.library == ACCELERATED for c in result.seconds)]
    counts = sorted({c.threads for result in shown for c in result.seconds if c.library == ACCELERATED})
    if not any(bars(result, count) for result in shown for count in counts):
        raise ValueError("nothing to draw: nobody ran beside the accelerated step")
    figure, grid = plt.subplots(
        len(shown), len(counts), figsize=(4.6 * len(counts) + 0.6, 1.5 * len(shown) + 0.6), squeeze=False, sharex=True
    )
    for line, result in zip(grid, shown):
        for axes, count in zip(line, counts):
            _panel(axes, result, count)
    low, high = grid[0][0].get_xlim()
    low, high = min(low, 0.85), high * 1.4
    grid[0][0].set_xlim(low, high)
    ticks = [tick for tick in (0.2, 0.5, 1, 2, 5, 10, 20, 50, 100) if low <= tick <= high]
    for axes in grid[-1]:
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks], fontsize=8)
        axes.minorticks_off()
        axes.set_xlabel("time of a step / accelerated step (log scale)", fontsize=8)
    figure.tight_layout()
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=130)
    plt.close(figure)
    return stream.getvalue()

"""Wall time of inference against the share of wide paths: python benchmarks/skip_time.py --out FOLDER.

The gates are those of a random PreAct-ResNet, or of a trained one with --weights; a price of wide paths moves the
share from none to all. Prints, and draws, the time of the network that leaves out what was not chosen beside that of
the mixed network, which computes all paths.
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Callable

import nnabla as nn
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from nnmpq.dynamic.decide import greedy
from nnmpq.dynamic.network import DynamicNetwork, DynamicSettings, build_dynamic
from nnmpq.dynamic.skip import skipping
from nnmpq.graph.accelerate import accelerate_where_possible
from nnmpq.graph.schemes import Parametric, SiteSettings
from nnmpq.models import build
from nnmpq.threads import set_threads

# Logits of a gate at its start lie within some units of zero.
PRICES = (30.0, 1.0, 0.4, 0.2, 0.0, -0.2, -0.4, -1.0, -30.0)


def make_network(batch: int, side: int, depth: int, width: float, price: nn.Variable) -> DynamicNetwork:
    """Build a network with published quantizers and gates in the current scope."""
    images = nn.Variable((batch, 3, side, side))
    y = build("preact_resnet", images, 10, num_layers=depth, width_multiplier=width, test=True, seed=0)
    fixed = SiteSettings("pact", 4, 1 / 15, options={"xmax_limits": (1.0, 1.0)})
    settings = DynamicSettings(Parametric(weight=SiteSettings("dorefa"), activation=fixed))
    costs = np.array([0.0, 1.0])
    return build_dynamic(
        y, settings, lambda block, logits: greedy(logits, costs, price), test=True, rng=np.random.RandomState(0)
    )


def seconds(action: Callable[[], object], rounds: int) -> float:
    """Return the least time of several rounds, after one that is not counted."""
    action()
    found = []
    for _ in range(rounds):
        start = time.perf_counter()
        action()
        found.append(time.perf_counter() - start)
    return min(found)


def measure(arguments: argparse.Namespace) -> list[dict[str, float]]:
    """Return a row a price: share of wide paths, seconds when skipping and when mixing."""
    nn.clear_parameters()
    price = nn.Variable((1, 1))
    network = make_network(arguments.batch, arguments.side, arguments.depth, arguments.width, price)
    if arguments.weights is not None:
        nn.load_parameters(arguments.weights)
    images = np.random.RandomState(0).randn(*network.images.shape).astype(np.float32)
    network.images.d = images
    run = skipping(network, fast=arguments.fast)
    mixed = network.output
    if arguments.fast:
        found = accelerate_where_possible([mixed])
        mixed = mixed if found is None else found.outputs[0]
    rows = []
    for value in PRICES:
        price.d = value
        _, taken = run(images)
        rows.append(
            {
                "price": value,
                "share": float(taken.mean()),
                "skipping": seconds(lambda: run(images), arguments.rounds),
                "mixed": seconds(lambda: mixed.forward(clear_buffer=True), arguments.rounds),
            }
        )
    return sorted(rows, key=lambda row: row["share"])


def draw(path: Path, rows: Sequence[dict[str, float]], title: str) -> None:
    """Draw both times against the share."""
    figure = Figure(figsize=(5, 3.5), layout="tight")
    axes = figure.add_subplot()
    for name in ("skipping", "mixed"):
        axes.plot([row["share"] for row in rows], [1000 * row[name] for row in rows], marker="o", label=name)
    axes.set_xlabel("share of wide paths")
    axes.set_ylabel("ms a batch")
    axes.set_ylim(bottom=0)
    axes.set_title(title, fontsize=8)
    axes.legend(fontsize=8)
    FigureCanvasAgg(figure)
    figure.savefig(path, dpi=100)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, draw; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, default=Path("skip_time"), help="folder for the CSV and the picture")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--side", type=int, default=32, help="height and width of the images")
    parser.add_argument("--depth", type=int, default=20)
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--fast", action="store_true", help="on oneDNN and numba instead of nnabla's own functions")
    parser.add_argument("--weights", help=".h5 of a trained network of this shape")
    arguments = parser.parse_args(argv)
    set_threads(arguments.threads)
    rows = measure(arguments)
    arguments.out.mkdir(parents=True, exist_ok=True)
    with open(arguments.out / "skip_time.csv", "w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    title = f"PreAct-ResNet-{arguments.depth}, batch {arguments.batch}, {arguments.side} pixels"
    draw(arguments.out / "skip_time.png", rows, title)
    full = rows[-1]["skipping"]
    for row in rows:
        print(
            f"share {row['share']:.2f}: skipping {1000 * row['skipping']:7.1f} ms ({row['skipping'] / full:.2f} of all "
            f"wide), mixed {1000 * row['mixed']:7.1f} ms"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())

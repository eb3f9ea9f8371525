"""Wall time of inference that leaves out what no gate chose: python benchmarks/skip_time.py --out FOLDER.

Draws time against the share of wide paths, beside the mixed network, which computes all of them. The gates are those of
a random PreAct-ResNet, or with --run those of a finished run on its test images; a price of wide paths moves the share
from none to all. With --runs FOLDER ... it measures an image's time in each of several finished runs instead, with
gates or uniform, taking turns. Weights are quantized once in all of them.
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Callable

import nnabla as nn
import numpy as np
from matplotlib.figure import Figure

from nnmpq.data.batches import numbers_of
from nnmpq.data.dataset import Split
from nnmpq.dynamic.blocks import constants_of, on_other_input
from nnmpq.dynamic.decide import greedy
from nnmpq.dynamic.finished import FinishedRun, experiment_of, load_gates
from nnmpq.dynamic.network import DynamicNetwork, DynamicSettings, build_dynamic, input_of
from nnmpq.dynamic.report import save_figure
from nnmpq.dynamic.skip import Stage, mixed_with_constants, skipping
from nnmpq.export.trained import load_run
from nnmpq.graph.schemes import Parametric, SiteSettings
from nnmpq.models import build
from nnmpq.threads import set_threads

# Logits of a gate lie within some units of zero.
PRICES = (30.0, 10.0, 7.0, 5.0, 3.0, 1.0, 0.0, -1.0, -3.0, -5.0, -7.0, -10.0, -30.0)
# How many different batches of test images are timed.
BATCHES = 4


def random_network(batch: int, side: int, depth: int, width: float, price: nn.Variable) -> DynamicNetwork:
    """Build a network with published quantizers and random gates in the current scope, cleared first."""
    nn.clear_parameters()
    images = nn.Variable((batch, 3, side, side))
    y = build("preact_resnet", images, 10, num_layers=depth, width_multiplier=width, test=True, seed=0)
    fixed = SiteSettings("pact", 4, 1 / 15, options={"xmax_limits": (1.0, 1.0)})
    settings = DynamicSettings(Parametric(weight=SiteSettings("dorefa"), activation=fixed))
    costs = np.array([0.0, 1.0])
    return build_dynamic(
        y, settings, lambda block, logits: greedy(logits, costs, price), test=True, rng=np.random.RandomState(0)
    )


def images_of(found: FinishedRun, count: int) -> np.ndarray:
    """Return the first test images as the network takes them."""
    assert isinstance(found.data.test, Split)
    return np.asarray(numbers_of(found.data, found.data.test.images[:count]), np.float32)


def seconds(actions: Sequence[Callable[[], object]], rounds: int) -> list[float]:
    """Return the median time of each action; they take turns, after one round that is not counted."""
    found = np.zeros((rounds + 1, len(actions)))
    for turn in range(rounds + 1):
        for number, action in enumerate(actions):
            start = time.perf_counter()
            action()
            found[turn, number] = time.perf_counter() - start
    return [float(value) for value in np.median(found[1:], axis=0)]


def curve(network: DynamicNetwork, price: nn.Variable, images: np.ndarray, rounds: int, fast: bool) -> list[Any]:
    """Return a row a price: share of wide paths, milliseconds an image when skipping and when mixing."""
    run = skipping(network, fast=fast)
    entry, logits = mixed_with_constants(network)
    mixed = Stage.of(entry, [logits], fast)
    given = nn.NdArray.from_numpy_array(images)
    rows = []
    for value in PRICES:
        price.d = value
        _, taken = run(images)
        skipped, whole = seconds([lambda: run(images), lambda: mixed(given)], rounds)
        scale = 1000 / len(images)
        rows.append({"price": value, "share": float(taken.mean()), "skipping": skipped * scale, "mixed": whole * scale})
    return sorted(rows, key=lambda row: row["share"])


def classifier(
    folder: Path, data_dir: str | None, images: int, fast: bool
) -> tuple[Callable[[np.ndarray], object], np.ndarray]:
    """Return what classifies images by a finished run, with gates or uniform, and test images for it."""
    if experiment_of(folder).gate_training is not None:
        found = load_gates(folder, data_dir=data_dir, batch=images)
        return skipping(found.evaluation.network, fast=fast), images_of(found, images)
    trained = load_run(folder, images=images, data_dir=data_dir)
    output, entry = trained.quantized.output, input_of(trained.quantized.float_outputs[0])
    own = nn.Variable(entry.shape)
    stage = Stage.of(own, [on_other_input(output, entry, own, constants_of(output, entry))[0]], fast)
    numbers = np.asarray(trained.prepare(trained.images), np.float32)
    return lambda x: stage(nn.NdArray.from_numpy_array(x)), numbers


def times_of_runs(
    folders: Sequence[Path], data_dir: str | None, batch: int, rounds: int, fast: bool
) -> list[dict[str, Any]]:
    """Return a row a run: milliseconds an image, in batches and one at a time; the runs take turns.

    All see the same images. The batches differ, so that graphs are set up again for each number of rows, as in use.
    """
    made = [classifier(folder, data_dir, BATCHES * batch, fast) for folder in folders]
    batched = seconds([partial(_each, run, x, batch) for run, x in made], rounds)
    single = seconds([partial(_each, run, x[:batch], 1) for run, x in made], rounds)
    return [
        {"name": folder.name, "one_ms": 1000 * one / batch, "batch_ms": 1000 * many / (BATCHES * batch)}
        for folder, one, many in zip(folders, single, batched)
    ]


def _each(run: Callable[[np.ndarray], object], images: np.ndarray, batch: int) -> None:
    for first in range(0, len(images), batch):
        run(images[first : first + batch])


def picture(rows: Sequence[Mapping[str, float]], title: str) -> Figure:
    """Draw both times against the share."""
    figure = Figure(figsize=(5, 3.5), layout="tight")
    axes = figure.add_subplot()
    labels = {"skipping": "what was chosen alone", "mixed": "all paths, then mixed"}
    for name, label in labels.items():
        axes.plot([row["share"] for row in rows], [row[name] for row in rows], marker="o", label=label)
    axes.set_xlabel("share of wide paths")
    axes.set_ylabel("ms an image")
    axes.set_ylim(bottom=0)
    axes.set_title(title, fontsize=8)
    axes.legend(fontsize=8)
    return figure


def write(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows as a CSV."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def draw_curve(arguments: argparse.Namespace) -> None:
    """Measure, write, draw and print one network's time against its share of wide paths."""
    if arguments.run is None:
        price = nn.Variable((1, 1))
        network = random_network(arguments.batch, arguments.side, arguments.depth, arguments.width, price)
        images = np.random.RandomState(0).randn(*network.images.shape).astype(np.float32)
        title = f"PreAct-ResNet-{arguments.depth}, random gates, {arguments.side} pixels"
    else:
        found = load_gates(arguments.run, data_dir=arguments.data_dir, batch=arguments.batch)
        network, price, images = found.evaluation.network, found.evaluation.price, images_of(found, arguments.batch)
        title = f"{found.experiment.name}, test images"
    rows = curve(network, price, images, arguments.rounds, arguments.fast)
    write(arguments.out / "skip_time.csv", rows)
    functions = "oneDNN and numba" if arguments.fast else "nnabla's functions"
    drawn = picture(rows, f"{title}, batch {arguments.batch}, {functions}")
    save_figure(drawn, arguments.out / "skip_time.png")
    full = rows[-1]["skipping"]
    for row in rows:
        print(
            f"share {row['share']:.2f}: skipping {row['skipping']:7.2f} ms an image ({row['skipping'] / full:.2f} of "
            f"all wide), mixed {row['mixed']:7.2f} ms"
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, draw; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, default=Path("skip_time"), help="folder for CSV and picture")
    parser.add_argument("--run", type=Path, help="folder of a finished run with gates; without, gates are random")
    parser.add_argument("--runs", type=Path, nargs="+", help="folders of finished runs: time an image in each instead")
    parser.add_argument("--data-dir", help="folder of the data set of --run and --runs")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--side", type=int, default=32, help="height and width of random images")
    parser.add_argument("--depth", type=int, default=20, help="of the random network")
    parser.add_argument("--width", type=float, default=1.0, help="of the random network")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--fast", action="store_true", help="on oneDNN and numba instead of nnabla's own functions")
    arguments = parser.parse_args(argv)
    set_threads(arguments.threads)
    if arguments.runs is None:
        draw_curve(arguments)
        return 0
    rows = times_of_runs(arguments.runs, arguments.data_dir, arguments.batch, arguments.rounds, arguments.fast)
    write(arguments.out / "skip_time_runs.csv", rows)
    for row in rows:
        print(f"{row['name']}: {row['one_ms']:.2f} ms an image alone, {row['batch_ms']:.2f} in batches")
    return 0


if __name__ == "__main__":
    sys.exit(main())

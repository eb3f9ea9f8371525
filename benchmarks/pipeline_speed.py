"""Images per second of the data pipeline, and how long a training step waits for its batch.

    python benchmarks/pipeline_speed.py --data-dir DIR [--dataset imagenette] [--size 112] [--csv FILE]
    python benchmarks/pipeline_speed.py --data-dir DIR --waiting

All contenders read the same training images, crop at random, resize, mirror and normalise: a plain loop in one process
with Pillow and numpy, the same functions in a `multiprocessing.Pool`, and nnmpq's pipeline without and with workers.
They take turns in every round, so that what else the machine does falls on all alike; a rate is divided by the plain
loop's in the same round. With --waiting: the share of the time that ResNet-20 waits for batches of CIFAR-10, batches
made between the steps against batches made ahead of them.
"""

from __future__ import annotations

import argparse
import csv
import io
import math
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import attrs
import nnabla as nn
import numpy as np
from PIL import Image

from nnmpq.config.experiment import Experiment
from nnmpq.config.scheme import build_scheme
from nnmpq.data import DataSet, ImageFiles, ImageOptions, load, training_batches
from nnmpq.data.ahead import ahead
from nnmpq.data.image_settings import ImageSettings
from nnmpq.data.pipeline import file_training_batches
from nnmpq.data.worker_pool import WorkerPool, default_workers
from nnmpq.files import atomic_write
from nnmpq.threads import set_threads
from nnmpq.training.epoch import run_epoch
from nnmpq.training.graphs import build_training
from nnmpq.training.solvers import build_groups

PLAIN = "plain loop"
MEAN = np.array([0.485, 0.456, 0.406], np.float32).reshape(3, 1, 1)
DEVIATION = np.array([0.229, 0.224, 0.225], np.float32).reshape(3, 1, 1)
# Takes the number of an epoch, goes through it, returns how many images there were.
Contender = Callable[[int], int]


def read_plainly(path: str, size: int, seed: int) -> np.ndarray:
    """Return an image as a user without a pipeline would make it: uint8, (3, size, size)."""
    random = np.random.default_rng(seed)
    with Image.open(path) as opened:
        image = opened.convert("RGB")
    width, height = image.size
    box = (0, 0, width, height)
    for _ in range(10):
        area, ratio = (
            width * height * random.uniform(0.08, 1),
            math.exp(random.uniform(math.log(3 / 4), math.log(4 / 3))),
        )
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if w <= width and h <= height:
            left, top = random.integers(0, width - w + 1), random.integers(0, height - h + 1)
            box = (int(left), int(top), int(left) + w, int(top) + h)
            break
    pixels = np.asarray(image.resize((size, size), Image.Resampling.BILINEAR, box))
    if random.random() < 0.5:
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def normalise_plainly(images: Iterable[np.ndarray]) -> np.ndarray:
    """Return a batch of pixels as numbers."""
    return (np.stack(list(images)).astype(np.float32) / 255 - MEAN) / DEVIATION


def chunks(items: Iterator[Any], size: int) -> Iterator[list[Any]]:
    """Yield lists of so many items; what is left over is dropped.

    Example:
        >>> list(chunks(iter("abcde"), 2))
        [['a', 'b'], ['c', 'd']]
    """
    while len(chunk := list(islice(items, size))) == size:
        yield chunk


def plain_loop(paths: Sequence[str], size: int, batch: int, epoch: int) -> int:
    """Read all images one after the other."""
    images = (read_plainly(path, size, epoch * len(paths) + i) for i, path in enumerate(paths))
    return sum(len(normalise_plainly(chunk)) for chunk in chunks(images, batch))


def _read_task(task: tuple[str, int, int]) -> np.ndarray:
    return read_plainly(*task)


def with_pool(pool: Any, paths: Sequence[str], size: int, batch: int, epoch: int) -> int:
    """Read all images in the processes of a pool, which send back pixels."""
    tasks = ((path, size, epoch * len(paths) + i) for i, path in enumerate(paths))
    images = pool.imap(_read_task, tasks, chunksize=16)
    return sum(len(normalise_plainly(chunk)) for chunk in chunks(images, batch))


def with_pipeline(files: ImageFiles, settings: ImageSettings, batch: int, workers: int | WorkerPool, epoch: int) -> int:
    """Read all images through nnmpq's pipeline."""
    batches = file_training_batches(files, settings, batch, seed=0, epoch=epoch, workers=workers)
    return sum(len(labels) for _, labels in batches)


@attrs.frozen
class Measured:
    """One round of one contender.

    Args:
        rate: images per second.
        cpu: milliseconds of processor time an image, of all processes; unlike the rate it does not fall when others
            work on this machine. Not a number where /proc is missing.
    """

    rate: float
    cpu: float


def processor_seconds() -> float:
    """Return the processor time of this process and its children so far, s."""
    try:
        children = [
            pid for task in Path("/proc/self/task").iterdir() for pid in (task / "children").read_text().split()
        ]
        stats = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in children]
    except OSError:
        return math.nan
    return time.process_time() + sum(int(s[11]) + int(s[12]) for s in stats) / os.sysconf("SC_CLK_TCK")


def measure(contenders: dict[str, Contender], rounds: int) -> dict[str, list[Measured]]:
    """Let the contenders take turns, after a round that is not measured."""
    found: dict[str, list[Measured]] = {name: [] for name in contenders}
    for number in range(rounds + 1):
        for name, run in contenders.items():
            begin, used = time.perf_counter(), processor_seconds()
            count = run(number)
            seconds, used = time.perf_counter() - begin, processor_seconds() - used
            if number:
                found[name].append(Measured(count / seconds, 1000 * used / count))
    return found


def table(found: dict[str, list[Measured]], reference: str = PLAIN) -> list[list[str]]:
    """Return rows of name, median rate, least, median and greatest ratio to the reference in a round, and median cpu.

    Example:
        >>> table({"plain loop": [Measured(10, 1.0)] * 2, "other": [Measured(20, 1.5), Measured(40, 2.5)]})[1]
        ['other', '30', '2.00', '3.00', '4.00', '2.00']
    """
    rows = []
    for name, rounds in found.items():
        ratios = sorted(one.rate / base.rate for one, base in zip(rounds, found[reference]))
        spread = (ratios[0], statistics.median(ratios), ratios[-1], statistics.median(one.cpu for one in rounds))
        rows.append([name, f"{statistics.median(one.rate for one in rounds):.0f}", *(f"{n:.2f}" for n in spread)])
    return rows


class Timed:
    """Goes through batches and adds up how long it waited for them."""

    def __init__(self, batches: Iterable[Any]) -> None:
        self.batches, self.waited = batches, 0.0

    def __iter__(self) -> Iterator[Any]:
        """Yield the batches."""
        iterator = iter(self.batches)
        while True:
            begin = time.perf_counter()
            batch = next(iterator, None)
            self.waited += time.perf_counter() - begin
            if batch is None:
                return
            yield batch


def waiting(data: DataSet, batch: int, steps: int, rounds: int) -> dict[str, list[float]]:
    """Return the share of the time that steps of ResNet-20 wait, 0 to 1, by round."""
    experiment = Experiment("WAITING", batch_size=batch)
    training = build_training(experiment, data, build_scheme(experiment), accelerate=True)
    solvers = build_groups(experiment, training.quantized.sites, learn_bits=True)
    for name in solvers.groups:
        solvers.set_learning_rate(name, 0.01)
    sources: dict[str, Callable[[Iterator[Any]], Iterator[Any]]] = {"between the steps": iter, "ahead": ahead}
    shares: dict[str, list[float]] = {name: [] for name in sources}
    for number in range(rounds + 1):
        for name, source in sources.items():
            batches = training_batches(data, batch, seed=0, epoch=number, augmentation="crop_flip")
            timed = Timed(islice(source(batches), steps))
            begin = time.perf_counter()
            run_epoch(training, solvers, timed, number + 1)
            if number:
                shares[name].append(timed.waited / (time.perf_counter() - begin))
    return shares


def compare(arguments: argparse.Namespace) -> list[list[str]]:
    """Measure all contenders."""
    options = ImageOptions("random_resized_crop", arguments.size)
    data = load(arguments.dataset, data_dir=arguments.data_dir, train_images=arguments.images, options=options)
    files, settings, workers, batch = data.train, data.settings, arguments.workers, arguments.batch
    if settings is None or not isinstance(files, ImageFiles):
        sys.exit(f"{arguments.dataset}: its images are not in files")
    paths = [str(files.path(i)) for i in range(len(files))]
    with multiprocessing.get_context("spawn").Pool(workers) as pool, WorkerPool(settings, batch, workers) as made:
        contenders: dict[str, Contender] = {
            PLAIN: partial(plain_loop, paths, arguments.size, batch),
            f"Pillow, Pool({workers})": partial(with_pool, pool, paths, arguments.size, batch),
            "nnmpq, no workers": partial(with_pipeline, files, settings, batch, 0),
            f"nnmpq, {workers} workers": partial(with_pipeline, files, settings, batch, made),
        }
        return table(measure(contenders, arguments.rounds))


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    add = parser.add_argument
    add("--data-dir", help="folder of the data sets (default: what NNMPQ_DATA names)")
    add("--dataset", default="imagenette", help="a set of image files (default: imagenette)")
    add("--size", type=int, default=112, help="height and width of the network's input (default: 112)")
    add("--batch", type=int, default=64, help="images of a batch (default: 64)")
    add("--images", type=int, default=1024, help="images of a round (default: 1024)")
    add("--rounds", type=int, default=7, help="measured rounds (default: 7)")
    add("--workers", type=int, default=default_workers(), help="processes (default: half of the cores)")
    add("--csv", type=Path, help="file for the table")
    add("--waiting", action="store_true", help="measure how long ResNet-20 waits for CIFAR-10 instead")
    add("--steps", type=int, default=30, help="with --waiting: steps of a round (default: 30)")
    add("--threads", type=int, help="with --waiting: threads of the step (default: all cores)")
    arguments = parser.parse_args(argv)
    if arguments.waiting:
        set_threads(arguments.threads)
        data = load("cifar10", data_dir=arguments.data_dir)
        with nn.context_scope(nn.Context(["cpu:float"], "CpuCachedArray", "0")):
            shares = waiting(data, 128, arguments.steps, arguments.rounds)
        head = ["batches made", "share of waiting, %: least", "median", "greatest"]
        rows = [
            [name, *(f"{100 * share:.3f}" for share in (min(found), statistics.median(found), max(found)))]
            for name, found in shares.items()
        ]
    else:
        head = ["", "images/s", "ratio to the plain loop: least", "median", "greatest", "CPU ms an image"]
        rows = compare(arguments)
    for row in [head, *rows]:
        print(" | ".join(row))
    if arguments.csv:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([head, *rows])
        atomic_write(arguments.csv, text.getvalue())
    return 0


if __name__ == "__main__":
    sys.exit(main())

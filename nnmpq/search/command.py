"""`nnmpq pareto`: the front over all budgets, from scores that are there or are measured first."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from nnmpq.config.errors import ConfigError
from nnmpq.files import nearest

if TYPE_CHECKING:
    from nnmpq.budget import Budget
    from nnmpq.config.experiment import Experiment
    from nnmpq.search.table import ScoreTable

FOLDER = "pareto"


def pareto(parser: argparse.ArgumentParser) -> None:
    """Best policies for many budgets from one table of scores, as CSV, plot and one policy file a point."""
    add = parser.add_argument
    add("experiment", metavar="EXPERIMENT", help="section of the .cfg file: network, widths and score")
    add("--cfg", required=True, metavar="FILE", help="the .cfg file with the experiment")
    add("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides", help="replace a key")
    add("--scores", metavar="FILE", help="table of scores; default: scores.csv of the run, measured if it is not there")
    add("--target", default="mean_bits", help="cost that the front is drawn over (default: mean_bits)")
    add("--points", type=_count, default=32, help="number of limits (default: 32)")
    add("--limit", action="append", default=[], metavar="NAME=VALUE", help="further limit that every point meets")
    add("--policy", action="append", default=[], metavar="FILE", help="another method's policy, drawn beside the front")
    add("--data-dir", metavar="DIR", help="folder of the data set")
    add("--shape", type=_shape, metavar="C,H,W", help="shape of the images, with --classes: no data set is looked for")
    add("--classes", type=_count, metavar="N", help="number of classes")
    add("--threads", type=_count, metavar="N", help="threads of the CPU functions (default: all cores)")
    add("-o", "--model-save-path", default="runs", metavar="DIR", help="folder of all runs (default: runs)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Draw a front; the exit status is 0."""
    from nnmpq.config.reader import read_experiment
    from nnmpq.policy import Policy
    from nnmpq.search import pareto as fronts
    from nnmpq.search.task import kept_bits
    from nnmpq.threads import set_threads

    set_threads(arguments.threads)
    target, budget = _target(arguments.target), _budget(arguments.limit)
    overrides = [*arguments.overrides, *([f"data_dir={arguments.data_dir}"] if arguments.data_dir else [])]
    experiment = read_experiment(arguments.cfg, arguments.experiment, overrides)
    folder = Path(arguments.model_save_path) / experiment.name
    table = _table(experiment, arguments, folder)
    fixed = kept_bits(experiment, table.network)
    # What `keep` decides has no choice, whatever the table has of it.
    table = attrs.evolve(table, loss={name: own for name, own in table.loss.items() if name not in fixed})
    started = time.perf_counter()
    points = fronts.front(table, target, points=arguments.points, budget=budget, fixed=fixed)
    seconds = time.perf_counter() - started
    shown = [*points, *fronts.uniform_points(table, fixed)]
    for path in map(Path, arguments.policy):
        shown.append(fronts.policy_point(table, Policy.load(path), path.parent.name or path.stem))
    fronts.save(folder / FOLDER, table, target, shown, name=experiment.arch, title=experiment.name)
    low, high = (getattr(point.cost, target) for point in (points[0], points[-1]))
    print(
        f"{len(points)} points of {arguments.points} limits, {target} from {low:g} to {high:g}, in {seconds:.2f} s; "
        f"files in {folder / FOLDER}"
    )
    return 0


def _table(experiment: Experiment, arguments: argparse.Namespace, folder: Path) -> ScoreTable:
    """The scores: of a file, of the run's folder, or measured now."""
    from nnmpq.budget import Budget
    from nnmpq.config.reader import resolve_weightfile
    from nnmpq.data import load
    from nnmpq.runs import image_options
    from nnmpq.search.sensitivity import score_table
    from nnmpq.search.table import ScoreTable
    from nnmpq.search.task import SearchTask, network_of

    if arguments.shape is not None:
        if arguments.scores is None or arguments.classes is None:
            raise ConfigError("--shape stands for a data set: it needs --classes and --scores beside it")
        return ScoreTable.load(arguments.scores, network_of(experiment, arguments.shape, arguments.classes))
    data = load(
        experiment.dataset,
        data_dir=experiment.data_dir,
        validation_images=experiment.validation_images,
        train_images=experiment.train_images,
        test_images=experiment.test_images,
        seed=experiment.seed,
        options=image_options(experiment),
    )
    if arguments.scores is not None:
        return ScoreTable.load(arguments.scores, network_of(experiment, data.shape, data.classes))
    if experiment.weightfile is not None:
        found = resolve_weightfile(experiment.weightfile, folder.parent, cfg=arguments.cfg, name=experiment.name)
        experiment = attrs.evolve(experiment, weightfile=str(found))
    return score_table(SearchTask(experiment, data, Budget(), folder, resume=True))


def _target(name: str) -> str:
    from nnmpq.budget import Budget

    names = [field.name for field in attrs.fields(Budget)]
    if name not in names:
        raise ConfigError(f"--target {name}: the nearest is {nearest(name, names)!r}")
    return name


def _budget(given: Sequence[str]) -> Budget:
    from nnmpq.budget import Budget

    limits = {}
    for text in given:
        name, _, value = text.partition("=")
        try:
            limits[_target(name.strip())] = float(value)
        except ValueError as error:
            raise ConfigError(f"--limit {text}: NAME=VALUE with a number is needed") from error
    try:
        return Budget(**limits)
    except ValueError as error:
        raise ConfigError(f"--limit {error}") from error


def _shape(text: str) -> tuple[int, ...]:
    numbers = tuple(int(number) for number in text.split(","))
    if len(numbers) != 3 or min(numbers) < 1:
        raise ValueError(text)
    return numbers


def _count(text: str) -> int:
    if int(text) < 1:
        raise ValueError(text)
    return int(text)

"""One experiment with gates from its section to its run folder; ``search.py`` calls it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from nnmpq.config.experiment import Experiment
from nnmpq.config.reader import to_cfg
from nnmpq.data import DataSet, Split
from nnmpq.dynamic.compare import uniform_work
from nnmpq.dynamic.evaluate import choices
from nnmpq.dynamic.export import save_gated_nnp
from nnmpq.dynamic.graphs import relative_cost, table_of
from nnmpq.dynamic.report import Point, draw_energy, draw_examples, draw_shares, write_points, write_shares
from nnmpq.dynamic.train import DynamicResult, refuse_several, train_gates
from nnmpq.files import atomic_write
from nnmpq.policy import PolicyError
from nnmpq.runs import load_data
from nnmpq.training.machine import Machine

PRICES = (-30.0, -4.0, -2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0, 4.0, 30.0)
CURVE_IMAGES = 1024


def run_gates(
    experiment: Experiment,
    runs_dir: Path,
    *,
    resume: bool = False,
    quiet: bool = False,
    monitor_path: str | None = None,
    machine: Machine | None = None,
) -> DynamicResult:
    """Train one experiment with gates and fill its run folder.

    The folder gets what training leaves there (``best.h5``, ``metrics.csv``, ``checkpoint/``), and ``config.cfg``,
    ``model.nnp``, ``choices.csv``, ``choices.png``, ``examples.png``, ``energy.csv``, ``energy.png``, ``result.json``.

    Args:
        experiment: what to train; its weightfile is already resolved to a path.
        runs_dir: folder of all runs; this one writes into ``runs_dir/<name>``.
        resume: continue from the last checkpoint of that folder.
        quiet: no progress bar.
        monitor_path: not used: metrics.csv has what a monitor would.
        machine: what it runs on; fast CPU functions in one process if None.

    Returns:
        The result with the best parameters in place.

    Raises:
        TrainingError: as of `train_gates`; where several processes were asked for, the folder is left alone.
    """
    # Before anything is written: several processes would write it at once.
    refuse_several(machine)
    folder = runs_dir / experiment.name
    folder.mkdir(parents=True, exist_ok=True)
    data = load_data(experiment)
    if not (resume and (folder / "config.cfg").exists()):
        atomic_write(folder / "config.cfg", to_cfg(experiment))
    result = train_gates(experiment, data, folder, resume=resume, quiet=quiet, machine=machine)
    network, account = result.evaluation.network, result.training.account
    blocks = [block.block.name for block in network.blocks]
    save_gated_nnp(folder / "model.nnp", network, float(result.evaluation.price.d[0, 0]), relative_cost(experiment))
    write_shares(folder / "choices.csv", result.test, blocks, data.classes)
    draw_shares(folder / "choices.png", result.test, blocks, data.classes)
    if isinstance(data.test, Split):
        draw_examples(folder / "examples.png", result.test, data.test.images)
    curve = energy_curve(experiment, result, data)
    others = uniform_points(experiment, result, runs_dir)
    write_points(folder / "energy.csv", {"gates": curve, "uniform": others})
    draw_energy(folder / "energy.png", curve, others)
    found = result.test.summary()
    summary = {
        "experiment": experiment.name,
        "gate_training": experiment.gate_training,
        "test_accuracy": result.test_accuracy,
        "validation_accuracy": result.validation_accuracy,
        "best_epoch": result.best_epoch,
        "seed": experiment.seed,
        "energy_target": experiment.energy_target,
        "energy": found["energy"],
        "bitops": found["bitops"],
        "widest_share": found["widest_share"],
        "spread_within": found["spread_within"],
        "spread_between": found["spread_between"],
        "uniform_energy": {str(b): account.uniform(k).energy for k, b in enumerate(experiment.precisions)},
        "uniform_bitops": {str(b): account.uniform(k).bitops for k, b in enumerate(experiment.precisions)},
        "size_kib": network.size(),
    }
    atomic_write(folder / "result.json", json.dumps(summary, indent=2) + "\n")
    print(
        f"{experiment.name}: test accuracy {100 * result.test_accuracy:.2f} %, validation "
        f"{100 * result.validation_accuracy:.2f} % (epoch {result.best_epoch}); energy {found['energy']:.3f} of "
        f"{experiment.precisions[-1]} bit throughout, widest path for {100 * found['widest_share']:.1f} %; files in "
        f"{folder}"
    )
    return result


def search_or_gates(experiment: Experiment, runs_dir: Path, **options: Any) -> object:
    """Train gates where an experiment has them, else search its policy; arguments as of `run_gates`."""
    if experiment.gate_training is not None:
        return run_gates(experiment, runs_dir, **options)
    from nnmpq.search.run import search_experiment

    return search_experiment(experiment, runs_dir, **options)


def energy_curve(experiment: Experiment, result: DynamicResult, data: DataSet) -> list[Point]:
    """Return accuracy and energy on validation images for several prices of wide paths; the price is put back."""
    graph, account = result.evaluation, result.training.account
    own = np.array(graph.price.d)
    points = []
    for price in sorted({*PRICES, round(float(own[0, 0]), 6)}):
        graph.price.d = price
        found = choices(graph, data, data.validation, account, limit=CURVE_IMAGES)
        points.append(Point(f"price {price:g}", float(np.mean(found.energy)), 1 - found.error))
    graph.price.d = own
    return points


def uniform_points(experiment: Experiment, result: DynamicResult, runs_dir: Path) -> list[Point]:
    """Return the uniform networks of the same architecture and data among the finished runs beside this one."""
    network = result.evaluation.network.network
    table, whole = table_of(experiment), result.training.account.uniform(-1).energy
    points = []
    for path in sorted(runs_dir.glob("*/policy.yaml")):
        try:
            work, found = uniform_work(path.parent, network, table)
            points.append(Point(path.parent.name, work.energy / whole, float(found["validation_accuracy"])))
        except (PolicyError, OSError, ValueError, KeyError):
            # Another network's run, or one that is not finished.
            continue
    return points

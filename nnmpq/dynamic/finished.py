"""A finished run with gates, loaded from its folder."""

from __future__ import annotations

import json
from pathlib import Path

import attrs

from nnmpq.config.errors import ConfigError
from nnmpq.config.experiment import Experiment
from nnmpq.config.reader import read_experiment
from nnmpq.data import DataSet
from nnmpq.dynamic.energy import Account
from nnmpq.dynamic.graphs import DynamicEvaluation
from nnmpq.dynamic.start import build_graphs
from nnmpq.runs import load_data
from nnmpq.training import parameters
from nnmpq.training.begin import BEST
from nnmpq.training.errors import TrainingError


@attrs.frozen(eq=False)
class FinishedRun:
    """A finished run; the current parameter scope holds its best parameters.

    Args:
        experiment: what ran.
        data: its images.
        evaluation: the evaluation graph, at the price that the run ended with.
        account: what choices cost.
    """

    experiment: Experiment
    data: DataSet
    evaluation: DynamicEvaluation
    account: Account


def experiment_of(folder: str | Path) -> Experiment:
    """Read what a run folder's config.cfg says.

    Args:
        folder: of a finished run, with or without gates.

    Raises:
        TrainingError: the folder is not that of a finished run.
    """
    folder = Path(folder)
    for name in ("config.cfg", BEST, "result.json"):
        if not (folder / name).is_file():
            raise TrainingError(f"{folder / name} is missing: a folder of a finished run is needed")
    try:
        section = json.loads((folder / "result.json").read_text())["experiment"]
        return read_experiment(folder / "config.cfg", section)
    except (ConfigError, ValueError, KeyError) as error:
        raise TrainingError(f"{folder}: {error}") from error


def load_gates(
    folder: str | Path, *, data_dir: str | None = None, batch: int | None = None, accelerate: bool = False
) -> FinishedRun:
    """Load the best model of a run with gates; the current parameter scope is cleared.

    Args:
        folder: of a finished run of `nnmpq.dynamic.run.run_gates`.
        data_dir: folder of the data set; the run's own if None.
        batch: images at a time; as many as in training if None.
        accelerate: run on fast CPU functions where this machine has them.

    Raises:
        TrainingError: the folder is not that of a finished run with gates.
    """
    experiment = experiment_of(folder)
    if experiment.gate_training is None:
        raise TrainingError(f"{folder}: {experiment.name} has no gates: gate_training = none")
    experiment = attrs.evolve(
        experiment,
        data_dir=data_dir or experiment.data_dir,
        batch_size=batch or experiment.batch_size,
        # The run's weights come from its own best.h5, wherever those that it started with are now.
        weightfile=None,
    )
    data = load_data(experiment)
    training, evaluation = build_graphs(experiment, data, accelerate)
    parameters.load_h5(Path(folder) / BEST)
    return FinishedRun(experiment, data, evaluation, training.account)

"""Training of gates and paths together; a killed run resumes bit for bit."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import attrs
import numpy as np

from nnmpq.config.dynamic import REINFORCEMENT
from nnmpq.config.experiment import Experiment
from nnmpq.data import DataSet
from nnmpq.data.feed import Feed
from nnmpq.dynamic.evaluate import Choices, choices, meet_target
from nnmpq.dynamic.graphs import DynamicEvaluation, DynamicTraining
from nnmpq.dynamic.progress import Progress, Row, write_metrics
from nnmpq.dynamic.start import build_graphs
from nnmpq.training import checkpoint as checkpoints
from nnmpq.training import parameters
from nnmpq.training.begin import BEST, checkpoint_of
from nnmpq.training.epoch import Means, run_epoch
from nnmpq.training.errors import BudgetError, TrainingError
from nnmpq.training.identity import identity
from nnmpq.training.machine import Machine
from nnmpq.training.monitor import METRICS, progress_bar
from nnmpq.training.schedule import rates
from nnmpq.training.solvers import QUANTIZERS, WEIGHTS, SolverGroups, build_groups

logger = logging.getLogger("nnmpq")

Batches = Iterable["tuple[np.ndarray, np.ndarray]"]


@attrs.frozen(eq=False)
class DynamicResult:
    """What a finished run hands over; the current parameter scope holds its best parameters.

    Args:
        test_accuracy: share of the test images that the best model classifies right, read once.
        validation_accuracy: the same of the validation images, which picked it.
        best_epoch: number of epochs after which it stood.
        test: choices on the test images.
        training: the training graph, with the account of costs.
        evaluation: the evaluation graph.
        history: a row an epoch.
    """

    test_accuracy: float
    validation_accuracy: float
    best_epoch: int
    test: Choices
    training: DynamicTraining
    evaluation: DynamicEvaluation
    history: tuple[Row, ...]


@attrs.frozen(eq=False)
class _Run:
    """What stays the same throughout a run."""

    experiment: Experiment
    data: DataSet
    feed: Feed
    folder: Path
    quiet: bool
    training: DynamicTraining
    evaluation: DynamicEvaluation
    identity: dict[str, Any]


@attrs.define
class _Alpha:
    """The worth of a saving as it is adapted, and the energy that was seen on the way."""

    value: float
    energies: list[float] = attrs.field(factory=list)


def train_gates(
    experiment: Experiment,
    data: DataSet,
    folder: str | Path,
    *,
    resume: bool = False,
    quiet: bool = False,
    machine: Machine | None = None,
) -> DynamicResult:
    """Train an experiment with gates in the current parameter scope, which is cleared first.

    With an energy target, alpha follows by dual ascent, alpha <- max(alpha + rate * (energy - target), 0), and after
    each epoch the price of wide paths is set so that images outside the test set meet the target. Validation picks the
    best of all models that meet it; the test images are read once, at the end.

    Args:
        experiment: what to train; its weightfile is a path.
        data: images in three parts.
        folder: the run's folder: ``checkpoint/``, ``best.h5``, ``metrics.csv``.
        resume: go on from the last checkpoint, to the very bits that the run would have had without a break.
        quiet: no progress bar.
        machine: what it runs on; fast CPU functions in one process if None.

    Returns:
        Accuracies, choices and both graphs.

    Raises:
        CheckpointError: the checkpoint is damaged, or of another experiment or other data.
        BudgetError: the energy target cannot be met; said before anything is learned.
        NonFiniteLoss: the loss became infinite or not a number.
        TrainingError: the weightfile does not fit, several processes were asked for, or images are too few.
    """
    machine = machine or Machine()
    refuse_several(machine)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if len(data.train) < experiment.batch_size:
        raise TrainingError(f"batch_size = {experiment.batch_size}: there are only {len(data.train)} training images")
    known = identity(experiment, data)
    found = checkpoint_of(folder, known, resume, machine.communicator)
    training, evaluation = build_graphs(experiment, data, machine.accelerate)
    least = training.account.least_share()
    if experiment.energy_target is not None and experiment.energy_target < least:
        raise BudgetError(
            f"energy_target = {experiment.energy_target}: the least that is reachable is {least:.3f}, with every gate "
            "on the narrowest path"
        )
    progress = Progress(experiment.alpha) if found is None else Progress.from_json(found.state["progress"])
    with Feed(
        data,
        experiment.batch_size,
        seed=experiment.seed,
        augmentation=experiment.augmentation,
        workers=machine.workers,
    ) as feed:
        run = _Run(experiment, data, feed, folder, quiet, training, evaluation, known)
        return _finish(run, _epochs(run, progress, found))


def refuse_several(machine: Machine | None) -> None:
    """Raise TrainingError for more than one process: gates steer by what all of a batch cost."""
    if machine is not None and machine.communicator.size > 1:
        raise TrainingError(
            f"gates train in one process, not in {machine.communicator.size}: leave --processes and mpirun away; "
            "--threads N shares the work of one"
        )


def _epochs(run: _Run, progress: Progress, found: checkpoints.Checkpoint | None) -> Progress:
    """Run what is left of the epochs, with a checkpoint after each."""
    experiment = run.experiment
    if found is not None:
        parameters.assign(found.parameters, str(run.folder / checkpoints.FOLDER))
    solvers = build_groups(experiment, run.training.network.sites(), learn_bits=True)
    if found is not None and progress.test is None:
        try:
            solvers.restore(found.solvers)
        except ValueError as error:
            raise TrainingError(f"{run.folder / checkpoints.FOLDER}: {error}") from error
    while progress.epoch < experiment.epochs:
        progress = _epoch(run, progress, solvers)
        _save(run, progress, solvers)
    return progress


def _epoch(run: _Run, progress: Progress, solvers: SolverGroups) -> Progress:
    """Train and validate one epoch."""
    experiment, number = run.experiment, progress.epoch + 1
    weight_rate, quantizer_rate = rates(experiment, progress.epoch)
    solvers.set_learning_rate(WEIGHTS, weight_rate)
    solvers.set_learning_rate(QUANTIZERS, quantizer_rate)
    alpha = _Alpha(progress.alpha)
    # While gates learn they are asked alone; the price is for evaluation.
    run.evaluation.price.d = 0
    total = len(run.data.train) // experiment.batch_size
    shown = progress_bar(run.feed.training(progress.epoch), total, f"gates {number}", run.quiet)
    means = run_epoch(run.training.graph, solvers, _steered(run, shown, number, alpha), number)
    return _validate(run, attrs.evolve(progress, alpha=alpha.value), means, alpha, weight_rate)


def _steered(run: _Run, batches: Batches, number: int, alpha: _Alpha) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Set what steers the gates before each update, and adapt alpha after it."""
    experiment, steering = run.experiment, run.training.steering
    warming = number <= experiment.gate_warmup_epochs
    supervised = experiment.gate_training != REINFORCEMENT
    weight = 1.0 if supervised else experiment.rl_weight
    if warming or (supervised and experiment.energy_target is None):
        weight = 0.0
    steering.random_share.d = float(warming)
    steering.reward_weight.d = weight
    learns_from_greedy = not supervised and not warming and experiment.baseline == "greedy"
    rng = np.random.default_rng((experiment.seed, number))
    for images, labels in batches:
        steering.numbers.d = rng.random(steering.numbers.shape, np.float32)
        steering.alpha.d = alpha.value
        if learns_from_greedy:
            steering.greedy_returns.d = _greedy_returns(run, images, labels, alpha.value)
        yield images, labels
        energy = float(steering.energy.d)
        alpha.energies.append(energy)
        if experiment.energy_target is not None and not warming:
            alpha.value = max(alpha.value + experiment.energy_target_rate * (energy - experiment.energy_target), 0.0)


def _greedy_returns(run: _Run, images: np.ndarray, labels: np.ndarray, alpha: float) -> np.ndarray:
    """What each gate's greedy choice brings for each sample, shape (B, N)."""
    graph, gamma = run.evaluation, run.experiment.gamma
    graph.images.d, graph.labels.d = images, labels
    graph.run.forward(clear_buffer=True)
    value = -graph.cross_entropies.d[:, 0]
    saved = alpha * np.sum(graph.chosen.d * run.training.savings, axis=2)
    found = np.empty_like(saved)
    for gate in range(saved.shape[1] - 1, -1, -1):
        value = saved[:, gate] + gamma * value
        found[:, gate] = value
    return found


def _validate(run: _Run, progress: Progress, means: Means, alpha: _Alpha, rate: float) -> Progress:
    """Meet the target, validate, write best.h5 if this is the best so far, and note the epoch."""
    experiment = run.experiment
    price = 0.0
    if experiment.energy_target is not None:
        price = meet_target(
            run.evaluation, run.data, run.data.validation, run.training.account, experiment.energy_target
        )
    found = choices(run.evaluation, run.data, run.data.validation, run.training.account, run.feed).summary()
    row = Row(
        epoch=progress.epoch + 1,
        loss=means.loss,
        cross_entropy=means.cross_entropy,
        training_error=means.error,
        training_energy=float(np.mean(alpha.energies)),
        alpha=alpha.value,
        price=price,
        validation_error=found["error"],
        validation_cross_entropy=found["cross_entropy"],
        validation_energy=found["energy"],
        widest_share=found["widest_share"],
        spread_within=found["spread_within"],
        spread_between=found["spread_between"],
        learning_rate=rate,
    )
    progress, better = progress.offer(row, experiment.energy_target, experiment.gate_warmup_epochs)
    if better:
        parameters.save_h5(run.folder / BEST)
    write_metrics(run.folder / METRICS, progress.history)
    return progress


def _finish(run: _Run, progress: Progress) -> DynamicResult:
    """Read the test images with the best parameters, and close the run."""
    if not progress.best:
        raise BudgetError(
            f"{run.experiment.name}: no epoch met energy_target = {run.experiment.energy_target}; more epochs, or more "
            "validation images, may"
        )
    parameters.load_h5(run.folder / BEST)
    test = choices(run.evaluation, run.data, run.data.test, run.training.account, run.feed)
    if progress.test is None:
        _save(run, attrs.evolve(progress, test=test.summary()), None)
    return DynamicResult(
        test_accuracy=1 - test.error,
        validation_accuracy=1 - progress.history[progress.best - 1].validation_error,
        best_epoch=progress.best,
        test=test,
        training=run.training,
        evaluation=run.evaluation,
        history=progress.history,
    )


def _save(run: _Run, progress: Progress, solvers: SolverGroups | None) -> None:
    # One number a save: the rows, and one more once all is done.
    number = progress.epoch + int(progress.test is not None)
    kept = checkpoints.Checkpoint(
        parameters.current(),
        {} if solvers is None else solvers.states(),
        {"identity": run.identity, "progress": progress.to_json()},
    )
    checkpoints.save(run.folder, number, kept)

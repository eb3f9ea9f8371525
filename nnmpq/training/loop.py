"""The training loop: learn, project onto the budget, fine-tune; a killed run resumes bit for bit."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import attrs
import nnabla as nn

from nnmpq.budget import Budget
from nnmpq.config.experiment import Experiment
from nnmpq.config.scheme import budget_of
from nnmpq.cost import cost
from nnmpq.data import DataSet
from nnmpq.data.feed import Feed
from nnmpq.parallel import Communicator
from nnmpq.training import checkpoint as checkpoints
from nnmpq.training import parameters
from nnmpq.training.begin import BEST, build_graphs, checkpoint_of
from nnmpq.training.epoch import Means, run_epoch
from nnmpq.training.errors import BudgetError, TrainingError
from nnmpq.training.evaluate import evaluate, quantizer_inputs
from nnmpq.training.graphs import EvaluationGraph, TrainingGraph
from nnmpq.training.identity import identity
from nnmpq.training.machine import Machine
from nnmpq.training.monitor import METRICS, Series, progress_bar, write_metrics
from nnmpq.training.progress import DONE, FINETUNE, LEARN, PROJECT, Best, Progress, Row
from nnmpq.training.project import check_reachable, project
from nnmpq.training.result import Result
from nnmpq.training.scaling import LossScale
from nnmpq.training.schedule import finetune_epochs, rates
from nnmpq.training.solvers import QUANTIZERS, WEIGHTS, SolverGroups, build_groups

logger = logging.getLogger("nnmpq")

CALIBRATION_IMAGES = 512


@attrs.frozen(eq=False)
class _Run:
    """What stays the same throughout a run."""

    experiment: Experiment
    data: DataSet
    feed: Feed
    folder: Path
    quiet: bool
    budget: Budget
    training: TrainingGraph
    evaluation: EvaluationGraph
    series: Series | None
    communicator: Communicator
    scale: LossScale
    identity: dict[str, Any]


def train(
    experiment: Experiment,
    data: DataSet,
    folder: str | Path,
    *,
    resume: bool = False,
    quiet: bool = False,
    monitor_folder: str | Path | None = None,
    machine: Machine | None = None,
) -> Result:
    """Train an experiment in the current parameter scope, which is cleared first.

    With a budget the bits are learned under a penalty, then projected onto the budget and fixed while the weights are
    fine-tuned; without one, ``finetune_epochs`` fixes steps and ranges likewise. Validation picks the best of all
    models that meet the budget; the test images are read once, at the end.

    Args:
        experiment: what to train; its weightfile is a path.
        data: images in three parts.
        folder: the run's folder: ``checkpoint/``, ``best.h5``, ``metrics.csv``, ``monitor/``.
        resume: go on from the last checkpoint, to the very bits that the run would have had without a break;
            from the start where there is none. Otherwise what a former run left there is removed.
        quiet: no progress bar.
        monitor_folder: for the Monitor series instead of ``monitor/``.
        machine: what it runs on; fast CPU functions in one process if None.

    Returns:
        Accuracies, cost, policy and the evaluation network.

    Raises:
        CheckpointError: the checkpoint is damaged, or of another experiment or other data.
        BudgetError: the budget cannot be met; said before anything is learned.
        NonFiniteLoss: the loss became infinite or not a number.
        TrainingError: the weightfile does not fit, or there is not one batch of training images.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    known = identity(experiment, data)
    machine = machine or Machine()
    communicator = machine.communicator
    if experiment.batch_size % communicator.size:
        raise TrainingError(
            f"batch_size = {experiment.batch_size}: {communicator.size} processes cannot share it evenly"
        )
    found = checkpoint_of(folder, known, resume, communicator)
    progress = Progress() if found is None else Progress.from_json(found.state["progress"])
    share = attrs.evolve(experiment, batch_size=experiment.batch_size // communicator.size)
    training, evaluation = build_graphs(share, data, machine.accelerate)
    budget = budget_of(experiment)
    if found is None:
        if len(data.train) < experiment.batch_size:
            raise TrainingError(
                f"batch_size = {experiment.batch_size}: there are only {len(data.train)} training images"
            )
        check_reachable(evaluation.quantized, budget)
    series = None
    if communicator.rank == 0:
        series = Series(Path(monitor_folder or folder / "monitor"), progress.history)
        write_metrics(folder / METRICS, progress.history)
    quiet = quiet or communicator.rank > 0
    with _feed(experiment, data, machine) as feed:
        run = _Run(
            experiment,
            data,
            feed,
            folder,
            quiet,
            budget,
            training,
            evaluation,
            series,
            communicator,
            machine.scale,
            known,
        )
        if progress.phase != DONE:
            progress = _finish(run, _phases(run, progress, found))
    return _result(run, progress)


def _feed(experiment: Experiment, data: DataSet, machine: Machine) -> Feed:
    return Feed(
        data,
        experiment.batch_size,
        seed=experiment.seed,
        augmentation=experiment.augmentation,
        workers=machine.workers,
        rank=machine.communicator.rank,
        size=machine.communicator.size,
    )


def _phases(run: _Run, progress: Progress, found: checkpoints.Checkpoint | None) -> Progress:
    """Run what is left of the phases; return the progress after the last epoch."""
    experiment = run.experiment
    if found is not None:
        parameters.assign(found.parameters, str(run.folder / checkpoints.FOLDER))
    elif experiment.calibrate:
        # Searches train networks: on top this would be a circle of imports.
        from nnmpq.search.calibrate import calibrate

        calibrate(attrs.evolve(experiment, batch_size=run.evaluation.images.shape[0]), run.data, run.evaluation)
    if progress.phase == LEARN:
        progress = _epochs(run, progress, found, experiment.epochs, learn_bits=True)
        progress = attrs.evolve(progress, phase=PROJECT)
    if progress.phase == PROJECT:
        if run.budget.limits():
            progress = _project(run, progress)
        else:
            progress = attrs.evolve(progress, phase=FINETUNE)
        found = None
    last = experiment.epochs + finetune_epochs(experiment)
    return _epochs(run, progress, found, last, learn_bits=False)


def _epochs(
    run: _Run, progress: Progress, found: checkpoints.Checkpoint | None, last: int, *, learn_bits: bool
) -> Progress:
    """Run the epochs of a phase, with a checkpoint after each."""
    solvers = build_groups(run.experiment, run.training.quantized.sites, learn_bits=learn_bits)
    if found is not None and found.solvers:
        try:
            solvers.restore(found.solvers)
        except ValueError as error:
            raise TrainingError(f"{run.folder / checkpoints.FOLDER}: {error}") from error
    while progress.epoch < last:
        progress = _epoch(run, progress, solvers)
        ends_learning = learn_bits and progress.epoch == last
        _save(run, attrs.evolve(progress, phase=PROJECT) if ends_learning else progress, solvers)
    return progress


def _epoch(run: _Run, progress: Progress, solvers: SolverGroups) -> Progress:
    """Train and validate one epoch."""
    experiment = run.experiment
    weight_rate, quantizer_rate = rates(experiment, progress.epoch)
    solvers.set_learning_rate(WEIGHTS, weight_rate)
    solvers.set_learning_rate(QUANTIZERS, quantizer_rate)
    number = progress.epoch + 1
    total = len(run.data.train) // experiment.batch_size
    shown = progress_bar(run.feed.training(progress.epoch), total, f"{progress.phase} {number}", run.quiet)
    means = run_epoch(run.training, solvers, shown, number, run.communicator, run.scale)
    used = (weight_rate, quantizer_rate if QUANTIZERS in solvers.groups else None)
    return _validate(run, attrs.evolve(progress, epoch=number), means, used)


def _validate(run: _Run, progress: Progress, means: Means | None, rates: tuple[float | None, float | None]) -> Progress:
    """Validate, write best.h5 if this is the best so far, and note the epoch."""
    # Running statistics are a process' own until here; from here on all parameters are equal again.
    run.communicator.mean([v.data for v in _statistics().values()])
    found = evaluate(run.evaluation, run.data, run.data.validation, run.communicator, run.feed)
    bits = run.evaluation.quantized.bit_numbers()
    used = cost(run.evaluation.quantized.network, bits)
    row = Row(
        epoch=progress.epoch,
        phase=progress.phase,
        loss=None if means is None else means.loss,
        cross_entropy=None if means is None else means.cross_entropy,
        training_error=None if means is None else means.error,
        validation_error=found.error,
        validation_cross_entropy=found.cross_entropy,
        weights_kib=used.weights_kib,
        activations_sum_kib=used.activations_sum_kib,
        activations_max_kib=used.activations_max_kib,
        learning_rate=rates[0],
        quantizer_learning_rate=rates[1],
    )
    progress, better = progress.offer(row, bits, run.budget.met_by(used))
    if run.series is not None:
        if better:
            parameters.save_h5(run.folder / BEST)
        write_metrics(run.folder / METRICS, progress.history)
        run.series.add(row)
    return progress


def _statistics() -> dict[str, nn.Variable]:
    """The parameters that no solver moves, and so differ between processes, in the order of their names."""
    return {name: v for name, v in sorted(nn.get_parameters(grad_only=False).items()) if not v.need_grad}


def _project(run: _Run, progress: Progress) -> Progress:
    """Make the model meet the budget; from here on its bits are fixed."""
    limited = {name for name in run.budget.limits() if name != "weights_kib"}
    inputs = quantizer_inputs(run.evaluation, run.data, CALIBRATION_IMAGES) if limited else {}
    changed = project(run.evaluation.quantized, run.budget, inputs)
    for name, (before, after) in changed.items():
        logger.info("projection: %s from %d to %d bits", name, before, after)
    progress = attrs.evolve(_validate(run, progress, None, (None, None)), phase=FINETUNE)
    _save(run, progress, None)
    return progress


def _finish(run: _Run, progress: Progress) -> Progress:
    """Read the test images with the best parameters, and close the run."""
    if progress.best is None:
        raise BudgetError(f"{run.experiment.name}: no epoch met the budget {run.budget.limits()}")
    run.communicator.barrier()
    parameters.load_h5(run.folder / BEST)
    found = evaluate(run.evaluation, run.data, run.data.test, run.communicator, run.feed)
    done = attrs.evolve(progress, phase=DONE, test_error=found.error, test_cross_entropy=found.cross_entropy)
    _save(run, done, None)
    return done


def _save(run: _Run, progress: Progress, solvers: SolverGroups | None) -> None:
    if run.communicator.rank > 0:
        return
    # One number a save: the rows, and one more once all is done.
    number = len(progress.history) + int(progress.phase == DONE)
    kept = checkpoints.Checkpoint(
        parameters.current(),
        {} if solvers is None else solvers.states(),
        {"identity": run.identity, "progress": progress.to_json()},
    )
    checkpoints.save(run.folder, number, kept)


def _result(run: _Run, progress: Progress) -> Result:
    best = progress.best
    assert isinstance(best, Best) and progress.test_error is not None
    parameters.load_h5(run.folder / BEST)
    quantized = run.evaluation.quantized
    used = cost(quantized.network, quantized.bit_numbers())
    policy = quantized.policy(
        name=run.experiment.arch,
        method="learned",
        seed=run.experiment.seed,
        budget=run.budget.limits(),
        cost={name: float(value) for name, value in attrs.asdict(used).items()},
    )
    return Result(
        test_accuracy=1 - progress.test_error,
        validation_accuracy=1 - best.error,
        best_epoch=best.epoch,
        cost=used,
        policy=policy,
        quantized=quantized,
        history=progress.history,
    )

"""The loop of a differentiable search: weights and what decides bits learn together, from the same batches."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any, Callable

import attrs
import nnabla as nn
import nnabla.functions as F
import numpy as np

from nnmpq.config.experiment import Experiment
from nnmpq.data.feed import Feed
from nnmpq.graph.accelerate import accelerate_where_possible, reserve
from nnmpq.graph.schemes import Scheme
from nnmpq.search.step_cost import plain
from nnmpq.search.task import SearchTask
from nnmpq.training import checkpoint as checkpoints
from nnmpq.training import parameters
from nnmpq.training.begin import checkpoint_of
from nnmpq.training.epoch import Batches, Means, run_epoch
from nnmpq.training.errors import TrainingError
from nnmpq.training.graphs import EvaluationGraph, TrainingGraph, build_evaluation, build_training
from nnmpq.training.identity import identity
from nnmpq.training.solvers import SolverGroups


def _nothing(share: float) -> None:
    """Steer nothing."""


@attrs.frozen(eq=False)
class Terms:
    """What a search adds to the cross entropy.

    Numbers that change while it goes on are parameters without gradients, under "search/": a checkpoint holds them.

    Args:
        losses: by name, shape (): added to the loss.
        after_update: called with the share of the search that is done, in (0, 1].
    """

    losses: Mapping[str, nn.Variable] = attrs.field(factory=dict)
    after_update: Callable[[float], None] = _nothing


def joined(first: Terms, second: Terms) -> Terms:
    """Return both terms as one: how a method adds its own to another's.

    Example:
        >>> sorted(joined(Terms({"a": nn.Variable(())}), Terms({"b": nn.Variable(())})).losses)
        ['a', 'b']
    """

    def after_update(share: float) -> None:
        first.after_update(share)
        second.after_update(share)

    return Terms({**first.losses, **second.losses}, after_update)


@attrs.frozen(eq=False)
class Graphs:
    """A search's graphs, which share every parameter.

    Args:
        task: what was asked for.
        experiment: its training keys alone, with one process' batch size.
        training: its loss has the terms in it.
        evaluation: the network as it is now.
        terms: what the loss has beside the cross entropy.
        feed: makes the batches.
    """

    task: SearchTask
    experiment: Experiment
    training: TrainingGraph
    evaluation: EvaluationGraph
    terms: Terms
    feed: Feed

    @property
    def updates_an_epoch(self) -> int:
        """Number of updates of an epoch."""
        return len(self.task.data.train) // self.task.experiment.batch_size


@attrs.frozen(eq=False)
class Objective:
    """What a differentiable search learns.

    Args:
        scheme: what stands at each site.
        terms: from the training graph, before it is accelerated, what is added to the cross entropy.
        solvers: from the training graph, what moves which parameters.
        set_rates: sets the solvers' learning rates for an epoch, 0 for the first.
        start: called once before the first update, with everything built.
        measure: columns of the trail after an epoch.
    """

    scheme: Scheme
    terms: Callable[[TrainingGraph], Terms]
    solvers: Callable[[TrainingGraph], SolverGroups]
    set_rates: Callable[[SolverGroups, int], None]
    start: Callable[[Graphs], None]
    measure: Callable[[Graphs], Mapping[str, Any]]


def build_objective(task: SearchTask, experiment: Experiment, objective: Objective) -> tuple[TrainingGraph, Terms]:
    """Build the training graph with the terms in its loss, in the current parameter scope.

    Args:
        task: data and machine.
        experiment: network and batch size.
        objective: scheme and terms.

    Raises:
        TrainingError: the scheme does not fit the network.
    """
    try:
        training = build_training(experiment, task.data, objective.scheme)
        terms = objective.terms(training)
    except ValueError as error:
        raise TrainingError(f"{experiment.name}: {error}") from error
    loss = training.loss
    for term in terms.losses.values():
        loss = F.add2(loss, term)
    outputs = [loss, training.cross_entropy, training.logits, *terms.losses.values()]
    for variable in outputs:
        variable.persistent = True
    fast = accelerate_where_possible(outputs) if task.machine.accelerate else None
    if fast is not None:
        reserve(fast.outputs)
        outputs = list(fast.outputs)
    loss, cross_entropy, logits, *added = outputs
    losses = dict(zip(terms.losses, added))
    graph = attrs.evolve(training, loss=loss, cross_entropy=cross_entropy, logits=logits, penalties=losses)
    return graph, Terms(losses, terms.after_update)


def minimise(task: SearchTask, objective: Objective, finish: Callable[[Graphs], Any]) -> Any:
    """Learn an objective for the experiment's epochs, then let a method make its policy of what was learned.

    A checkpoint after every epoch makes a killed search go on to the very same end. Each epoch is a row of the trail.

    Args:
        task: what was asked for; at most `steps` updates are made, and no epoch begins after `deadline` seconds.
        objective: what is learned.
        finish: called at the end with everything as it is then; draws on nothing but that.

    Returns:
        What `finish` returned.

    Raises:
        CheckpointError: the checkpoint is damaged, or another search's.
        TrainingError: the network, its weightfile or the batch size do not fit.
        NonFiniteLoss: the loss became infinite or not a number.
    """
    experiment, communicator = (
        attrs.evolve(plain(task.experiment), weightfile=task.experiment.weightfile),
        task.machine.communicator,
    )
    if experiment.batch_size % communicator.size:
        raise TrainingError(
            f"batch_size = {experiment.batch_size}: {communicator.size} processes cannot share it evenly"
        )
    if len(task.data.train) < experiment.batch_size:
        raise TrainingError(
            f"batch_size = {experiment.batch_size}: there are only {len(task.data.train)} training images"
        )
    known = {**identity(task.experiment, task.data), "steps": task.steps}
    found = checkpoint_of(task.folder, known, task.resume, communicator)
    experiment = attrs.evolve(experiment, batch_size=experiment.batch_size // communicator.size)
    nn.clear_parameters()
    loaded = [] if experiment.weightfile is None else parameters.load_weightfile(experiment.weightfile)
    training, terms = build_objective(task, experiment, objective)
    evaluation = build_evaluation(experiment, task.data, objective.scheme, accelerate=task.machine.accelerate)
    if experiment.weightfile is not None:
        parameters.drop_unused(loaded, (training.loss, evaluation.cross_entropies), experiment.weightfile)
    with _feed(task) as feed:
        graphs = Graphs(task, experiment, training, evaluation, terms, feed)
        _epochs(graphs, objective, found, known)
        return finish(graphs)


def _feed(task: SearchTask) -> Feed:
    return Feed(
        task.data,
        task.experiment.batch_size,
        seed=task.seed,
        augmentation=task.experiment.augmentation,
        workers=task.machine.workers,
        rank=task.machine.communicator.rank,
        size=task.machine.communicator.size,
    )


def _epochs(graphs: Graphs, objective: Objective, found: checkpoints.Checkpoint | None, known: dict[str, Any]) -> None:
    task, started = graphs.task, time.monotonic()
    solvers = objective.solvers(graphs.training)
    epoch, rows = 0, []
    if found is None:
        objective.start(graphs)
    else:
        source = str(task.folder / checkpoints.FOLDER)
        parameters.assign(found.parameters, source)
        try:
            solvers.restore(found.solvers)
        except ValueError as error:
            raise TrainingError(f"{source}: {error}") from error
        epoch, rows = found.state["epoch"], found.state["rows"]
        for row in rows:
            task.report(row)
    total = _updates(graphs)
    while epoch * graphs.updates_an_epoch < total:
        # Every process must come to the same decision.
        late = task.deadline is not None and time.monotonic() - started > task.deadline
        if task.machine.communicator.mean_numbers(np.array([float(late)]))[0] > 0:
            break
        objective.set_rates(solvers, epoch)
        batches = _steered(graphs, graphs.feed.training(epoch), epoch * graphs.updates_an_epoch, total)
        epoch += 1
        communicator, scale = task.machine.communicator, task.machine.scale
        means = run_epoch(graphs.training, solvers, batches, epoch, communicator, scale)
        # Running statistics are a process' own until here.
        communicator.mean([v.data for _, v in sorted(nn.get_parameters(grad_only=False).items()) if not v.need_grad])
        row = {"epoch": epoch, "images": _images(graphs, epoch, total), **_columns(means), **objective.measure(graphs)}
        rows = [*rows, row]
        if communicator.rank == 0:
            state = {"identity": known, "epoch": epoch, "rows": rows}
            kept = checkpoints.Checkpoint(parameters.current(), solvers.states(), state)
            checkpoints.save(task.folder, epoch, kept)
        task.report(row)


def _updates(graphs: Graphs) -> int:
    whole = graphs.experiment.epochs * graphs.updates_an_epoch
    return whole if graphs.task.steps is None else min(whole, graphs.task.steps)


def _images(graphs: Graphs, epoch: int, total: int) -> int:
    return min(epoch * graphs.updates_an_epoch, total) * graphs.task.experiment.batch_size


def _columns(means: Means) -> dict[str, float]:
    return {"loss": means.loss, "cross_entropy": means.cross_entropy, "training_error": means.error}


def _steered(graphs: Graphs, batches: Batches, done: int, total: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Hand on batches up to the last update, and let the terms be steered after each."""
    for batch in batches:
        if done == total:
            return
        yield batch
        done += 1
        graphs.terms.after_update(done / total)

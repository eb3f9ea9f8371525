"""What a step of a search takes, in steps of float training."""

from __future__ import annotations

import statistics
import time
from collections import OrderedDict
from typing import Callable

import attrs
import nnabla as nn
import numpy as np

from nnmpq.config.experiment import Experiment
from nnmpq.graph.schemes import Float
from nnmpq.search.task import SearchTask
from nnmpq.training.graphs import TrainingGraph, build_training
from nnmpq.training.solvers import SolverGroups, build_groups

ROUNDS = 5
StepParts = Callable[[SearchTask], "tuple[TrainingGraph, SolverGroups]"]


def step_ratio(task: SearchTask, parts: StepParts, rounds: int = ROUNDS) -> float:
    """Return the time of a search's update over that of float training, the median of rounds in turns.

    Both are forward, backward and update on the same batch of random pixels; what else the machine does meanwhile falls
    on both alike.

    Args:
        task: network, batch size and machine.
        parts: builds the search's training graph and solvers in the current parameter scope.
        rounds: how often each has its turn, after one turn each that compiles.
    """
    steps = []
    for build in (_float_parts, parts):
        with nn.parameter_scope("", scope=OrderedDict()):
            steps.append(_step(task, *build(task)))
    seconds: list[list[float]] = [[], []]
    for turn in range(rounds + 1):
        for index in (0, 1) if turn % 2 else (1, 0):
            start = time.perf_counter()
            steps[index]()
            if turn:
                seconds[index].append(time.perf_counter() - start)
    return round(statistics.median(own / base for base, own in zip(*seconds)), 3)


def plain(experiment: Experiment) -> Experiment:
    """Return an experiment without quantizers, policy, targets and weights of another run."""
    return attrs.evolve(
        experiment,
        w_quantize=None,
        a_quantize=None,
        policy=None,
        weightfile=None,
        target_weight_kbytes=-1.0,
        target_activation_kbytes=-1.0,
    )


def _float_parts(task: SearchTask) -> tuple[TrainingGraph, SolverGroups]:
    experiment = plain(task.experiment)
    graph = build_training(experiment, task.data, Float(), accelerate=task.machine.accelerate)
    return graph, build_groups(experiment, graph.quantized.sites, learn_bits=False)


def _step(task: SearchTask, graph: TrainingGraph, solvers: SolverGroups) -> Callable[[], None]:
    random = np.random.default_rng(0)
    graph.images.d = random.standard_normal(graph.images.shape, np.float32)
    graph.labels.d = random.integers(0, task.data.classes, graph.labels.shape)
    # nothing may run away in these few steps
    for group in solvers.groups.values():
        group.solver.set_learning_rate(1e-5)

    def step() -> None:
        graph.loss.forward(clear_no_need_grad=True)
        solvers.zero_grad()
        graph.loss.backward(clear_buffer=True)
        solvers.update()

    return step

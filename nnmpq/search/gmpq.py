"""GMPQ: EdMIPS' mixtures on a small data set, whose network keeps the rank of a float teacher's attribution."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import attrs
import nnabla as nn
import nnabla.functions as F

from nnmpq.config.choices import ARCHITECTURES
from nnmpq.config.errors import ConfigError
from nnmpq.config.experiment import Experiment
from nnmpq.config.reader import read_experiment, resolve_weightfile
from nnmpq.config.sections import read_sections
from nnmpq.files import nearest
from nnmpq.graph.functions import functions_of
from nnmpq.graph.rewrite import rewrite
from nnmpq.models import build
from nnmpq.policy import Policy
from nnmpq.search import edmips
from nnmpq.search.allocate import check_reachable
from nnmpq.search.attribution import attribution, both_searched, capacity_power, feature_map, imitation
from nnmpq.search.complexity import searched_layers
from nnmpq.search.differentiable import Terms, build_objective
from nnmpq.search.mixtures import mixtures
from nnmpq.search.sensitivity import FLOAT_FOLDER
from nnmpq.search.step_cost import plain
from nnmpq.search.task import SearchTask, network_of
from nnmpq.training import train
from nnmpq.training.begin import BEST
from nnmpq.training.errors import TrainingError
from nnmpq.training.graphs import TrainingGraph
from nnmpq.training.parameters import load_weightfile
from nnmpq.training.solvers import SolverGroups

CONFIG = "config.cfg"


@attrs.frozen
class Teacher:
    """A float network that was trained by an experiment.

    Args:
        experiment: says what the network is.
        path: its parameters, .h5.
    """

    experiment: Experiment
    path: Path


def search(task: SearchTask) -> Policy:
    """Return the policy of EdMIPS' search with one more term in the loss: the attribution's distance from a teacher's.

    loss = EdMIPS' + aux_weight * mean over images and pixels of (n(A) - n(A_teacher^p))^2, n(A) = A / ||A||

    A are the attribution maps of the images' labels, of the network as it is mixed now and of the float teacher in
    evaluation mode; p grows as the expected bits shrink. Rank is what carries over to other data: bits found on a small
    set serve a large one, see `nnmpq.search.transfer`.

    Args:
        task: what was asked for; its experiment names the teacher, else one of the same network is trained first, into
            the folder ``float``.

    Raises:
        BudgetError: the budget cannot be met; each limit is named with the least that is reachable.
        ConfigError: the teacher is not there, or is no float network for this data set.
        TrainingError: candidates, weightfile, batch size or the teacher's parameters do not fit.

    Source:
        Wang et al., "Generalizable Mixed-Precision Quantization via Attribution Rank Preservation", ICCV 2021.
    """
    network = network_of(task.experiment, task.data.shape, task.data.classes)
    narrow = {name: widths[0] for name, widths in edmips.mixed_widths(task, network).items()}
    # Before a teacher is trained in vain.
    check_reachable(network, task.budget, {**task.kept(network), **narrow})
    found = teacher_of(task)
    return edmips.search(task, "gmpq", lambda graph: terms(task.experiment, found, graph))


def terms(experiment: Experiment, teacher: Teacher, graph: TrainingGraph) -> Terms:
    """Return what GMPQ adds to EdMIPS' loss.

    Args:
        experiment: ``aux_weight``, ``pnorm``, ``product``; `faithful` counts each layer's capacity the same.
        teacher: the float network.
        graph: the student's training graph, before it is accelerated.

    Raises:
        ValueError: one of both networks has no feature map, or their maps differ in size.
    """
    if experiment.aux_weight == 0:
        return Terms()
    logits = graph.quantized.output
    teaching = teacher_logits(teacher, graph.images, logits.shape[1])
    sizes = [feature_map(v).shape[2:] for v in (logits, teaching)]
    if sizes[0] != sizes[1]:
        raise ValueError(f"the teacher's last map has {sizes[1]} pixels, the network's {sizes[0]}: {teacher.path}")
    distance = imitation(
        attribution(logits, graph.labels), attribution(teaching, graph.labels), power(experiment, graph)
    )
    return Terms({"attribution": F.mul_scalar(distance, experiment.aux_weight)})


def power(experiment: Experiment, graph: TrainingGraph) -> nn.Variable | float:
    """Return the power of the teacher's attribution: ``pnorm``, or by the expected bits where that is 0."""
    if experiment.pnorm > 0:
        return experiment.pnorm
    searched = mixtures(graph.quantized)
    layers = both_searched(searched_layers(graph.quantized.network, searched), searched)
    return capacity_power(layers, graph.quantized.bits(), experiment.product, by_macs=not experiment.faithful)


def teacher_logits(teacher: Teacher, images: nn.Variable, classes: int) -> nn.Variable:
    """Build a teacher in evaluation mode on a graph's images; nothing of it is learned, or stays in the current scope.

    Args:
        teacher: the float network.
        images: shape (B, C, H, W).
        classes: number of classes.

    Returns:
        Logits, shape (B, classes).

    Raises:
        TrainingError: its file lacks a parameter, or has one of another shape.
    """
    experiment = teacher.experiment
    options = {key: getattr(experiment, key) for key in ARCHITECTURES[experiment.arch] if key != "auxiliary"}
    with nn.parameter_scope("", scope=OrderedDict()), nn.auto_forward(False):
        loaded = set(load_weightfile(str(teacher.path)))
        try:
            logits = build(experiment.arch, images, classes, test=True, **options)
        except ValueError as error:
            raise TrainingError(f"{teacher.path}: not of {experiment.arch} on these images: {error}") from error
        own = nn.get_parameters(grad_only=False)
    missing = [name for name in own if name not in loaded]
    if missing:
        near = nearest(missing[0], loaded)
        raise TrainingError(
            f"{teacher.path}: {len(missing)} parameters of the teacher are missing, {missing[0]} is one"
            f"; the nearest there is {near!r}"
        )
    fixed = {v.data: v.get_unlinked_variable(need_grad=False) for v in own.values()}
    leaves = {
        v: fixed[v.data] for f in functions_of([logits]) for v in f.inputs if v.parent is None and v.data in fixed
    }
    # Nothing upstream of the loss wants a gradient then: memory is freed as in evaluation.
    return rewrite([logits], lambda function, inputs: None, leaves)[0][0]


def teacher_of(task: SearchTask) -> Teacher:
    """Return the teacher that an experiment names, or train one of the same network.

    Args:
        task: the experiment, and the folder beside which those of other runs are.

    Raises:
        ConfigError: it is not there, quantized, or of another data set.
    """
    experiment = task.experiment
    if experiment.teacher is None:
        folder = task.folder / FLOAT_FOLDER
        alone = attrs.evolve(plain(experiment), name=FLOAT_FOLDER)
        train(alone, task.data, folder, resume=task.resume, quiet=True, machine=task.machine)
        return Teacher(alone, folder / BEST)
    try:
        path = resolve_weightfile(experiment.teacher, task.folder.parent)
    except ConfigError as error:
        raise ConfigError(f"[{experiment.name}] teacher: {error}") from error
    cfg = path.parent / CONFIG
    if not cfg.is_file():
        return Teacher(plain(experiment), path)
    # A run's config.cfg has one section, which may be DEFAULT itself.
    found = read_experiment(cfg, read_sections(cfg).names()[-1])
    for key in ("w_quantize", "a_quantize", "policy"):
        if getattr(found, key) is not None:
            raise ConfigError(
                f"[{experiment.name}] teacher = {path}: {key} = {getattr(found, key)}; a float one is needed"
            )
    if found.dataset != experiment.dataset:
        raise ConfigError(f"[{experiment.name}] teacher = {path}: of {found.dataset}, not of {experiment.dataset}")
    return Teacher(found, path)


def training_parts(task: SearchTask) -> tuple[TrainingGraph, SolverGroups]:
    """Return the training graph and its solvers in the current parameter scope, for timing a step."""
    found = teacher_of(attrs.evolve(task, resume=True))
    learned = edmips.objective(task, lambda graph: terms(task.experiment, found, graph))
    graph, _ = build_objective(task, plain(task.experiment), learned)
    return graph, edmips.build_solvers(task.experiment, graph)

"""Learned: steps and ranges train under the limits, as Sony's; the bits that they come to are the policy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import attrs
import nnabla as nn
import numpy as np

from nnmpq.budget import Budget
from nnmpq.config.experiment import Experiment
from nnmpq.config.scheme import build_scheme
from nnmpq.cost import TARGETS, cost
from nnmpq.graph.network import ACTIVATION, Network, Site
from nnmpq.graph.quantize import QuantizedNetwork
from nnmpq.graph.quantized import Quantized
from nnmpq.policy import Policy
from nnmpq.search.allocate import adjust, check_reachable
from nnmpq.search.differentiable import Graphs, Objective, Terms, build_objective, minimise
from nnmpq.search.scores.ranges import best_grid
from nnmpq.search.spend import spend
from nnmpq.search.step_cost import plain
from nnmpq.search.task import SearchTask, make_policy, network_of
from nnmpq.search.trial import trial, validate
from nnmpq.search.uniform import widest_uniform
from nnmpq.training.evaluate import quantizer_inputs
from nnmpq.training.graphs import TrainingGraph, penalty
from nnmpq.training.ladder import relative_error
from nnmpq.training.schedule import rates
from nnmpq.training.solvers import QUANTIZERS, WEIGHTS, SolverGroups, build_groups

WEIGHT_DEFAULT, ACTIVATION_DEFAULT = "parametric_fp_d_xmax", "parametric_fp_d_xmax_relu"
CALIBRATION_IMAGES = 512
Widths = Mapping[str, "tuple[int, ...]"]


def search(task: SearchTask) -> Policy:
    """Return the bits that learned quantizers come to under penalties for what exceeds the limits.

    loss = cross entropy + sum over limits t of lambda_t max(cost_t - limit_t, 0)^2

    KiB count as in training, with ``initial_cost_lambda2`` and ``3``; BitOps in mean bits, sqrt(BitOps / MACs), with
    the weight of the weights. Afterwards every width is the nearest allowed one from it on, and where a limit is still
    exceeded the sites get narrower that lose least, by relative squared error; what is left unused is spent likewise.
    The widest uniform policy stands beside it: of the two the one with the lower cross entropy on the validation images
    is handed over.

    Args:
        task: what was asked for; ``w_quantize`` and ``a_quantize`` say which parametrization, else step and range.

    Raises:
        BudgetError: the budget cannot be met; each limit is named with the least that is reachable.

    Source:
        Uhlich et al., "Mixed Precision DNNs: All you need is a good parametrization", ICLR 2020, section 3.
    """
    network = network_of(task.experiment, task.data.shape, task.data.classes)
    # A grid around zero has 2 bits at least.
    widths = {
        name: tuple(sorted({max(w, narrowest_learned(network.site(name))) for w in own}))
        for name, own in task.widths(network).items()
    }
    check_reachable(network, task.budget, {**task.kept(network), **{name: own[0] for name, own in widths.items()}})

    def finish(graphs: Graphs) -> Policy:
        return make_policy(task, network, _chosen(graphs, network, widths), "learned")

    return minimise(task, objective(task), finish)


def narrowest_learned(site: Site) -> int:
    """Return the fewest bits of a learned quantizer: 2 around zero."""
    return 1 if site.role == ACTIVATION and not site.signed else 2


def objective(task: SearchTask) -> Objective:
    """Return what Sony's training learns, for any limits.

    Args:
        task: parametrization, limits and rates are its experiment's.
    """
    experiment = attrs.evolve(
        plain(task.experiment),
        weightfile=task.experiment.weightfile,
        w_quantize=task.experiment.w_quantize or WEIGHT_DEFAULT,
        a_quantize=task.experiment.a_quantize or ACTIVATION_DEFAULT,
    )
    return Objective(
        scheme=build_scheme(experiment),
        terms=lambda graph: Terms(limit_terms(experiment, graph.quantized, task.budget)),
        solvers=lambda graph: build_solvers(experiment, graph, bool(task.budget.limits())),
        set_rates=lambda solvers, epoch: set_rates(experiment, solvers, epoch),
        start=lambda graphs: None,
        measure=measure,
    )


def limit_terms(experiment: Experiment, quantized: QuantizedNetwork, budget: Budget) -> dict[str, nn.Variable]:
    """Return lambda * max(cost - limit, 0)^2 for each limit, BitOps as mean bits.

    Args:
        experiment: weights of the penalties.
        quantized: the network with learned quantizers.
        budget: limits.
    """
    network, bits = quantized.network, quantized.bits()
    found = {}
    for name, limit in budget.limits().items():
        weight = experiment.initial_cost_lambda3 if name.startswith("activations") else experiment.initial_cost_lambda2
        if name == "bitops":
            found[name] = penalty(TARGETS["mean_bits"](network, bits), (limit / network.macs) ** 0.5, weight)
        else:
            found[name] = penalty(TARGETS[name](network, bits), limit, weight)
    return found


def build_solvers(experiment: Experiment, graph: TrainingGraph, limited: bool) -> SolverGroups:
    """Make the solvers of training; with limits the quantizers' gradients are clamped, as published."""
    made = build_groups(experiment, graph.quantized.sites, learn_bits=True)
    groups = {
        name: attrs.evolve(group, clamp=limited) if name == QUANTIZERS else group for name, group in made.groups.items()
    }
    return SolverGroups(groups)


def set_rates(experiment: Experiment, solvers: SolverGroups, epoch: int) -> None:
    """Set the learning rates of an epoch, 0 for the first."""
    for name, rate in zip((WEIGHTS, QUANTIZERS), rates(experiment, epoch)):
        solvers.set_learning_rate(name, rate)


def training_parts(task: SearchTask) -> tuple[TrainingGraph, SolverGroups]:
    """Return the training graph and its solvers in the current parameter scope, for timing a step."""
    graph, _ = build_objective(task, plain(task.experiment), objective(task))
    return graph, build_solvers(task.experiment, graph, bool(task.budget.limits()))


def measure(graphs: Graphs) -> dict[str, Any]:
    """Return the columns of an epoch: validation, and what the bits cost as they are now."""
    quantized = graphs.evaluation.quantized
    found = validate(graphs)
    used = cost(quantized.network, quantized.bit_numbers())
    return {
        "validation_error": found.error,
        "validation_cross_entropy": found.cross_entropy,
        **{name: float(value) for name, value in attrs.asdict(used).items()},
    }


def rounded(bits: Mapping[str, int], widths: Widths) -> dict[str, int]:
    """Return the narrowest allowed width from each site's bits on, its widest where there is none.

    Example:
        >>> rounded({"a": 3, "b": 9}, {"a": (2, 4, 8), "b": (2, 4, 8)})
        {'a': 4, 'b': 8}
    """
    return {name: min((w for w in own if w >= bits[name]), default=own[-1]) for name, own in widths.items()}


def _chosen(graphs: Graphs, network: Network, widths: Widths) -> dict[str, int]:
    """The learned bits, made to meet the budget, or the widest uniform ones if they are better."""
    task, quantized = graphs.task, graphs.evaluation.quantized
    kept, budget = task.kept(network), task.budget
    bits = rounded(quantized.bit_numbers(), widths)
    numbers = _numbers(graphs, widths)
    candidates = {"learned": bits}
    if budget.limits():
        losses = {name: _errors(quantized.sites[name], numbers[name], own) for name, own in widths.items()}
        met = spend(adjust({**kept, **bits}, losses, network, budget), losses, network, budget)
        candidates["learned"] = {name: met[name] for name in widths}
        candidates["uniform"] = widest_uniform(network, widths, kept, budget)
    entropies = {}
    for name, own in candidates.items():
        tried = trial(graphs, partial(_set_bits, quantized, own, numbers))
        entropies[name] = tried.cross_entropy
        used = {key: float(value) for key, value in attrs.asdict(cost(network, {**kept, **own})).items()}
        row = {"candidate": name, "validation_error": tried.error, "validation_cross_entropy": tried.cross_entropy}
        task.report({**row, **used})
    return candidates[min(entropies, key=lambda name: entropies[name])]


def _numbers(graphs: Graphs, names: Iterable[str]) -> dict[str, np.ndarray]:
    """What each quantizer sees: the weights, and a sample of the activations."""
    quantized = graphs.evaluation.quantized
    found = quantizer_inputs(graphs.evaluation, graphs.task.data, CALIBRATION_IMAGES)
    for name in names:
        source = quantized.sites[name].source
        if name not in found and source is not None:
            if source.parent is not None:
                source.forward()
            found[name] = np.array(source.d, np.float32)
    return found


def _values(site: Quantized, bits: int, x: np.ndarray) -> Mapping[str, np.ndarray]:
    """A quantizer's raw values at a width: what it learned if that is its own, else those of the least error."""
    if site.bit_number() == bits:
        return site.values()
    signed = site.quantizer.signed
    step = best_grid(x if signed else np.maximum(x, 0), bits, signed=signed).step
    values: Mapping[str, np.ndarray] = site.quantizer.initial(bits, step)
    return values


def _errors(site: Quantized, x: np.ndarray, widths: tuple[int, ...]) -> dict[int, float]:
    return {bits: relative_error(site.quantizer, _values(site, bits, x), x) for bits in widths}


def _set_bits(quantized: QuantizedNetwork, bits: Mapping[str, int], numbers: Mapping[str, np.ndarray]) -> None:
    for name, width in bits.items():
        site = quantized.sites[name]
        for key, value in _values(site, width, numbers[name]).items():
            site.parameters[key].d = value

"""EdMIPS: every tensor a mixture of widths whose shares are learned with the weights; the largest share wins."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, Callable

import attrs
import nnabla as nn
import nnabla.functions as F
import nnabla.initializer as I

from nnmpq.config.experiment import Experiment
from nnmpq.cost import cost
from nnmpq.graph.mixture import Mixture
from nnmpq.graph.network import BIAS, Network
from nnmpq.policy import Policy
from nnmpq.search.allocate import allocate, check_reachable
from nnmpq.search.candidates import candidate_quantizers
from nnmpq.search.complexity import from_published, relative_complexity, searched_layers
from nnmpq.search.differentiable import Graphs, Objective, Terms, build_objective, joined, minimise
from nnmpq.search.mixtures import (
    decide,
    entropy,
    expected_bits,
    largest_shares,
    mean_entropy,
    mixtures,
    start_ranges,
    unlikeliness,
)
from nnmpq.search.multipliers import SCOPE, multipliers
from nnmpq.search.spend import spend
from nnmpq.search.step_cost import plain
from nnmpq.search.task import SearchTask, make_policy, network_of
from nnmpq.search.trial import trial, validate
from nnmpq.search.uniform import widest_uniform
from nnmpq.training.constraints import group_alike, learned_names
from nnmpq.training.errors import TrainingError
from nnmpq.training.graphs import TrainingGraph
from nnmpq.training.schedule import learning_rate, rates
from nnmpq.training.solvers import QUANTIZERS, WEIGHTS, Group, SolverGroups, make_solver, weight_parameters

SHARES = "shares"
# A limit's multiplier begins with the pressure that the complexity's weight makes at 2-bit weights and activations.
FIRST_PRODUCT = 4.0
More = Callable[[TrainingGraph], Terms]


def search(task: SearchTask, method: str = "edmips", more: More | None = None) -> Policy:
    """Return the policy that a mixture of widths in every tensor leans to after training.

    loss = cross entropy + lambda sum_l MACs_l E[a_l] E[w_l] / sum_l MACs_l + e(t) sum_i H(p_i) / log K_i

    E are the expected bits under the shares p = softmax(alpha), H their entropy, whose weight e(t) rises linearly in
    the second half: it closes the gap between the mixture and its largest shares. Without limits those are the policy,
    as published. With limits each has a multiplier instead of lambda, which rises while the expected cost is above it.
    Of the policies that meet the budget the likeliest under the shares is taken, and what it leaves unused is spent on
    wider tensors; or the widest uniform one, where that has the lower cross entropy on the validation images. Both have
    the weights of the search.

    Args:
        task: what was asked for.
        method: name that the policy gets.
        more: further terms of the loss, from the training graph before it is accelerated.

    Raises:
        BudgetError: the budget cannot be met; each limit is named with the least that is reachable.
        TrainingError: candidates, weightfile or batch size do not fit.

    Source:
        Cai and Vasconcelos, "Rethinking Differentiable Search for Mixed-Precision Neural Networks", CVPR 2020.
    """
    network = network_of(task.experiment, task.data.shape, task.data.classes)
    widths = mixed_widths(task, network)
    check_reachable(network, task.budget, {**task.kept(network), **{name: own[0] for name, own in widths.items()}})

    def finish(graphs: Graphs) -> Policy:
        bits = _chosen(graphs, network, widths)
        return make_policy(task, network, bits, method, candidate_quantizers(task.experiment, network, bits))

    return minimise(task, objective(task, more), finish)


def mixed_widths(task: SearchTask, network: Network) -> dict[str, tuple[int, ...]]:
    """Return the candidates of the sites that become mixtures: biases stay float, as in the paper."""
    given = task.widths(network)
    return {name: own for name, own in given.items() if network.site(name).role != BIAS}


def objective(task: SearchTask, more: More | None = None) -> Objective:
    """Return what EdMIPS learns.

    Args:
        task: candidates, quantizers, limits and rates are its experiment's.
        more: further terms of the loss.

    Raises:
        TrainingError: a quantizer cannot have such candidates.
    """
    experiment = task.experiment
    try:
        scheme = Mixture(
            weight_bits=task.weight_widths,
            activation_bits=task.activation_widths,
            weight=experiment.weight_candidate,
            activation=experiment.activation_candidate,
            kinds=experiment.activation_sites,
            keep=experiment.keep,
        )
    except ValueError as error:
        raise TrainingError(
            f"{experiment.name}: {experiment.weight_candidate} at {task.weight_widths} bits, "
            f"{experiment.activation_candidate} at {task.activation_widths}: {error}"
        ) from error

    def terms(graph: TrainingGraph) -> Terms:
        own = complexity_terms(task, graph)
        return own if more is None else joined(own, more(graph))

    return Objective(
        scheme=scheme,
        terms=terms,
        solvers=lambda graph: build_solvers(experiment, graph),
        set_rates=lambda solvers, epoch: set_rates(experiment, solvers, epoch),
        start=start_ranges,
        measure=measure,
    )


def complexity_terms(task: SearchTask, graph: TrainingGraph) -> Terms:
    """Return the terms for what the policy costs and for how undecided it is.

    Args:
        task: limits, weights of the terms.
        graph: the training graph.
    """
    experiment, quantized = task.experiment, graph.quantized
    network, bits = quantized.network, quantized.bits()
    layers = searched_layers(network, mixtures(quantized))
    relative = relative_complexity(network, layers, bits)
    weight = experiment.complexity_weight if experiment.cd is None else from_published(experiment.cd, layers)
    losses: dict[str, nn.Variable] = {}
    limited = multipliers(network, bits, task.budget, FIRST_PRODUCT * weight)
    if limited.terms:
        losses.update(limited.terms)
    else:
        losses["complexity"] = F.mul_scalar(relative, weight)
    with nn.parameter_scope("search"):
        entropy_weight = nn.parameter.get_parameter_or_create(
            "entropy_weight", (), I.ConstantInitializer(0.0), need_grad=False
        )
    losses["entropy"] = F.mul2(entropy_weight, entropy(quantized))

    def after_update(share: float) -> None:
        entropy_weight.d = experiment.entropy_weight * max(2.0 * share - 1.0, 0.0)
        if limited.terms:
            limited.ascend(experiment.multiplier_rate, expected_bits(quantized))

    return Terms(losses, after_update)


def build_solvers(experiment: Experiment, graph: TrainingGraph) -> SolverGroups:
    """Make the two published solvers, of the weights and of the shares, and one of the ranges where there are any.

    Args:
        experiment: optimizer, rates and decays.
        graph: the training graph.
    """
    sites = graph.quantized.sites
    shares: dict[str, nn.Variable] = {}
    ranges: dict[str, nn.Variable] = {}
    for name, site in sites.items():
        for key in () if site.quantizer is None else learned_names(site):
            (shares if key == "alpha" else ranges)[f"{name}_quantizer/{key}"] = site.parameters[key]
    groups = {}
    for name, chosen, optimizer, decay, alike in (
        (WEIGHTS, weight_parameters(sites), experiment.optimizer, experiment.weight_decay, ()),
        (SHARES, shares, experiment.alpha_optimizer, experiment.alpha_weight_decay, ()),
        (QUANTIZERS, ranges, experiment.optimizer, experiment.quantizer_weight_decay, tuple(group_alike(sites))),
    ):
        if chosen:
            # The rate is set for every epoch.
            solver = make_solver(optimizer, experiment.initial_learning_rate, experiment.momentum)
            solver.set_parameters(chosen)
            groups[name] = Group(solver, decay, alike)
    return SolverGroups(groups)


def set_rates(experiment: Experiment, solvers: SolverGroups, epoch: int) -> None:
    """Set the learning rates of an epoch, 0 for the first."""
    weights, ranges = rates(experiment, epoch)
    decay = experiment.alpha_learning_rate_decay
    solvers.set_learning_rate(WEIGHTS, weights)
    solvers.set_learning_rate(QUANTIZERS, ranges)
    solvers.set_learning_rate(
        SHARES, learning_rate(experiment.alpha_learning_rate, experiment.milestones, decay, epoch)
    )


def training_parts(task: SearchTask) -> tuple[TrainingGraph, SolverGroups]:
    """Return the training graph and its solvers in the current parameter scope, for timing a step."""
    graph, _ = build_objective(task, plain(task.experiment), objective(task))
    return graph, build_solvers(task.experiment, graph)


def measure(graphs: Graphs) -> dict[str, Any]:
    """Return the columns of an epoch: errors of the mixture and of its largest shares, expected and chosen cost."""
    quantized = graphs.evaluation.quantized
    mixed = validate(graphs)
    bits = largest_shares(quantized)
    used = cost(quantized.network, {**quantized.bit_numbers(), **bits})
    expected = cost(quantized.network, expected_bits(quantized))
    alone = trial(graphs, partial(decide, quantized, bits))
    return {
        "mixture_error": mixed.error,
        "mixture_cross_entropy": mixed.cross_entropy,
        "argmax_error": alone.error,
        "argmax_cross_entropy": alone.cross_entropy,
        "mean_entropy": mean_entropy(quantized),
        **{f"multiplier_{name}": float(v.d) for name, v in _multipliers().items()},
        **{f"mixture_{name}": float(value) for name, value in attrs.asdict(expected).items()},
        **{f"argmax_{name}": float(value) for name, value in attrs.asdict(used).items()},
    }


def _multipliers() -> dict[str, nn.Variable]:
    """The multipliers of the current scope by their limits."""
    with nn.parameter_scope(SCOPE):
        return dict(nn.get_parameters(grad_only=False))


def _chosen(graphs: Graphs, network: Network, widths: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
    """The bits of the mixtures: the likeliest that meet the budget, or the widest uniform ones if they are better."""
    task, budget = graphs.task, graphs.task.budget
    quantized = graphs.evaluation.quantized
    if not budget.limits():
        return largest_shares(quantized)
    kept = task.kept(network)
    unlikely = unlikeliness(quantized)
    found = allocate(unlikely, network, budget, fixed=kept)
    own = spend(found, unlikely, network, budget)
    own = {name: own[name] for name in widths}
    candidates = {"likeliest": own, "uniform": widest_uniform(network, widths, kept, budget)}
    entropies = {}
    for name, bits in candidates.items():
        tried = trial(graphs, partial(decide, quantized, bits))
        entropies[name] = tried.cross_entropy
        used = cost(network, {**kept, **bits})
        row = {"candidate": name, "argmax_error": tried.error, "argmax_cross_entropy": entropies[name]}
        task.report({**row, **{f"argmax_{key}": float(value) for key, value in attrs.asdict(used).items()}})
    return candidates[min(entropies, key=lambda name: entropies[name])]

"""The training graph and the evaluation graph of a network with gates; they share every parameter."""

from __future__ import annotations

import attrs
import nnabla as nn
import nnabla.functions as F
import numpy as np
from nnabla.parameter import get_parameter_or_create

from nnmpq.config.choices import ARCHITECTURES
from nnmpq.config.dynamic import REINFORCEMENT
from nnmpq.config.experiment import Experiment
from nnmpq.config.scheme import build_scheme
from nnmpq.data import DataSet
from nnmpq.dynamic.decide import Decision, greedy, sampled, straight_through
from nnmpq.dynamic.energy import Account, energy_per_mac, parse_table
from nnmpq.dynamic.network import DynamicNetwork, DynamicSettings, build_dynamic
from nnmpq.dynamic.reward import Action, batch_means, diversity, entropy, policy_loss, returns
from nnmpq.graph.accelerate import WeightClock, accelerate_where_possible, reserve
from nnmpq.graph.schemes import Parametric
from nnmpq.models import build
from nnmpq.training.graphs import TrainingGraph

PRICE = "gates/price"


@attrs.frozen(eq=False)
class Steering:
    """What is set before each update.

    Args:
        numbers: uniform on [0, 1), one a sample and gate, shape (B, N).
        random_share: 1 while paths are drawn by lot, else 0, shape (1, 1).
        alpha: worth of a saving, shape ().
        reward_weight: of the rewards in the loss, shape ().
        greedy_returns: of each sample without drawing, shape (B, N); zero where they are not asked for.
        energy: mean share of the widest uniform network's energy, by the probabilities, shape (); read afterwards.
    """

    numbers: nn.Variable
    random_share: nn.Variable
    alpha: nn.Variable
    reward_weight: nn.Variable
    greedy_returns: nn.Variable
    energy: nn.Variable


@attrs.frozen(eq=False)
class DynamicTraining:
    """What a training step computes.

    Args:
        graph: as the ordinary loop takes it.
        network: the network in training mode.
        steering: what is set before each update.
        account: what each choice costs.
        savings: what each choice is rewarded for, shape (N, K), all narrow paths together 1.
    """

    graph: TrainingGraph
    network: DynamicNetwork
    steering: Steering
    account: Account
    savings: np.ndarray


@attrs.frozen(eq=False)
class DynamicEvaluation:
    """What evaluation computes, image by image.

    Args:
        images: float32, shape (B, C, H, W).
        labels: int32, shape (B, 1).
        network: the network in evaluation mode.
        logits: shape (B, classes).
        cross_entropies: shape (B, 1).
        chosen: 1 for the precision that was taken, shape (B, N, K).
        probabilities: shape (B, N, K).
        price: the parameter "gates/price", shape (1, 1): what wide paths must be worth.
        run: its forward pass computes all of them.
        clock: of the accelerated functions; None where nnabla's own run.
    """

    images: nn.Variable
    labels: nn.Variable
    network: DynamicNetwork
    logits: nn.Variable
    cross_entropies: nn.Variable
    chosen: nn.Variable
    probabilities: nn.Variable
    price: nn.Variable
    run: nn.Variable
    clock: WeightClock | None = None


def settings_of(experiment: Experiment) -> DynamicSettings:
    """Return how an experiment's blocks and gates are quantized."""
    scheme = build_scheme(experiment)
    assert isinstance(scheme, Parametric)
    return DynamicSettings(
        scheme,
        experiment.precisions,
        experiment.gate_bits,
        experiment.pre_gate,
        experiment.gate_channel,
        detach=not experiment.faithful,
        quantize_gate_input=not experiment.faithful,
    )


def table_of(experiment: Experiment) -> dict[float, float]:
    """Return an experiment's energies by width."""
    return parse_table(experiment.energy_per_mac)


def relative_cost(experiment: Experiment) -> np.ndarray:
    """Return what each precision costs beyond the narrowest, in parts of the widest, shape (K,)."""
    table = table_of(experiment)
    costs = np.array([energy_per_mac(table, bits, bits) for bits in experiment.precisions])
    paid = costs if not experiment.pre_gate else costs - costs[0]
    paid[0] = 0.0
    return np.asarray(paid / paid[-1])


def savings_of(account: Account, faithful: bool) -> np.ndarray:
    """Return what each choice of each gate is rewarded for, shape (N, K); taking all narrow paths brings 1.

    Args:
        account: costs of the choices.
        faithful: 1/N for every narrow path, as published, whatever the block costs.
    """
    extra = account.extra()
    blocks = np.full(len(extra), 1 / len(extra)) if faithful else extra[:, -1] / extra[:, -1].sum()
    return np.asarray(blocks[:, None] * (1 - extra / extra[:, -1:]))


def _float_network(experiment: Experiment, data: DataSet, test: bool) -> tuple[nn.Variable, nn.Variable]:
    images = nn.Variable((experiment.batch_size, *data.shape))
    options = {key: getattr(experiment, key) for key in ARCHITECTURES[experiment.arch] if key != "auxiliary"}
    return images, build(experiment.arch, images, data.classes, test=test, seed=experiment.seed, **options)


def _gate_numbers(experiment: Experiment) -> np.random.RandomState:
    """The source of the gates' initial weights; another than the network's."""
    return np.random.RandomState((experiment.seed + 1) % 2**32)


def _count_blocks(y: nn.Variable) -> int:
    from nnmpq.dynamic.blocks import find_blocks

    return len(find_blocks(y))


def build_training(experiment: Experiment, data: DataSet, *, accelerate: bool = False) -> DynamicTraining:
    """Build the training graph in the current parameter scope.

    Supervised: loss = CE + alpha * energy share, the second only with an energy target. Reinforcement: loss = CE +
    rl_weight * policy loss - gate_entropy * entropy. Both less gate_diversity * diversity. Gradients of the gates are
    those of `straight_through`, or of the drawn choices' probabilities.

    Args:
        experiment: network, gates and what they learn from.
        data: shape and number of classes.
        accelerate: run on fast CPU functions where this machine has them.
    """
    images, y = _float_network(experiment, data, test=False)
    labels = nn.Variable((experiment.batch_size, 1))
    numbers = nn.Variable((experiment.batch_size, _count_blocks(y)))
    random_share, alpha, reward_weight = nn.Variable((1, 1)), nn.Variable(()), nn.Variable(())
    columns = [F.reshape(v, (-1, 1), inplace=False) for v in F.split(numbers, axis=1)]
    reinforced = experiment.gate_training == REINFORCEMENT
    nothing = F.constant(0.0, (1, 1))
    costs = relative_cost(experiment)

    def decide(block: int, logits: nn.Variable) -> Decision:
        if reinforced:
            return sampled(logits, columns[block], experiment.gate_exploration, random_share)
        return straight_through(logits, costs, nothing, columns[block], random_share)

    network = build_dynamic(y, settings_of(experiment), decide, rng=_gate_numbers(experiment))
    account = network.account(table_of(experiment))
    decisions = [block.decision for block in network.blocks]
    entropies = F.softmax_cross_entropy(network.output, labels)
    cross_entropy = F.mean(entropies)
    # The straight-through weights are the choices themselves; draws are weighed by what they were drawn from.
    expected = [d.probabilities if d.weights is None else d.weights for d in decisions]
    energy = _energy_share(expected, account)
    greedy_returns = nn.Variable((experiment.batch_size, len(decisions)))
    savings = savings_of(account, experiment.faithful)
    actions = [Action(d.chosen, d.probabilities) for d in decisions]
    alike = F.mul_scalar(diversity(actions), -experiment.gate_diversity)
    if reinforced:
        gains = returns(entropies, actions, savings, alpha, experiment.gamma, over_batch=experiment.faithful)
        baselines = _baselines(experiment.baseline, gains, greedy_returns)
        reward = F.mul2(policy_loss(actions, gains, baselines), reward_weight)
        undecided = F.mul_scalar(entropy(actions), -experiment.gate_entropy)
        # What is read after an update must be computed by it, so the loss takes the energy in, times zero.
        watched = F.mul_scalar(F.identity(energy).apply(need_grad=False), 0.0)
        terms = {"rewards": reward, "entropy": undecided, "diversity": alike, "watched": watched}
    else:
        # The share itself is also read: it keeps a place of its own.
        paid = F.mul2(F.mul2(F.identity(energy), alpha), reward_weight)
        terms = {"energy": paid, "diversity": alike}
    loss = F.add_n(cross_entropy, *terms.values())
    read_later = [loss, cross_entropy, network.output, energy, *terms.values()]
    for variable in read_later:
        variable.persistent = True
    fast = accelerate_where_possible(read_later) if accelerate else None
    logits = network.output
    if fast is not None:
        reserve(fast.outputs)
        loss, cross_entropy, logits, energy, *others = fast.outputs
        terms = dict(zip(terms, others))
    graph = TrainingGraph(images, labels, network.as_quantized(), logits, cross_entropy, terms, loss)
    steering = Steering(numbers, random_share, alpha, reward_weight, greedy_returns, energy)
    for variable in (numbers, random_share, alpha, reward_weight, greedy_returns):
        variable.d = 0
    return DynamicTraining(graph, network, steering, account, savings)


def _energy_share(weights: list[nn.Variable], account: Account) -> nn.Variable:
    """Mean over the batch of the energy share, where weights say which choices were made, shape ()."""
    terms = []
    for weight, extra in zip(weights, account.extra()):
        costs = nn.Variable.from_numpy_array(extra.astype(np.float32).reshape(1, -1))
        terms.append(F.sum(F.mul2(F.mean(weight, axis=0, keepdims=True), costs)))
    return F.add_scalar(F.add_n(*terms), account.least_share())


def _baselines(kind: str, gains: list[nn.Variable], greedy_returns: nn.Variable) -> list[nn.Variable] | None:
    if kind == "none":
        return None
    if kind == "batch":
        return batch_means(gains)
    own = [F.reshape(v, (-1, 1), inplace=False) for v in F.split(greedy_returns, axis=1)]
    # Training and evaluation differ in their normalization: what is common to the batch is no merit of a choice.
    common = batch_means([F.sub2(gain, base) for gain, base in zip(gains, own)])
    return [F.add2(base, offset) for base, offset in zip(own, common)]


def build_evaluation(experiment: Experiment, data: DataSet, *, accelerate: bool = False) -> DynamicEvaluation:
    """Build the evaluation graph in the current parameter scope; arguments as of `build_training`.

    Choices are greedy, at the price that the parameter "gates/price" holds; 0 until a target sets it.
    """
    images, y = _float_network(experiment, data, test=True)
    labels = nn.Variable((experiment.batch_size, 1))
    price = get_parameter_or_create(PRICE, (1, 1), nn.initializer.ConstantInitializer(0), False)
    costs = relative_cost(experiment)
    network = build_dynamic(
        y,
        settings_of(experiment),
        lambda block, logits: greedy(logits, costs, price),
        test=True,
        rng=_gate_numbers(experiment),
    )
    entropies = F.softmax_cross_entropy(network.output, labels)
    choices = len(experiment.precisions)

    def joined(parts: list[nn.Variable]) -> nn.Variable:
        return F.concatenate(*(F.reshape(p, (-1, 1, choices), inplace=False) for p in parts), axis=1)

    chosen = joined([block.decision.chosen for block in network.blocks])
    probabilities = joined([block.decision.probabilities for block in network.blocks])
    outputs = [network.output, entropies, chosen, probabilities]
    for variable in outputs:
        variable.persistent = True
    fast = accelerate_where_possible(outputs) if accelerate else None
    if fast is not None:
        outputs = list(fast.outputs)
    run = F.sink(*outputs)
    logits, entropies, chosen, probabilities = outputs
    return DynamicEvaluation(
        images,
        labels,
        network,
        logits,
        entropies,
        chosen,
        probabilities,
        price,
        run,
        None if fast is None else fast.clock,
    )

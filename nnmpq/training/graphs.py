"""The training graph and the evaluation graph of an experiment; they share every parameter."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import attrs
import nnabla as nn
import nnabla.functions as F

from nnmpq.config.choices import ARCHITECTURES
from nnmpq.config.experiment import Experiment
from nnmpq.cost import activations_max_kib, activations_sum_kib, weights_kib
from nnmpq.data import DataSet
from nnmpq.graph.accelerate import WeightClock, accelerate_where_possible, reserve
from nnmpq.graph.quantize import QuantizedNetwork, quantize
from nnmpq.graph.schemes import Scheme
from nnmpq.graph.trace import trace
from nnmpq.models import build

ACTIVATION_COSTS = {"max": activations_max_kib, "sum": activations_sum_kib}
# What the cross entropy of an auxiliary head counts in the loss: section 5 of "Going Deeper with Convolutions", and
# the training of torchvision's Inception-V3.
AUXILIARY_WEIGHTS = {"googlenet": 0.3, "inception_v3": 0.4}


@attrs.frozen
class TrainingGraph:
    """What a training step computes.

    Args:
        images: float32, shape (B, C, H, W).
        labels: int32, shape (B, 1).
        quantized: the network in training mode.
        logits: shape (B, classes).
        cross_entropy: mean over the batch, shape ().
        penalties: by name, what the loss adds for what exceeds a target, shape ().
        loss: cross entropy plus penalties, and that of the auxiliary heads where they are on, shape ().
    """

    images: nn.Variable
    labels: nn.Variable
    quantized: QuantizedNetwork
    logits: nn.Variable
    cross_entropy: nn.Variable
    penalties: dict[str, nn.Variable]
    loss: nn.Variable


@attrs.frozen
class EvaluationGraph:
    """What evaluation computes, image by image.

    Args:
        images: float32, shape (B, C, H, W).
        labels: int32, shape (B, 1).
        quantized: the network in evaluation mode.
        logits: shape (B, classes).
        cross_entropies: shape (B, 1).
        clock: of the accelerated functions; None where nnabla's own run.
    """

    images: nn.Variable
    labels: nn.Variable
    quantized: QuantizedNetwork
    logits: nn.Variable
    cross_entropies: nn.Variable
    clock: WeightClock | None = None

    def fixed_weights(self) -> AbstractContextManager[None]:
        """Promise that no parameter changes inside, so that weights are prepared once."""
        return nullcontext() if self.clock is None else self.clock.stopped()


def penalty(kib: Any, target: float, weight: float) -> nn.Variable:
    """Return weight * max(kib - target, 0)^2, shape ().

    Args:
        kib: what is used, a graph variable of shape () or a number.
        target: limit in KiB, > 0.
        weight: lambda, per KiB^2.

    Example:
        >>> loss = penalty(72.0, 70.0, 0.1)
        >>> loss.forward()
        >>> round(float(loss.d), 4)
        0.4

    Source:
        Uhlich et al., "Mixed Precision DNNs", ICLR 2020, equation 8.
    """
    if not isinstance(kib, nn.Variable):
        return F.constant(weight * max(kib - target, 0.0) ** 2, ())
    excess = F.relu(F.add_scalar(kib, -target))
    return F.mul_scalar(F.mul2(excess, excess), weight)


def penalties(experiment: Experiment, quantized: QuantizedNetwork) -> dict[str, nn.Variable]:
    """Return the penalties of the targets that an experiment has, by "weights" and "activations"."""
    network, bits = quantized.network, quantized.bits()
    found = {}
    if experiment.target_weight_kbytes > 0:
        used = weights_kib(network, bits)
        found["weights"] = penalty(used, experiment.target_weight_kbytes, experiment.initial_cost_lambda2)
    if experiment.target_activation_kbytes > 0:
        used = ACTIVATION_COSTS[experiment.target_activation_type](network, bits)
        found["activations"] = penalty(used, experiment.target_activation_kbytes, experiment.initial_cost_lambda3)
    return found


def _network(
    experiment: Experiment, data: DataSet, scheme: Scheme, test: bool
) -> tuple[nn.Variable, nn.Variable, QuantizedNetwork]:
    images = nn.Variable((experiment.batch_size, *data.shape))
    options = {key: getattr(experiment, key) for key in ARCHITECTURES[experiment.arch]}
    if test:
        options.pop("auxiliary", None)
    logits = build(experiment.arch, images, data.classes, test=test, seed=experiment.seed, **options)
    quantized = quantize(logits, scheme)
    if isinstance(logits, tuple):
        # The auxiliary heads only help training: what it costs is what is left without them.
        quantized = attrs.evolve(quantized, network=trace(logits[0]))
    return images, nn.Variable((experiment.batch_size, 1)), quantized


def build_training(experiment: Experiment, data: DataSet, scheme: Scheme, *, accelerate: bool = False) -> TrainingGraph:
    """Build the training graph in the current parameter scope.

    Args:
        experiment: network, batch size, targets and seed of the initial weights.
        data: shape and number of classes.
        scheme: which quantizer each site gets.
        accelerate: run on fast CPU functions where this machine has them.
    """
    images, labels, quantized = _network(experiment, data, scheme, test=False)
    logits = quantized.output
    cross_entropy = F.mean(F.softmax_cross_entropy(logits, labels))
    added = penalties(experiment, quantized)
    loss = cross_entropy
    for head in quantized.outputs[1:]:
        weight = AUXILIARY_WEIGHTS[experiment.arch]
        loss = F.add2(loss, F.mul_scalar(F.mean(F.softmax_cross_entropy(head, labels)), weight))
    for term in added.values():
        loss = F.add2(loss, term)
    read_later = [loss, cross_entropy, logits, *added.values()]
    for variable in read_later:
        variable.persistent = True
    fast = accelerate_where_possible(read_later) if accelerate else None
    if fast is not None:
        reserve(fast.outputs)
        loss, cross_entropy, logits, *terms = fast.outputs
        added = dict(zip(added, terms))
    return TrainingGraph(images, labels, quantized, logits, cross_entropy, added, loss)


def build_evaluation(
    experiment: Experiment, data: DataSet, scheme: Scheme, *, accelerate: bool = False
) -> EvaluationGraph:
    """Build the evaluation graph in the current parameter scope; arguments as of `build_training`."""
    images, labels, quantized = _network(experiment, data, scheme, test=True)
    cross_entropies = F.softmax_cross_entropy(quantized.output, labels)
    read_later = [quantized.output, cross_entropies]
    for variable in read_later:
        variable.persistent = True
    fast = accelerate_where_possible(read_later) if accelerate else None
    if fast is None:
        return EvaluationGraph(images, labels, quantized, quantized.output, cross_entropies)
    logits, cross_entropies = fast.outputs
    return EvaluationGraph(images, labels, quantized, logits, cross_entropies, fast.clock)

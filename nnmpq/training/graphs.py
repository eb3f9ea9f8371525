"""The training and the evaluation graph of an experiment."""

from __future__ import annotations

from typing import Any

import attrs
import nnabla as nn
import nnabla.functions as F

from nnmpq.config.experiment import Experiment
from nnmpq.cost import activations_max_kib, activations_sum_kib, weights_kib
from nnmpq.graph.quantize import QuantizedNetwork, quantize
from nnmpq.graph.schemes import Scheme
from nnmpq.models import build

MODEL_OPTIONS = {
    "resnet": ("num_layers", "shortcut_type", "scale_layer"),
    "resnet_digits": ("shortcut_type", "scale_layer"),
}


@attrs.frozen(eq=False)
class Graph:
    """Inputs, network and losses.

    Args:
        x: images, float32 (B, C, H, W).
        t: labels, int32 (B, 1).
        quantized: the network.
        cross_entropy: mean over the batch, shape ().
        loss: cross entropy and penalties, shape ().
        weights_kib: number or variable of shape ().
        activations_kib: number or variable of shape (), of the kind that is limited.
    """

    x: nn.Variable
    t: nn.Variable
    quantized: QuantizedNetwork
    cross_entropy: nn.Variable
    loss: nn.Variable
    weights_kib: Any
    activations_kib: Any


def penalty(size: Any, limit: float, factor: float) -> nn.Variable | None:
    """Return factor * max(size - limit, 0)^2, or None where there is no limit or nothing to learn from.

    Args:
        size: KiB, a graph variable of shape () or a number.
        limit: KiB; 0 or less is no limit.
        factor: weight of the penalty.

    Source:
        Uhlich et al., "Mixed Precision DNNs", ICLR 2020, equation 9.
    """
    if limit <= 0 or not isinstance(size, nn.Variable):
        return None
    return F.mul_scalar(F.pow_scalar(F.relu(F.add_scalar(size, -limit)), 2.0), factor)


def build_graph(
    experiment: Experiment,
    scheme: Scheme,
    shape: tuple[int, ...],
    classes: int,
    batch_size: int,
    *,
    test: bool,
) -> Graph:
    """Build one graph; a second one under the same parameter scope shares every parameter.

    Args:
        experiment: network, limits and penalties.
        scheme: quantizers.
        shape: of an image, (C, H, W).
        classes: number of classes.
        batch_size: images a batch.
        test: batch normalization uses its running statistics.
    """
    x = nn.Variable((batch_size, *shape))
    t = nn.Variable((batch_size, 1))
    options = {key: getattr(experiment, key) for key in MODEL_OPTIONS.get(experiment.arch, ())}
    float_output = build(experiment.arch, x, classes, test=test, seed=experiment.seed, **options)
    quantized = quantize(float_output, scheme)
    quantized.output.persistent = True
    cross_entropy = F.mean(F.softmax_cross_entropy(quantized.output, t))
    cross_entropy.persistent = True
    bits = quantized.bits()
    weights = weights_kib(quantized.network, bits)
    total = experiment.target_activation_type == "sum"
    activations = (activations_sum_kib if total else activations_max_kib)(quantized.network, bits)
    loss = cross_entropy
    for term in (
        penalty(weights, experiment.target_weight_kbytes, experiment.initial_cost_lambda2),
        penalty(activations, experiment.target_activation_kbytes, experiment.initial_cost_lambda3),
    ):
        loss = loss if term is None else F.add2(loss, term)
    loss.persistent = True
    return Graph(x, t, quantized, cross_entropy, loss, weights, activations)

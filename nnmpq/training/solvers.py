"""One update of the parameters: weights and quantizers each with their own solver.

nnabla's Momentum keeps the learning rate in its velocity: after a fall of the rate, about ten updates still move at the old
one. The published results were made so, and so are these.
"""

from __future__ import annotations

import attrs
import nnabla as nn
import nnabla.solvers as S

from nnmpq.config.experiment import Experiment
from nnmpq.graph.quantize import QuantizedNetwork
from nnmpq.graph.schemes import Quantized
from nnmpq.quantizers.buffers import float_view

CPU = nn.Context(["cpu:float"], "CpuCachedArray", "0")


def _solver(experiment: Experiment, rate: float) -> S.Solver:
    if experiment.optimizer == "adam":
        return S.Adam(alpha=rate)
    return S.Momentum(rate, experiment.momentum)


@attrs.frozen(eq=False)
class Solvers:
    """The two solvers, and the quantizers whose parameters the second one moves.

    Args:
        weights: moves weights, biases, batch normalization and the model's scale.
        quantizers: moves quantizer parameters; None where nothing is learned.
        weight_decay: of the first.
        quantizer_weight_decay: of the second.
        learned: sites with learned parameters.
        clamp_gradients: bound quantizer gradients, as Sony's code does under a limit.
    """

    weights: S.Solver
    quantizers: S.Solver | None
    weight_decay: float
    quantizer_weight_decay: float
    learned: tuple[Quantized, ...]
    clamp_gradients: bool

    def states(self) -> dict[str, S.Solver]:
        """Return the solvers by name, for checkpoints."""
        found = {"weights": self.weights}
        if self.quantizers is not None:
            found["quantizers"] = self.quantizers
        return found

    def set_rates(self, weights: float, quantizers: float) -> None:
        """Set both learning rates."""
        self.weights.set_learning_rate(weights)
        if self.quantizers is not None:
            self.quantizers.set_learning_rate(quantizers)

    def zero_grad(self) -> None:
        """Forget the gradients of the last update."""
        self.weights.zero_grad()
        if self.quantizers is not None:
            self.quantizers.zero_grad()

    def update(self, *, frozen: bool = False) -> None:
        """Decay and move all parameters; with `frozen`, the quantizers stay as they are."""
        self.weights.weight_decay(self.weight_decay)
        self.weights.update()
        if self.quantizers is None or frozen:
            return
        if self.quantizer_weight_decay:
            self.quantizers.weight_decay(self.quantizer_weight_decay)
        if self.clamp_gradients:
            for site in self.learned:
                _clamp_gradients(site)
        self.quantizers.update()
        for site in self.learned:
            _constrain(site)


def _views(site: Quantized, gradients: bool = False) -> dict:
    return {
        name: float_view(v.grad if gradients else v.data, CPU).reshape(v.shape)
        for name, v in site.parameters.items()
        if not gradients or v.need_grad
    }


def _clamp_gradients(site: Quantized) -> None:
    gradients = _views(site, gradients=True)
    for name, clamped in site.quantizer.clamp_gradients(_views(site), gradients).items():
        if clamped is not gradients[name]:
            gradients[name][...] = clamped


def _constrain(site: Quantized) -> None:
    values = _views(site)
    for name, value in site.quantizer.constrain(values).items():
        if value is not values[name]:
            values[name][...] = value


def make_solvers(experiment: Experiment, quantized: QuantizedNetwork) -> Solvers:
    """Make the solvers of an experiment.

    Args:
        experiment: optimizer, rates and decays.
        quantized: the training graph.
    """
    names = quantized.parameters()
    learned = {name: v for name, v in nn.get_parameters().items() if name in names}
    weights = {name: v for name, v in nn.get_parameters().items() if name not in names}
    first = _solver(experiment, experiment.initial_learning_rate)
    first.set_parameters(weights)
    second = None
    if learned:
        second = _solver(experiment, experiment.quantizer_learning_rate or experiment.initial_learning_rate)
        second.set_parameters(learned)
    limited = experiment.target_weight_kbytes > 0 or experiment.target_activation_kbytes > 0
    sites = [q for q in quantized.sites.values() if any(v.need_grad for v in q.parameters.values())]
    return Solvers(
        first,
        second,
        experiment.weight_decay,
        experiment.quantizer_weight_decay,
        tuple(sites),
        limited,
    )

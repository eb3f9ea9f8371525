"""The solvers of a run: one for the weights, one for the quantizer parameters; their states as plain arrays.

nnabla's Momentum computes v = momentum * v + rate * g, then w = w - v: the rate sits inside the velocity, so
that for some ten updates after the rate falls the weights still move with the old one. The published results
were made so; PyTorch multiplies by the rate last.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs
import nnabla as nn
import nnabla.solvers as S
import numpy as np

from nnmpq.config.experiment import Experiment
from nnmpq.graph.schemes import Quantized
from nnmpq.training.constraints import Alike, group_alike, learned_names

WEIGHTS, QUANTIZERS = "weights", "quantizers"


@attrs.frozen
class Group:
    """Parameters that one solver moves.

    Args:
        solver: an nnabla solver with its parameters set.
        weight_decay: added to each gradient, times the parameter.
        alike: the quantizers whose rules frame each update; empty for weights.
        clamp: whether quantizer gradients are clamped.
    """

    solver: Any
    weight_decay: float = 0.0
    alike: tuple[Alike, ...] = ()
    clamp: bool = False

    def update(self) -> None:
        """Decay, clamp the gradients, update, put the values back inside their limits, in this order."""
        if self.alike:
            if self.weight_decay or self.clamp:
                for members in self.alike:
                    members.decay_and_clamp(self.weight_decay, self.clamp)
        elif self.weight_decay:
            self.solver.weight_decay(self.weight_decay)
        self.solver.update()
        for members in self.alike:
            members.constrain()


@attrs.frozen
class SolverGroups:
    """All groups of a run by name."""

    groups: dict[str, Group]

    def zero_grad(self) -> None:
        """Make every gradient zero before a backward pass."""
        for group in self.groups.values():
            group.solver.zero_grad()

    def gradients_are_finite(self) -> bool:
        """Return whether no gradient is infinite or not a number."""
        return not any(group.solver.check_inf_or_nan_grad() for group in self.groups.values())

    def gradients(self) -> list[Any]:
        """Return the gradients of all parameters, always in the same order."""
        return [v.grad for group in self.groups.values() for v in group.solver.get_parameters().values()]

    def scale_gradients(self, factor: float) -> None:
        """Multiply every gradient."""
        for group in self.groups.values():
            group.solver.scale_grad(factor)

    def update(self) -> None:
        """Update every group."""
        for group in self.groups.values():
            group.update()

    def set_learning_rate(self, name: str, rate: float) -> None:
        """Set a group's learning rate; nothing happens without that group."""
        if name in self.groups:
            self.groups[name].solver.set_learning_rate(rate)

    def states(self) -> dict[str, np.ndarray]:
        """Return what the solvers remember, float32 arrays and counts by "<group>|<parameter>|<state>"."""
        found: dict[str, np.ndarray] = {}
        for name, group in self.groups.items():
            for parameter, state in group.solver.get_states().items():
                found[f"{name}|{parameter}|t"] = np.array(state.t, np.int64)
                for key, array in state.pstate.items():
                    found[f"{name}|{parameter}|{key}"] = np.array(array.d)
        return found

    def restore(self, states: Mapping[str, np.ndarray]) -> None:
        """Put back what `states` returned.

        Raises:
            ValueError: it is of other groups, parameters or solvers.
        """
        own = self.states()
        if own.keys() != states.keys():
            different = sorted(own.keys() ^ states.keys())
            raise ValueError(f"solver states differ in {different[0]} and {len(different) - 1} more")
        for name, group in self.groups.items():
            current = group.solver.get_states()
            for parameter, state in current.items():
                state.t = int(states[f"{name}|{parameter}|t"])
                for key, array in state.pstate.items():
                    array.d = states[f"{name}|{parameter}|{key}"]
            group.solver.set_states(current)


def make_solver(optimizer: str | None, rate: float, momentum: float) -> Any:
    """Return an nnabla solver: "adam" or, for "momentum" and None, Momentum.

    Example:
        >>> make_solver("adam", 0.001, 0.9).name, make_solver(None, 0.1, 0.9).name
        ('Adam', 'Momentum')
    """
    return S.Adam(alpha=rate) if optimizer == "adam" else S.Momentum(rate, momentum)


def weight_parameters(sites: Mapping[str, Quantized]) -> dict[str, nn.Variable]:
    """Return the current scope's parameters with gradients that are no quantizer's."""
    owned = {f"{name}_quantizer/{key}" for name, quantized in sites.items() for key in quantized.parameters}
    return {name: variable for name, variable in nn.get_parameters().items() if name not in owned}


def build_groups(experiment: Experiment, sites: Mapping[str, Quantized], *, learn_bits: bool) -> SolverGroups:
    """Make the solvers of a phase.

    Args:
        experiment: optimizer, rates and decays.
        sites: what stands at each site of the training graph.
        learn_bits: False leaves the quantizer parameters out: they stay as they are.

    Returns:
        The group "weights" and, where quantizers learn something, the group "quantizers". The published clamp
        of quantizer gradients is on when the experiment has a target.
    """

    def solver(parameters: Mapping[str, nn.Variable], rate: float) -> Any:
        made = make_solver(experiment.optimizer, rate, experiment.momentum)
        made.set_parameters(dict(parameters))
        return made

    rate = experiment.initial_learning_rate
    groups = {WEIGHTS: Group(solver(weight_parameters(sites), rate), experiment.weight_decay)}
    learned = {
        f"{name}_quantizer/{key}": quantized.parameters[key]
        for name, quantized in sites.items()
        if quantized.quantizer is not None
        for key in learned_names(quantized)
    }
    if learn_bits and learned:
        own_rate = experiment.quantizer_learning_rate
        groups[QUANTIZERS] = Group(
            solver(learned, rate if own_rate is None else own_rate),
            experiment.quantizer_weight_decay,
            tuple(group_alike(sites)),
            clamp=experiment.target_weight_kbytes > 0 or experiment.target_activation_kbytes > 0,
        )
    return SolverGroups(groups)

"""Training between the steps of a progressive search: Adam, its rate a cosine, gradients of limited size."""

from __future__ import annotations

import math
from collections.abc import Mapping

import attrs
import numpy as np

from nnmpq.config.experiment import Experiment
from nnmpq.graph.quantized import Quantized
from nnmpq.training.solvers import SolverGroups, build_groups

# Published: the first rate, and the limit of the norm of all gradients together.
LEARNING_RATE = 1e-3
LARGEST_NORM = 5.0


@attrs.frozen
class LimitedGroups(SolverGroups):
    """Solvers whose gradients together have a norm of at most `LARGEST_NORM`; nnabla itself limits each alone."""

    def update(self) -> None:
        """Scale all gradients by one factor where they are too large, then update."""
        squares = sum(
            float(np.sum(np.square(v.g, dtype=np.float64)))
            for group in self.groups.values()
            for v in group.solver.get_parameters().values()
        )
        norm = math.sqrt(squares)
        if norm > LARGEST_NORM:
            self.scale_gradients(LARGEST_NORM / norm)
        super().update()


def search_solvers(experiment: Experiment, sites: Mapping[str, Quantized]) -> LimitedGroups:
    """Return the solvers of one step: Adam on weights and ranges, without decay.

    Args:
        experiment: its other keys.
        sites: what stands at each site of the training graph, of its parameters those that may move.
    """
    own = attrs.evolve(
        experiment,
        optimizer="adam",
        initial_learning_rate=LEARNING_RATE,
        quantizer_learning_rate=None,
        weight_decay=0.0,
        quantizer_weight_decay=0.0,
    )
    return LimitedGroups(build_groups(own, sites, learn_bits=True).groups)


def cosine_rate(epoch: int, epochs: int) -> float:
    """Return the learning rate of an epoch: lr (1 + cos(pi epoch / epochs)) / 2.

    Args:
        epoch: of this step, from 0.
        epochs: of a step.

    Example:
        >>> cosine_rate(0, 30), round(cosine_rate(15, 30), 6)
        (0.001, 0.0005)
    """
    return LEARNING_RATE * (1.0 + math.cos(math.pi * epoch / epochs)) / 2.0

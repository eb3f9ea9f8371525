"""Learning rates."""

from __future__ import annotations

import math
from collections.abc import Sequence

from nnmpq.config.experiment import Experiment
from nnmpq.config.scheme import budget_of

# Of a run under a limit, where the experiment does not say.
FINETUNE_EPOCHS = 10


def learning_rate(first: float, milestones: Sequence[int], decay: float | Sequence[float], epoch: int) -> float:
    """Return the learning rate of an epoch: the first one, times `decay` for every milestone passed.

    Args:
        first: rate of epoch 0.
        milestones: epochs at whose start the rate falls.
        decay: factor of each fall; or one a milestone.
        epoch: number of the epoch, from 0.

    Example:
        >>> [learning_rate(1.0, (80, 120), 0.5, epoch) for epoch in (0, 79, 80, 120)]
        [1.0, 1.0, 0.5, 0.25]
    """
    passed = sum(epoch >= milestone for milestone in milestones)
    if isinstance(decay, Sequence):
        return first * math.prod(decay[:passed])
    return first * decay**passed


def rates(experiment: Experiment, epoch: int) -> tuple[float, float]:
    """Return the learning rates of weights and quantizer parameters in an epoch.

    Args:
        experiment: first rates, milestones and decay.
        epoch: 0 for the first.
    """
    milestones = experiment.milestones
    decay = tuple(map(float, experiment.learning_rate_decays)) or experiment.learning_rate_decay
    if epoch >= experiment.epochs and experiment.finetune_learning_rate is not None:
        return experiment.finetune_learning_rate, 0.0
    epoch = min(epoch, experiment.epochs - 1)
    initial = experiment.quantizer_learning_rate
    first = (experiment.initial_learning_rate, initial or experiment.initial_learning_rate)
    weights, quantizers = (learning_rate(rate, milestones, decay, epoch) for rate in first)
    return weights, quantizers


def finetune_epochs(experiment: Experiment) -> int:
    """Return how many epochs with fixed bits, steps and ranges end a run: 10 under a limit, where nothing is said.

    Example:
        >>> finetune_epochs(Experiment("X")), finetune_epochs(Experiment("X", finetune_epochs=2))
        (0, 2)
    """
    if experiment.finetune_epochs is not None:
        return experiment.finetune_epochs
    return FINETUNE_EPOCHS if budget_of(experiment).limits() else 0

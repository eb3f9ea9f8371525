"""One epoch of updates."""

from __future__ import annotations

from collections.abc import Iterable

import attrs
import nnabla as nn
import numpy as np

from nnmpq.training.errors import NonFiniteLoss
from nnmpq.training.graphs import TrainingGraph
from nnmpq.training.solvers import SolverGroups

Batches = Iterable["tuple[np.ndarray, np.ndarray]"]


@attrs.frozen
class Means:
    """Means over the updates of an epoch.

    Args:
        loss: cross entropy and penalties.
        cross_entropy: alone.
        error: share of images that were classified wrong, 0 to 1.
    """

    loss: float
    cross_entropy: float
    error: float


def run_epoch(graph: TrainingGraph, solvers: SolverGroups, batches: Batches, epoch: int) -> Means:
    """Update once a batch.

    Args:
        graph: the training graph.
        solvers: what moves its parameters, with their learning rates set.
        batches: images float32 (B, C, H, W) and labels int32 (B, 1).
        epoch: number of the epoch, 1 for the first; for messages.

    Returns:
        Means over all updates, in float64.

    Raises:
        NonFiniteLoss: the loss is infinite or not a number; the parameters are those before that update.
    """
    sums, updates = np.zeros(3), 0
    for images, labels in batches:
        updates += 1
        graph.images.d = images
        graph.labels.d = labels
        nn.forward_all([graph.loss, graph.error], clear_no_need_grad=True)
        found = np.array([graph.loss.d, graph.cross_entropy.d, graph.error.d], np.float64)
        if not np.isfinite(found[0]):
            raise NonFiniteLoss(f"epoch {epoch}, iteration {updates}: {_culprit(graph)}; lower the learning rate")
        solvers.zero_grad()
        graph.loss.backward(clear_buffer=True)
        solvers.update()
        sums += found
    if not updates:
        raise ValueError("an epoch without a batch")
    return Means(*(float(mean) for mean in sums / updates))


def _culprit(graph: TrainingGraph) -> str:
    """Say what is not finite: the parameters first, as they are the cause of all else."""
    said = []
    parameters = nn.get_parameters(grad_only=False)
    broken = [name for name, variable in parameters.items() if not np.all(np.isfinite(variable.d))]
    if broken:
        more = f" and {len(broken) - 1} more" if len(broken) > 1 else ""
        said.append(f"parameter {broken[0]}{more}")
    terms = {"cross entropy": graph.cross_entropy}
    terms.update({f"penalty of the {name}": term for name, term in graph.penalties.items()})
    said += [f"{name} ({float(term.d)})" for name, term in terms.items() if not np.isfinite(term.d)]
    return f"not finite: {', '.join(said) or 'the sum of the loss terms'}"

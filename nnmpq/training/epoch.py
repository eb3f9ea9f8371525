"""One epoch of updates."""

from __future__ import annotations

from collections.abc import Iterable

import attrs
import nnabla as nn
import numpy as np

from nnmpq.parallel import ALONE, Communicator
from nnmpq.training.errors import NonFiniteLoss
from nnmpq.training.evaluate import wrong_answers
from nnmpq.training.graphs import TrainingGraph
from nnmpq.training.scaling import LossScale
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


def run_epoch(
    graph: TrainingGraph,
    solvers: SolverGroups,
    batches: Batches,
    epoch: int,
    communicator: Communicator = ALONE,
    scale: LossScale | None = None,
) -> Means:
    """Update once a batch.

    Args:
        graph: the training graph.
        solvers: what moves its parameters, with their learning rates set.
        batches: images float32 (B, C, H, W) and labels int32 (B, 1), this process' share of each.
        epoch: number of the epoch, 1 for the first; for messages.
        communicator: gradients are averaged over its processes, of which each sees its share of a batch.
        scale: of the loss, for half precision; an update whose gradients overflow is left out.

    Returns:
        Means over all updates, in float64.

    Raises:
        NonFiniteLoss: the loss or a gradient is infinite or not a number; the parameters are those before that update.
    """
    sums, updates = np.zeros(3), 0
    scale = LossScale(dynamic=False) if scale is None else scale
    for images, labels in batches:
        updates += 1
        graph.images.d = images
        graph.labels.d = labels
        graph.loss.forward(clear_no_need_grad=True)
        error = wrong_answers(graph.logits.d, labels) / len(labels)
        found = communicator.mean_numbers(np.array([graph.loss.d, graph.cross_entropy.d, error], np.float64))
        finite = bool(np.isfinite(found[0]))
        if finite:
            solvers.zero_grad()
            graph.loss.backward(scale.value, clear_buffer=True)
            communicator.mean(solvers.gradients())
            # A ReLU turns what is not a number into zero: the loss alone may look well while weights are lost.
            finite = solvers.gradients_are_finite()
            if not finite and scale.overflowed():
                sums += found
                continue
        if not finite:
            raise NonFiniteLoss(f"epoch {epoch}, iteration {updates}: {_culprit(graph)}; lower the learning rate")
        if scale.value != 1.0:
            solvers.scale_gradients(1.0 / scale.value)
        solvers.update()
        scale.went_well()
        sums += found
    if not updates:
        raise ValueError("an epoch without a batch")
    return Means(*(float(mean) for mean in sums / updates))


def _culprit(graph: TrainingGraph) -> str:
    """Say what is not finite: parameters first, as they are the cause of all else, gradients last."""
    parameters = nn.get_parameters(grad_only=False)
    terms = {"cross entropy": graph.cross_entropy, "loss": graph.loss}
    terms.update({f"penalty of the {name}": term for name, term in graph.penalties.items()})
    said = _first("parameter", [name for name, v in parameters.items() if not np.all(np.isfinite(v.d))])
    said += [f"{name} ({float(term.d)})" for name, term in terms.items() if not np.isfinite(term.d)]
    if not said:
        trained = nn.get_parameters()
        said = _first("gradient of", [name for name, v in trained.items() if not np.all(np.isfinite(v.g))])
    return f"not finite: {', '.join(said)}"


def _first(what: str, names: list[str]) -> list[str]:
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return [f"{what} {names[0]}{more}"] if names else []

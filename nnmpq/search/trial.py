"""What a search's network does with other quantizers for a moment."""

from __future__ import annotations

from itertools import islice
from typing import Callable

import nnabla as nn

from nnmpq.search.differentiable import Graphs
from nnmpq.training import parameters
from nnmpq.training.evaluate import Evaluation, evaluate

# After so many batches 3 % of the statistics from before are left, at the usual decay of 0.9.
SETTLING_BATCHES = 32


def settle(graphs: Graphs, batches: int = SETTLING_BATCHES) -> None:
    """Let the running statistics of batch normalization follow the network as it is now; nothing is learned.

    Args:
        graphs: those of the search; the batches of its first epochs run through the training graph.
        batches: how many.
    """
    left, epoch = batches, 0
    while left > 0:
        for images, labels in islice(graphs.feed.training(epoch), left):
            graphs.training.images.d = images
            graphs.training.labels.d = labels
            graphs.training.loss.forward(clear_no_need_grad=True)
            left -= 1
        epoch += 1
    statistics = [v.data for _, v in sorted(nn.get_parameters(grad_only=False).items()) if not v.need_grad]
    graphs.task.machine.communicator.mean(statistics)


def validate(graphs: Graphs) -> Evaluation:
    """Return error and cross entropy on the validation images as the network is now."""
    task = graphs.task
    return evaluate(graphs.evaluation, task.data, task.data.validation, task.machine.communicator, graphs.feed)


def trial(graphs: Graphs, change: Callable[[], None]) -> Evaluation:
    """Return error and cross entropy on the validation images after a change; then everything is as it was.

    Args:
        graphs: those of the search.
        change: sets parameters in place; the running statistics follow by themselves.
    """
    kept = parameters.current()
    try:
        change()
        settle(graphs)
        return validate(graphs)
    finally:
        parameters.assign(kept, "the search")

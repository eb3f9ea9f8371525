"""Top-1 error of the evaluation graph."""

from __future__ import annotations

import numpy as np

from nnmpq.data.dataset import DataSet, Split, evaluation_batches
from nnmpq.training.graphs import Graph


def error_of(graph: Graph, data: DataSet, split: Split) -> float:
    """Return the share of a split's images that the network gets wrong, 0 to 1.

    Args:
        graph: the evaluation graph.
        data: the data set, for how pixels become numbers.
        split: images to judge.
    """
    wrong = 0
    for images, labels, count in evaluation_batches(data, split, graph.x.shape[0]):
        graph.x.d = images
        graph.quantized.output.forward(clear_buffer=True)
        answers = np.argmax(graph.quantized.output.d, axis=1)
        wrong += int(np.sum(answers[:count] != labels[:count, 0]))
    return wrong / max(len(split), 1)

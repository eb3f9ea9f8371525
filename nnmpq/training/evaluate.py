"""Error and cross entropy over a part of a data set."""

from __future__ import annotations

from typing import Any

import attrs
import numpy as np

from nnmpq.data import DataSet, Split, evaluation_batches
from nnmpq.graph.accelerate import accelerate
from nnmpq.parallel import ALONE, Communicator
from nnmpq.training.graphs import EvaluationGraph

SAMPLE = 65536  # numbers of a site that are kept; more would not change which width they need


@attrs.frozen
class Evaluation:
    """What an evaluation found.

    Args:
        error: share of the images that are classified wrong, 0 to 1.
        cross_entropy: mean over the images.
    """

    error: float
    cross_entropy: float


def evaluate(graph: EvaluationGraph, data: DataSet, split: Split, communicator: Communicator = ALONE) -> Evaluation:
    """Run a split through the evaluation graph, each image once; the filler of the last batch is left out.

    Args:
        graph: the evaluation graph.
        data: how pixels become numbers.
        split: images and labels.
        communicator: its processes take turns at the batches.

    Raises:
        ValueError: the split is empty.
    """
    if not len(split):
        raise ValueError("nothing to evaluate: the split is empty")
    wrong, entropy = 0, 0.0
    with graph.fixed_weights():
        for number, (images, labels, count) in enumerate(evaluation_batches(data, split, graph.images.shape[0])):
            if number % communicator.size != communicator.rank:
                continue
            graph.images.d = images
            graph.labels.d = labels
            graph.cross_entropies.forward(clear_buffer=True)
            wrong += wrong_answers(graph.logits.d[:count], labels[:count])
            entropy += float(np.sum(graph.cross_entropies.d[:count], dtype=np.float64))
    wrong_share, mean_entropy = communicator.mean_numbers(np.array([wrong, entropy])) * communicator.size / len(split)
    return Evaluation(float(wrong_share), float(mean_entropy))


def wrong_answers(logits: np.ndarray, labels: np.ndarray) -> int:
    """Count the images whose largest logit is not their class's; the first of equal ones is the answer.

    Args:
        logits: shape (B, classes); what is not a number is no answer.
        labels: shape (B, 1).

    Example:
        >>> wrong_answers(np.array([[1.0, 2.0], [3.0, 3.0], [np.nan, 0.0]]), np.array([[1], [0], [0]]))
        1
    """
    right = (np.argmax(logits, axis=1) == labels[:, 0]) & ~np.isnan(logits).any(axis=1)
    return int(np.sum(~right))


def quantizer_inputs(graph: EvaluationGraph, data: DataSet, count: int) -> dict[str, np.ndarray]:
    """Return what the activation quantizers see on training images, a sample of each site's numbers.

    Args:
        graph: the evaluation graph.
        data: its training part gives the images.
        count: images to run, at least 1; the first ones of the training part.

    Returns:
        By site name, float32, shape (n,), n at most 65536.
    """
    split = Split(data.train.images[:count], data.train.labels[:count])
    network, sites = graph.quantized.network, graph.quantized.sites
    activations = [site.name for site in network.activations if site.name in sites]
    sources: dict[str, Any] = {name: sites[name].source for name in activations}
    output = graph.quantized.output
    if graph.clock is not None:
        # The evaluation's own fast functions run across what is wanted here.
        fast = accelerate([output], keep=list(sources.values()))
        output = fast.outputs[0]
        sources = {name: fast.variables.get(source, source) for name, source in sources.items()}
    parts: dict[str, list[np.ndarray]] = {name: [] for name in activations}
    batches = -(-len(split) // graph.images.shape[0])
    for images, _, valid in evaluation_batches(data, split, graph.images.shape[0]):
        graph.images.d = images
        # Without clear_buffer every intermediate tensor is still there afterwards.
        output.forward()
        for name, source in sources.items():
            numbers = source.d[:valid].reshape(-1)
            parts[name].append(_sample(numbers, SAMPLE // batches))
    return {name: np.concatenate(found) for name, found in parts.items()}


def _sample(numbers: np.ndarray, size: int) -> np.ndarray:
    """At most `size` of the numbers, always the same places; a stride would meet the same pixels."""
    if numbers.size <= size:
        return np.array(numbers, np.float32)
    places = np.random.default_rng(0).integers(0, numbers.size, size)
    return np.asarray(numbers[places], np.float32)

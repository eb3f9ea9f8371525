"""Error and cross entropy over a part of a data set."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

import attrs
import numpy as np

from nnmpq.data import DataSet, Part, Split
from nnmpq.data.feed import Feed
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


def evaluate(
    graph: EvaluationGraph,
    data: DataSet,
    split: Part,
    communicator: Communicator = ALONE,
    feed: Feed | None = None,
) -> Evaluation:
    """Run a split through the evaluation graph, each image once; the filler of the last batch is left out.

    Args:
        graph: the evaluation graph.
        data: how pixels become numbers.
        split: images and labels.
        communicator: its processes take turns at the batches.
        feed: makes the batches, of the graph's size; one without worker processes if None.

    Raises:
        ValueError: the split is empty.
    """
    if not len(split):
        raise ValueError("nothing to evaluate: the split is empty")
    wrong, entropy = 0, 0.0
    feed = feed or _feed(graph, data, communicator)
    with graph.fixed_weights():
        for images, labels, count in feed.evaluation(split):
            graph.images.d = images
            graph.labels.d = labels
            graph.cross_entropies.forward(clear_buffer=True)
            wrong += wrong_answers(graph.logits.d[:count], labels[:count])
            entropy += float(np.sum(graph.cross_entropies.d[:count], dtype=np.float64))
    wrong_share, mean_entropy = communicator.mean_numbers(np.array([wrong, entropy])) * communicator.size / len(split)
    return Evaluation(float(wrong_share), float(mean_entropy))


def _feed(graph: EvaluationGraph, data: DataSet, communicator: Communicator) -> Feed:
    """Makes batches of the graph's size in this process."""
    size = communicator.size
    return Feed(data, graph.images.shape[0] * size, seed=0, rank=communicator.rank, size=size)


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
        count: images to run, at least 1; the first ones of the training part or, where those are in files, which are
            sorted by class, whole batches of any.

    Returns:
        By site name, float32, shape (n,), n at most 65536.
    """
    batch_size = graph.images.shape[0]
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
    batches = -(-min(count, len(data.train)) // batch_size)
    for images, valid in _calibration(data, count, batch_size):
        graph.images.d = images
        # Without clear_buffer every intermediate tensor is still there afterwards.
        output.forward()
        for name, source in sources.items():
            numbers = source.d[:valid].reshape(-1)
            parts[name].append(_sample(numbers, SAMPLE // batches))
    return {name: np.concatenate(found) for name, found in parts.items()}


def _calibration(data: DataSet, count: int, batch_size: int) -> Iterator[tuple[np.ndarray, int]]:
    """Training images as evaluation shows them, and how many of each batch count."""
    train = data.train
    if isinstance(train, Split):
        chosen = train.take(np.arange(min(count, len(train))))
        for images, _, valid in Feed(data, batch_size, seed=0).evaluation(chosen):
            yield images, valid
        return
    assert data.settings is not None
    # By the way of the training images, where one that cannot be read is skipped.
    shown = attrs.evolve(data, settings=attrs.evolve(data.settings, training=data.settings.evaluation))
    with Feed(shown, batch_size, seed=0) as feed:
        for images, _ in islice(feed.training(0), -(-count // batch_size)):
            yield images, batch_size


def _sample(numbers: np.ndarray, size: int) -> np.ndarray:
    """At most `size` of the numbers, always the same places; a stride would meet the same pixels."""
    if numbers.size <= size:
        return np.array(numbers, np.float32)
    places = np.random.default_rng(0).integers(0, numbers.size, size)
    return np.asarray(numbers[places], np.float32)

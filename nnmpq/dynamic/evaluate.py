"""Accuracy, energy and choices over a part of a data set."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext

import attrs
import numpy as np

from nnmpq.data import DataSet, Part
from nnmpq.data.feed import Feed
from nnmpq.dynamic.energy import Account
from nnmpq.dynamic.graphs import DynamicEvaluation

LARGEST_PRICE = 16.0


@attrs.frozen(eq=False)
class Choices:
    """What the gates did with every image.

    Args:
        labels: class of each image, shape (M,).
        answers: class that it was taken for, shape (M,).
        cross_entropies: shape (M,).
        chosen: number of the precision in each block, 0 the narrowest, shape (M, N).
        probabilities: of each precision in each block, shape (M, N, K).
        energy: share of the widest uniform network's energy, shape (M,).
        bitops: shape (M,).
    """

    labels: np.ndarray
    answers: np.ndarray
    cross_entropies: np.ndarray
    chosen: np.ndarray
    probabilities: np.ndarray
    energy: np.ndarray
    bitops: np.ndarray

    @property
    def error(self) -> float:
        """Share of the images that are classified wrong."""
        return float(np.mean(self.answers != self.labels))

    def summary(self) -> dict[str, float]:
        """Return error, cross entropy, energy share, BitOps, share of the widest path, and how the gates vary.

        "spread_within" is the mean over blocks of the deviation of P(widest) between images of one block: what makes
        gates depend on their input; "spread_between" is the deviation between the blocks' means.
        """
        widest = self.chosen == self.probabilities.shape[2] - 1
        p = self.probabilities[:, :, -1]
        return {
            "error": self.error,
            "cross_entropy": float(np.mean(self.cross_entropies, dtype=np.float64)),
            "energy": float(np.mean(self.energy)),
            "bitops": float(np.mean(self.bitops)),
            "widest_share": float(np.mean(widest)),
            "spread_within": float(np.mean(np.std(p, axis=0, dtype=np.float64))),
            "spread_between": float(np.std(np.mean(p, axis=0, dtype=np.float64))),
        }


def choices(
    graph: DynamicEvaluation, data: DataSet, part: Part, account: Account, feed: Feed | None = None, limit: int = 2**62
) -> Choices:
    """Run images through the evaluation graph, each once.

    Args:
        graph: the evaluation graph.
        data: how pixels become numbers.
        part: images and labels.
        account: what choices cost.
        feed: makes the batches, of the graph's size; one without worker processes if None.
        limit: stop after so many images, at the end of a batch.

    Raises:
        ValueError: there is no image.
    """
    if not len(part):
        raise ValueError("nothing to evaluate: there is no image")
    feed = feed or Feed(data, graph.images.shape[0], seed=0)
    found: list[tuple[np.ndarray, ...]] = []
    with nullcontext() if graph.clock is None else graph.clock.stopped():
        for images, labels, count in _limited(feed.evaluation(part), limit):
            graph.images.d, graph.labels.d = images, labels
            graph.run.forward(clear_buffer=True)
            logits = graph.logits.d[:count]
            found.append(
                (
                    labels[:count, 0].copy(),
                    np.argmax(logits, axis=1),
                    graph.cross_entropies.d[:count, 0].copy(),
                    np.argmax(graph.chosen.d[:count], axis=2),
                    graph.probabilities.d[:count].copy(),
                )
            )
    labels, answers, entropies, chosen, probabilities = (np.concatenate(parts) for parts in zip(*found))
    return Choices(labels, answers, entropies, chosen, probabilities, account.share(chosen), account.bitops(chosen))


def _limited(
    batches: Iterator[tuple[np.ndarray, np.ndarray, int]], limit: int
) -> Iterator[tuple[np.ndarray, np.ndarray, int]]:
    seen = 0
    for images, labels, count in batches:
        yield images, labels, count
        seen += count
        if seen >= limit:
            return


def meet_target(
    graph: DynamicEvaluation,
    data: DataSet,
    part: Part,
    account: Account,
    target: float,
    *,
    images: int = 512,
    steps: int = 10,
) -> float:
    """Set the price of wide paths so that the mean energy of some images is the target; return the price.

    The price is halved into: the larger it is, the fewer samples take wide paths. Which ones is still the gates' say.

    Args:
        graph: the evaluation graph; its price is set.
        data: how pixels become numbers.
        part: images, which must not be the test's.
        account: what choices cost.
        target: energy as share of the widest uniform network's.
        images: so many of them are looked at.
        steps: halvings.

    Raises:
        ValueError: the target is less than the narrowest paths and the gates cost.
    """
    if target < account.least_share():
        raise ValueError(
            f"energy_target = {target}: narrowest paths, gates, stem and tail alone cost {account.least_share():.3f}"
        )
    low, high = -LARGEST_PRICE, LARGEST_PRICE
    for _ in range(steps):
        graph.price.d = (low + high) / 2
        energy = float(np.mean(choices(graph, data, part, account, limit=images).energy))
        low, high = (low, (low + high) / 2) if energy <= target else ((low + high) / 2, high)
    graph.price.d = high
    return high

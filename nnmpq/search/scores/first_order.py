"""Sums over gradients and quantization errors, image by image: what the gradient scores share."""

from __future__ import annotations

from typing import Callable

import numpy as np

from nnmpq.search.scores.derivatives import DerivativeGraph, per_image
from nnmpq.search.scores.graphs import ScoreGraphs
from nnmpq.search.task import SearchTask

# Elements of an activation that an image is represented by; sums over them are scaled up.
ELEMENTS = 4096


def summed(
    task: SearchTask, graphs: ScoreGraphs, term: Callable[[np.ndarray], np.ndarray]
) -> dict[str, dict[int, float]]:
    """Return mean over images n of sum_i term(g_ni) term(e_i), with e = Q_b(x) - x, for each site and width.

    Args:
        task: what was asked for.
        graphs: the network and the images.
        term: of each element, such as its magnitude or its square.
    """
    rng = np.random.default_rng(task.seed)
    places = {}
    for site in graphs.network.activations:
        if site.name in graphs.samples:
            some = rng.choice(site.elements, ELEMENTS, replace=False) if site.elements > ELEMENTS else slice(None)
            places[site.name] = (some, max(site.elements / ELEMENTS, 1.0))
    graph: list[DerivativeGraph] = []

    def batch_sums(batch: str) -> list[float]:
        if not graph:
            graph.append(DerivativeGraph.build(task, graphs, 1))
        gradients: dict[str, np.ndarray] = {}
        sums = {name: dict.fromkeys(widths, 0.0) for name, widths in graphs.widths.items()}
        for derived in per_image(graph[0], graphs.batches[int(batch)]):
            for name, leaf in derived.leaves.items():
                if name not in places:
                    # A weight's error is the same for all images: only the gradients are summed up.
                    found = term(np.array(leaf.g, np.float64))
                    gradients[name] = gradients[name] + found if name in gradients else found
                    continue
                some, scale = places[name]
                x = derived.activations[name].d.reshape(-1)[some]
                g = term(np.array(leaf.g.reshape(-1)[some], np.float64))
                for bits in sums[name]:
                    error = np.asarray(graphs.grid(name, bits).quantize(x), np.float64) - x
                    sums[name][bits] += scale * float(np.sum(g * term(error)))
        for name, total in gradients.items():
            x = graphs.numbers(name)
            for bits in sums[name]:
                error = np.asarray(graphs.grid(name, bits).quantize(x), np.float64) - x
                sums[name][bits] = float(np.sum(total * term(error)))
        return [value for own in sums.values() for value in own.values()]

    columns = [(name, bits) for name, widths in graphs.widths.items() for bits in widths]
    totals, images = np.zeros(len(columns)), graphs.images
    for batch, numbers in graphs.pieces.each([str(i) for i in range(len(graphs.batches))], batch_sums, len(columns)):
        totals += numbers
        images += graphs.batches[int(batch)][2]
        task.report({"batch": int(batch), "images": images})
    loss: dict[str, dict[int, float]] = {name: {} for name in graphs.widths}
    for (name, bits), total in zip(columns, totals):
        loss[name][bits] = float(total) / graphs.images
    return loss

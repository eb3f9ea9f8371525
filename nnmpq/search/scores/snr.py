"""Quantization noise over signal."""

from __future__ import annotations

from nnmpq.search.scores.graphs import ScoreGraphs
from nnmpq.search.scores.ranges import noise_to_signal
from nnmpq.search.task import SearchTask


def score(task: SearchTask, graphs: ScoreGraphs) -> dict[str, dict[int, float]]:
    """Return the noise that quantizing each tensor alone makes, over its signal.

    loss[s][b] = ||Q_b(x) - x||^2 / ||x||^2 = 10^(-SNR / 10), x the weight, or a sample of the activation.

    The network runs once, for the activations; a table of weights alone needs no image.

    Args:
        task: what was asked for.
        graphs: the network and the training images that it is scored on.

    Example:
        >>> from nnmpq.budget import Budget
        >>> from nnmpq.config.experiment import Experiment
        >>> from nnmpq.data import load
        >>> experiment = Experiment("X", arch="resnet_digits", dataset="digits")
        >>> task = SearchTask(experiment, load("digits"), Budget(), "runs/X", score_images=16)
        >>> loss = score(task, ScoreGraphs.build(task))
        >>> 1.0 > loss["conv1/conv/W"][2] > loss["conv1/conv/W"][4] > 0.0
        True

    Source:
        Lin et al., "Fixed Point Quantization of Deep Convolutional Networks", ICML 2016: the SNR of layers adds up
        in this form.
    """

    def noise(name: str) -> list[float]:
        x = graphs.numbers(name)
        return [noise_to_signal(x, graphs.grid(name, bits).quantize(x)) for bits in graphs.widths[name]]

    found = {}
    for name, losses in graphs.pieces.each(list(graphs.widths), noise, graphs.most_widths):
        found[name] = dict(zip(graphs.widths[name], losses))
        task.report({"site": name, **{f"loss_{b}": loss for b, loss in found[name].items()}, "images": graphs.images})
    return found

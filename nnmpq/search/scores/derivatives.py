"""Graphs of the float network whose loss has derivatives by every site's error."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import attrs
import nnabla as nn
import nnabla.functions as F
import numpy as np

from nnmpq.graph.network import ACTIVATION, Network, Site, as_tuple
from nnmpq.graph.quantized import Quantized
from nnmpq.graph.rewrite import rewrite
from nnmpq.search.scores.graphs import ScoreGraphs
from nnmpq.search.table import TableError
from nnmpq.search.task import SearchTask
from nnmpq.training.graphs import build_evaluation


@attrs.frozen
class Perturbed:
    """The scheme that adds an error, a leaf of the graph, to each of the named activations.

    Args:
        names: of activation sites.
        errors: filled with the leaves by site; zero until they are set.
    """

    names: tuple[str, ...] = attrs.field(converter=as_tuple)
    errors: dict[str, nn.Variable] = attrs.field(factory=dict)

    def check(self, network: Network) -> None:
        """Raise KeyError where a name is no site's."""
        for name in self.names:
            network.site(name)

    def covers(self, site: Site) -> bool:
        """Return whether the site is named."""
        return site.role == ACTIVATION and site.name in self.names

    def weight(self, site: Site, w: nn.Variable) -> Quantized:
        """Leave a weight as it is: it is a leaf by itself."""
        return Quantized(w, source=w)

    def activation(self, site: Site, x: nn.Variable) -> Quantized:
        """Add an error to what the float network has there."""
        error = nn.Variable(x.shape, need_grad=True)
        error.data.zero()
        self.errors[site.name] = error
        return Quantized(F.add2(F.relu(x) if site.kind == "relu" else x, error), source=x)


@attrs.frozen(eq=False)
class DerivativeGraph:
    """The float network in evaluation mode, with a leaf for the error of every site.

    Args:
        images: float32, shape (B, C, H, W).
        labels: int32, shape (B, 1).
        loss: mean cross entropy of the batch, shape ().
        leaves: by site, what the loss is differentiated by: a weight, or the error of an activation.
        activations: by site, the activation itself.
    """

    images: nn.Variable
    labels: nn.Variable
    loss: nn.Variable
    leaves: dict[str, nn.Variable]
    activations: dict[str, nn.Variable]

    @classmethod
    def build(cls, task: SearchTask, graphs: ScoreGraphs, batch_size: int) -> DerivativeGraph:
        """Build the graph of nnabla's own functions: derivatives of all orders are theirs.

        Raises:
            TableError: a weight is computed in the graph.
        """
        scheme = Perturbed(graphs.samples)
        experiment = attrs.evolve(task.experiment, batch_size=batch_size)
        graph = build_evaluation(experiment, task.data, scheme)
        sites = graph.quantized.sites
        loss = F.mean(softmax_cross_entropy(graph.logits, graph.labels))
        own = nn.get_parameters(grad_only=False)
        leaves, activations = {}, {}
        for name in graphs.widths:
            if name in scheme.errors:
                leaves[name], activations[name] = scheme.errors[name], sites[name].output
                sites[name].output.persistent = True
            elif name in own:
                leaves[name] = own[name]
            else:
                raise TableError(f"{name}: it is computed in the graph, not a parameter: it has no gradient of its own")
        return cls(graph.images, graph.labels, loss, leaves, activations)

    def set_batch(self, images: np.ndarray, labels: np.ndarray) -> None:
        """Put images and labels in."""
        self.images.d = images
        self.labels.d = labels

    def zero_gradients(self) -> None:
        """Forget the gradients."""
        for leaf in self.leaves.values():
            leaf.grad.zero()


def softmax_cross_entropy(logits: nn.Variable, labels: nn.Variable) -> nn.Variable:
    """Return -log softmax(y)_t, shape (B,), of functions that have second derivatives."""
    wanted = F.one_hot(labels, (logits.shape[1],))
    wanted.need_grad = False
    return F.mul_scalar(F.sum(F.mul2(F.log_softmax(logits, axis=1), wanted), axis=1), -1.0)


def per_image(graph: DerivativeGraph, batch: tuple[np.ndarray, np.ndarray, int]) -> Iterator[DerivativeGraph]:
    """Yield a graph of one image once an image, with the derivatives of that image's loss by every leaf in `leaf.g`.

    Args:
        graph: of batches of one image.
        batch: images, labels and how many of them count.
    """
    images, labels, valid = batch
    for image, label in zip(images[:valid], labels[:valid]):
        graph.set_batch(image[None], label[None])
        graph.zero_gradients()
        graph.loss.forward(clear_no_need_grad=True)
        graph.loss.backward(clear_buffer=True)
        yield graph


def without_depthwise(outputs: list[nn.Variable]) -> list[nn.Variable]:
    """Return the graph with grouped convolutions for the depthwise ones, which have no second derivative in nnabla."""

    def replace(function: Any, inputs: Any) -> list[nn.Variable] | None:
        if function.info.type_name != "DepthwiseConvolution":
            return None
        arguments = dict(function.info.args)
        x, w, *bias = inputs
        channels = x.shape[arguments["base_axis"]]
        w = F.reshape(w, (w.shape[0], 1, *w.shape[1:]), inplace=False)
        return [
            F.convolution(
                x,
                w,
                *bias,
                base_axis=arguments["base_axis"],
                pad=arguments["pad"],
                stride=arguments["stride"],
                dilation=arguments["dilation"],
                group=channels,
            )
        ]

    return rewrite(outputs, replace)[0]

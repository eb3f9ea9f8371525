"""Densely connected networks for small images, as plain float nnabla graphs."""

from __future__ import annotations

from functools import partial

import nnabla as nn
import nnabla.functions as F
import numpy as np

from nnmpq.models.layers import classifier, convolution, he_normal, preactivated
from nnmpq.models.pooling import fitting_pad

STAGES = 3


def _convolution(x: nn.Variable, channels: int, kernel: int, rng: np.random.RandomState | None) -> nn.Variable:
    # By its inputs: a dense layer has up to forty times as many as outputs.
    return convolution(x, channels, kernel, weights=he_normal(kernel * kernel * x.shape[1], rng))


def densenet(
    num_layers: int,
    x: nn.Variable,
    classes: int = 10,
    *,
    test: bool = False,
    growth: int = 12,
    first_channels: int = 16,
    rng: np.random.RandomState | None = None,
) -> nn.Variable:
    """A densely connected network of three blocks, without bottlenecks or compression.

    Every layer normalizes, rectifies and convolves all that the block has computed before, and adds its channels
    to it. Between the blocks a 1x1 convolution keeps the channels, and an average pooling halves the map.
    There is no dropout.

    Args:
        num_layers: convolutions and the classifier: 4 and a multiple of 3.
        x: images, shape (B, C, H, W); any H and W, 32 in the paper.
        classes: number of classes.
        test: use the running statistics in batch normalization.
        growth: channels that each layer adds, >= 1.
        first_channels: channels of the first convolution; 16 in the paper, 24 in ProQHA.
        rng: source of the initial weights; nnabla's own if None.

    Returns:
        Logits, shape (B, classes).

    Raises:
        ValueError: no three equal blocks make `num_layers`.

    Example:
        >>> densenet(10, nn.Variable((1, 3, 32, 32))).shape
        (1, 10)

    Source:
        Huang et al., "Densely Connected Convolutional Networks", section 3 and table 2.
    """
    layers = (num_layers - 4) // STAGES
    if num_layers != STAGES * layers + 4 or layers < 1:
        nearest = STAGES * max(layers, 1) + 4
        raise ValueError(f"num_layers {num_layers}: 4 and a multiple of 3 is needed, such as {nearest}")
    with nn.parameter_scope("conv1"):
        h = _convolution(x, first_channels, 3, rng)
    for stage in range(1, STAGES + 1):
        for layer in range(1, layers + 1):
            with nn.parameter_scope(f"block{stage}/layer{layer}"):
                h = F.concatenate(h, _convolution(preactivated(h, test), growth, 3, rng), axis=1)
        if stage < STAGES:
            with nn.parameter_scope(f"transition{stage}"):
                h = _convolution(preactivated(h, test), h.shape[1], 1, rng)
                h = F.average_pooling(h, (2, 2), (2, 2), pad=fitting_pad(h, (2, 2)), including_pad=False)
    with nn.parameter_scope("last"):
        h = preactivated(h, test)
    return classifier(h, classes, rng)


densenet40 = partial(densenet, 40)

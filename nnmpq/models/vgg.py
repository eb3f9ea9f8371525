"""VGG networks with batch normalization, as plain float nnabla graphs."""

from __future__ import annotations

from functools import partial

import nnabla as nn
import nnabla.functions as F
import nnabla.initializer as I
import nnabla.parametric_functions as PF
import numpy as np

from nnmpq.models.layers import convolution, preactivated, scaled
from nnmpq.models.pooling import average_pooling_to, fitting_pad

# 3x3 convolutions a stage: configurations A, D and E of the paper.
CONVOLUTIONS = {11: (1, 1, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
WIDTHS = (64, 128, 256, 512, 512)
LAST_SIDE = 7


def _affine(x: nn.Variable, outputs: int, rng: np.random.RandomState | None) -> nn.Variable:
    return PF.affine(x, outputs, w_init=I.NormalInitializer(0.01, rng=rng), b_init=I.ConstantInitializer(0))


def vgg(
    num_layers: int,
    x: nn.Variable,
    classes: int = 1000,
    *,
    test: bool = False,
    width_multiplier: float = 1.0,
    hidden: tuple[int, ...] = (4096, 4096),
    with_bias: bool = True,
    rng: np.random.RandomState | None = None,
) -> nn.Variable:
    """A VGG network: 3x3 convolutions in five stages, each ending in a max pooling, then fully connected layers.

    The paper's network for ImageNet has two hidden layers, which read a map of 7x7: larger maps are averaged down
    to that, smaller ones are read as they are. The usual form for CIFAR is ``hidden=()``. There is no dropout.

    Args:
        num_layers: 11, 16 or 19: convolutions and fully connected layers, with the paper's two hidden ones.
        x: images, shape (B, C, H, W); any H and W, 224 in the paper.
        classes: number of classes.
        test: use the running statistics in batch normalization.
        width_multiplier: scales the channels of all convolutions, rounded down; above 0.
        hidden: outputs of each hidden fully connected layer; none puts the classifier on the average of the map.
        with_bias: convolutions have a bias, as the published networks do; batch normalization makes it idle.
        rng: source of the initial weights; nnabla's own if None.

    Returns:
        Logits, shape (B, classes).

    Raises:
        ValueError: `num_layers` is not one of the three, or `width_multiplier` not above 0.

    Example:
        >>> vgg(11, nn.Variable((1, 3, 32, 32)), 10, hidden=()).shape
        (1, 10)

    Source:
        Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", table 1.
    """
    if num_layers not in CONVOLUTIONS:
        raise ValueError(f"num_layers {num_layers}: one of {sorted(CONVOLUTIONS)} is needed")
    h = x
    for stage, (channels, convolutions) in enumerate(zip(WIDTHS, CONVOLUTIONS[num_layers]), start=1):
        for number in range(1, convolutions + 1):
            with nn.parameter_scope(f"conv{stage}_{number}"):
                h = preactivated(
                    convolution(h, scaled(channels, width_multiplier), 3, 1, rng, with_bias=with_bias), test
                )
        h = F.max_pooling(h, (2, 2), (2, 2), pad=fitting_pad(h, (2, 2)))
    h = average_pooling_to(h, LAST_SIDE) if hidden else F.global_average_pooling(h)
    for number, outputs in enumerate(hidden, start=1):
        with nn.parameter_scope(f"hidden{number}"):
            h = F.relu(_affine(h, outputs, rng))
    with nn.parameter_scope("fc"):
        return _affine(h, classes, rng)


vgg11 = partial(vgg, 11)
vgg16 = partial(vgg, 16)
vgg19 = partial(vgg, 19)

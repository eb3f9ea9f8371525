"""ResNet-18, 34 and 50 of ImageNet, post-activation, as plain float nnabla graphs."""

from __future__ import annotations

from functools import partial
from typing import Callable

import nnabla as nn
import nnabla.functions as F
import numpy as np

from nnmpq.models.layers import STEMS, chosen, classifier, convolution, normalised, scaled

WIDTHS = (64, 128, 256, 512)
BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}
EXPANSION = {18: 1, 34: 1, 50: 4}

Block = Callable[[nn.Variable, int, int, bool, "np.random.RandomState | None"], nn.Variable]


def _layer(
    x: nn.Variable, scope: str, channels: int, kernel: int, stride: int, test: bool, rng: np.random.RandomState | None
) -> nn.Variable:
    with nn.parameter_scope(scope):
        return normalised(convolution(x, channels, kernel, stride, rng), test)


def _joined(x: nn.Variable, h: nn.Variable, stride: int, test: bool, rng: np.random.RandomState | None) -> nn.Variable:
    """Add the block's input, projected where its shape differs."""
    if stride != 1 or x.shape[1] != h.shape[1]:
        x = _layer(x, "shortcut", h.shape[1], 1, stride, test, rng)
    return F.relu(F.add2(h, x))


def _basic(x: nn.Variable, width: int, stride: int, test: bool, rng: np.random.RandomState | None) -> nn.Variable:
    h = F.relu(_layer(x, "conv1", width, 3, stride, test, rng))
    h = _layer(h, "conv2", width, 3, 1, test, rng)
    return _joined(x, h, stride, test, rng)


def _bottleneck(x: nn.Variable, width: int, stride: int, test: bool, rng: np.random.RandomState | None) -> nn.Variable:
    # The stride is in the 3x3 convolution, as all published weights have it, not in the paper's first 1x1.
    h = F.relu(_layer(x, "conv1", width, 1, 1, test, rng))
    h = F.relu(_layer(h, "conv2", width, 3, stride, test, rng))
    h = _layer(h, "conv3", 4 * width, 1, 1, test, rng)
    return _joined(x, h, stride, test, rng)


def imagenet_resnet(
    num_layers: int,
    x: nn.Variable,
    classes: int = 1000,
    *,
    test: bool = False,
    stem: str = "imagenet",
    width_multiplier: float = 1.0,
    rng: np.random.RandomState | None = None,
) -> nn.Variable:
    """A residual network of four stages, the ReLU after the sum.

    Args:
        num_layers: 18, 34 or 50.
        x: images, shape (B, C, H, W); any H and W.
        classes: number of classes.
        test: use the running statistics in batch normalization.
        stem: "imagenet", 7x7 of stride 2 and pooled; "cifar", 3x3 of stride 1; "cifar_pooled", which is pooled.
        width_multiplier: scales the channels of all layers, rounded down; above 0.
        rng: source of the initial weights; nnabla's own if None.

    Returns:
        Logits, shape (B, classes).

    Raises:
        ValueError: `num_layers`, `stem` or `width_multiplier` is none of the three.

    Example:
        >>> imagenet_resnet(18, nn.Variable((2, 3, 75, 64)), 10).shape
        (2, 10)

    Source:
        He et al., "Deep Residual Learning for Image Recognition", table 1; shortcuts of type B.
    """
    if num_layers not in BLOCKS:
        raise ValueError(f"num_layers {num_layers}: one of {sorted(BLOCKS)} is needed")
    block: Block = _basic if EXPANSION[num_layers] == 1 else _bottleneck
    widths = [scaled(channels, width_multiplier) for channels in WIDTHS]
    form = chosen("stem", stem, STEMS)
    h = form.pool(F.relu(_layer(x, "conv1", widths[0], form.kernel, form.stride, test, rng)))
    for stage, (width, blocks) in enumerate(zip(widths, BLOCKS[num_layers]), start=1):
        for number in range(1, blocks + 1):
            with nn.parameter_scope(f"res{stage}/block{number}"):
                h = block(h, width, 2 if stage > 1 and number == 1 else 1, test, rng)
    return classifier(h, classes, rng)


resnet18 = partial(imagenet_resnet, 18)
resnet34 = partial(imagenet_resnet, 34)
resnet50 = partial(imagenet_resnet, 50)

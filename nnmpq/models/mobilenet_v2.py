"""MobileNetV2 as a plain float nnabla graph."""

from __future__ import annotations

from typing import Callable

import nnabla as nn
import nnabla.functions as F
import numpy as np

from nnmpq.models.layers import chosen, classifier, convolution, depthwise, normalised
from nnmpq.models.mobilenet_v1 import ACTIVATIONS, STRIDES

# Of each group: expansion, channels, blocks, stride of the first block for ImageNet and for CIFAR.
GROUPS = (
    (1, 16, 1, 1, 1),
    (6, 24, 2, 2, 1),
    (6, 32, 3, 2, 1),
    (6, 64, 4, 2, 2),
    (6, 96, 3, 1, 1),
    (6, 160, 3, 2, 2),
    (6, 320, 1, 1, 1),
)
STEM, HEAD = 32, 1280


def divisible(channels: float, divisor: int = 8) -> int:
    """Round to the nearest multiple of a divisor, but by no more than a tenth down.

    Args:
        channels: above 0.
        divisor: at least 1, and the least that is returned.

    Example:
        >>> divisible(32 * 0.35), divisible(32 * 0.75), divisible(16 * 0.35)
        (16, 24, 8)

    Source:
        The rule of the published implementation of MobileNetV2 in TensorFlow.
    """
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * channels else rounded


def _block(
    x: nn.Variable,
    expansion: int,
    channels: int,
    stride: int,
    activate: Callable[[nn.Variable], nn.Variable],
    test: bool,
    rng: np.random.RandomState | None,
) -> nn.Variable:
    h = x
    if expansion != 1:
        with nn.parameter_scope("expand"):
            h = activate(normalised(convolution(h, expansion * x.shape[1], 1, 1, rng), test))
    with nn.parameter_scope("depthwise"):
        h = activate(normalised(depthwise(h, 3, stride, rng), test))
    with nn.parameter_scope("project"):
        h = normalised(convolution(h, channels, 1, 1, rng), test)
    return F.add2(h, x) if stride == 1 and x.shape[1] == channels else h


def mobilenet_v2(
    x: nn.Variable,
    classes: int = 1000,
    *,
    test: bool = False,
    width_multiplier: float = 1.0,
    stem: str = "imagenet",
    activation: str = "relu6",
    rng: np.random.RandomState | None = None,
) -> nn.Variable:
    """A chain of 17 inverted residual blocks with linear bottlenecks.

    Args:
        x: images, shape (B, C, H, W); any H and W.
        classes: number of classes.
        test: use the running statistics in batch normalization.
        width_multiplier: scales the channels of all layers, to multiples of 8; the head is never narrower than 1280.
        stem: "imagenet", or "cifar": stride 1 in the first convolution and the first three groups.
        activation: "relu6", as in the paper, or "relu".
        rng: source of the initial weights; nnabla's own if None.

    Returns:
        Logits, shape (B, classes).

    Raises:
        ValueError: an option is out of range.

    Example:
        >>> mobilenet_v2(nn.Variable((2, 3, 33, 40)), 10, width_multiplier=0.35).shape
        (2, 10)

    Source:
        Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", table 2; strides for CIFAR of the code
        of ProQHA.
    """
    if not width_multiplier > 0:
        raise ValueError(f"width_multiplier {width_multiplier}: more than 0 is needed")
    activate = chosen("activation", activation, ACTIVATIONS)
    first_stride = chosen("stem", stem, STRIDES)
    with nn.parameter_scope("conv1"):
        h = activate(normalised(convolution(x, divisible(STEM * width_multiplier), 3, first_stride, rng), test))
    number = 0
    for expansion, channels, blocks, large_stride, small_stride in GROUPS:
        for index in range(blocks):
            number += 1
            stride = (small_stride if stem == "cifar" else large_stride) if index == 0 else 1
            with nn.parameter_scope(f"block{number}"):
                h = _block(h, expansion, divisible(channels * width_multiplier), stride, activate, test, rng)
    with nn.parameter_scope("head"):
        head = divisible(HEAD * max(width_multiplier, 1.0))
        h = activate(normalised(convolution(h, head, 1, 1, rng), test))
    return classifier(h, classes, rng, deviation=0.01)

"""MobileNetV1 as a plain float nnabla graph."""

from __future__ import annotations

import nnabla as nn
import nnabla.functions as F
import numpy as np

from nnmpq.models.layers import chosen, classifier, convolution, depthwise, normalised, scaled

# Channels and stride of each depthwise-separable block. The paper's table gives the last one the stride 2, and the
# size of the map after it as if it were 1; all implementations have 1.
BLOCKS = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *((512, 1),) * 5, (1024, 2), (1024, 1))
STEM = 32
LEAST = 8
# Of the first convolution.
STRIDES = {"imagenet": 2, "cifar": 1}
ACTIVATIONS = {"relu": F.relu, "relu6": F.relu6}


def mobilenet_v1(
    x: nn.Variable,
    classes: int = 1000,
    *,
    test: bool = False,
    width_multiplier: float = 1.0,
    stem: str = "imagenet",
    activation: str = "relu",
    rng: np.random.RandomState | None = None,
) -> nn.Variable:
    """A chain of 13 depthwise-separable convolutions.

    Args:
        x: images, shape (B, C, H, W); any H and W.
        classes: number of classes.
        test: use the running statistics in batch normalization.
        width_multiplier: scales the channels of all layers, rounded down, to at least 8; above 0.
        stem: "imagenet", or "cifar": the first convolution has stride 1.
        activation: "relu", as in the paper, or "relu6".
        rng: source of the initial weights; nnabla's own if None.

    Returns:
        Logits, shape (B, classes).

    Raises:
        ValueError: an option is out of range.

    Example:
        >>> mobilenet_v1(nn.Variable((2, 3, 33, 40)), 10, width_multiplier=0.25).shape
        (2, 10)

    Source:
        Howard et al., "MobileNets: Efficient Convolutional Neural Networks for Mobile Vision Applications", table 1.
    """
    activate = chosen("activation", activation, ACTIVATIONS)
    stride = chosen("stem", stem, STRIDES)
    with nn.parameter_scope("conv1"):
        h = activate(normalised(convolution(x, scaled(STEM, width_multiplier, LEAST), 3, stride, rng), test))
    for number, (channels, stride) in enumerate(BLOCKS, start=1):
        with nn.parameter_scope(f"block{number}/depthwise"):
            h = activate(normalised(depthwise(h, 3, stride, rng), test))
        with nn.parameter_scope(f"block{number}/pointwise"):
            h = activate(normalised(convolution(h, scaled(channels, width_multiplier, LEAST), 1, 1, rng), test))
    return classifier(h, classes, rng)

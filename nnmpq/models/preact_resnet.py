"""Pre-activation residual networks for small images, as plain float nnabla graphs."""

from __future__ import annotations

import nnabla as nn
import nnabla.functions as F
import numpy as np

from nnmpq.models.layers import classifier, convolution, preactivated, scaled

# Where the map is halved; the empty one is CAMP's.
SHORTCUTS = ("", "subsample", "conv")
WIDTH = 16
DEPTHS = (20, 32, 44, 56, 110, 182)


def _widened(x: nn.Variable, channels: int, kind: str) -> nn.Variable:
    """Halve the map and add channels of zeros, without parameters."""
    before = (channels - x.shape[1]) // 2 if not kind else 0
    if not kind:
        # A border of one line is a window of its own, so that an odd map has the size that the convolutions give it.
        even = x.shape[2] % 2 == 0 and x.shape[3] % 2 == 0
        x = F.average_pooling(x, (2, 2), (2, 2), ignore_border=even, including_pad=even)
    else:
        x = F.average_pooling(x, (1, 1), (2, 2))
    # Padding knows no batch size, so a saved graph loads at any.
    return F.pad(x, (before, channels - x.shape[1] - before, 0, 0, 0, 0))


def _block(
    x: nn.Variable,
    channels: int,
    stride: int,
    shortcut: str,
    activated_shortcut: bool,
    test: bool,
    rng: np.random.RandomState | None,
) -> nn.Variable:
    with nn.parameter_scope("conv1"):
        activated = preactivated(x, test)
        h = convolution(activated, channels, 3, stride, rng)
    with nn.parameter_scope("conv2"):
        h = convolution(preactivated(h, test), channels, 3, 1, rng)
    residual = activated if activated_shortcut else x
    if stride != 1:
        if shortcut == "conv":
            with nn.parameter_scope("shortcut"):
                residual = convolution(activated, channels, 1, stride, rng)
        else:
            residual = _widened(residual, channels, shortcut)
    return F.add2(h, residual)


def preact_resnet(
    x: nn.Variable,
    classes: int = 10,
    *,
    test: bool = False,
    num_layers: int = 20,
    width_multiplier: float = 1.0,
    shortcut_type: str = "",
    activated_shortcut: bool = False,
    final_activation: bool = True,
    rng: np.random.RandomState | None = None,
) -> nn.Variable:
    """A residual network of three stages, batch normalization and ReLU before each convolution but the first.

    Args:
        x: images, shape (B, C, H, W); any H and W.
        classes: number of classes.
        test: use the running statistics in batch normalization.
        num_layers: depth, 6n + 2: 20, 32, 44, 56, 110 or 182.
        width_multiplier: of the channels, which are 16, 32 and 64 in the three stages; CAMP has 4 for CIFAR-100.
        shortcut_type: where the map is halved: "" averages 2x2 and pads channels on both sides (CAMP); "subsample"
            takes every second pixel and pads at the end (ProQHA); "conv" convolves 1x1 what the first one reads.
        activated_shortcut: the shortcut starts behind the block's first ReLU, as in ProQHA.
        final_activation: batch normalization and ReLU before the pooling; ProQHA has none.
        rng: source of the initial weights; nnabla's own if None.

    Returns:
        Logits, shape (B, classes).

    Raises:
        ValueError: `num_layers` or `shortcut_type` is none of those, or `width_multiplier` not above 0.

    Example:
        >>> preact_resnet(nn.Variable((2, 3, 32, 32)), width_multiplier=4, num_layers=44).shape
        (2, 10)

    Source:
        He et al., "Identity Mappings in Deep Residual Networks", section 4, with the widths and shortcuts of the
        code of CAMP and ProQHA.
    """
    if num_layers not in DEPTHS:
        raise ValueError(f"num_layers {num_layers}: one of {list(DEPTHS)} is needed")
    if shortcut_type not in SHORTCUTS:
        raise ValueError(f"shortcut_type {shortcut_type!r}: one of {SHORTCUTS} is needed")
    width = scaled(WIDTH, width_multiplier)
    with nn.parameter_scope("conv1"):
        h = convolution(x, width, 3, 1, rng)
    for stage, channels in enumerate((width, 2 * width, 4 * width), start=1):
        for number in range(1, (num_layers - 2) // 6 + 1):
            stride = 2 if stage > 1 and number == 1 else 1
            with nn.parameter_scope(f"res{stage}/block{number}"):
                h = _block(h, channels, stride, shortcut_type, activated_shortcut, test, rng)
    if final_activation:
        with nn.parameter_scope("last"):
            h = preactivated(h, test)
    return classifier(h, classes, rng)

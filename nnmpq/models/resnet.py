"""Residual networks for small images, as plain float nnabla graphs."""

from __future__ import annotations

import nnabla as nn
import nnabla.functions as F
import nnabla.initializer as I
import numpy as np

from nnmpq.models.layers import classifier, convolution, normalised

BLOCKS = {20: 3, 32: 5, 44: 7, 56: 9, 110: 18}
SHORTCUTS = ("", "b", "c")


def _convolution(
    x: nn.Variable, channels: int, kernel: int, stride: int, rng: np.random.RandomState | None
) -> nn.Variable:
    limit = float(np.sqrt(6.0 / (kernel * kernel * (x.shape[1] + channels))))
    return convolution(x, channels, kernel, stride, weights=I.UniformInitializer((-limit, limit), rng=rng))


def _shortcut(
    x: nn.Variable, channels: int, stride: int, kind: str, test: bool, rng: np.random.RandomState | None
) -> nn.Variable:
    widens = x.shape[1] != channels
    if kind == "c" or (kind == "b" and widens):
        with nn.parameter_scope("shortcut_conv"):
            return normalised(_convolution(x, channels, 1, stride, rng), test)
    if stride != 1:
        x = F.average_pooling(x, (1, 1), (stride, stride))
    if widens:
        # Padding knows no batch size, so a saved graph loads at any.
        x = F.pad(x, (0, channels - x.shape[1], 0, 0, 0, 0))
    return x


def _basic_block(
    x: nn.Variable, channels: int, stride: int, kind: str, test: bool, rng: np.random.RandomState | None
) -> nn.Variable:
    with nn.parameter_scope("basicblock1"):
        h = F.relu(normalised(_convolution(x, channels, 3, stride, rng), test))
    with nn.parameter_scope("basicblock2"):
        h = normalised(_convolution(h, channels, 3, 1, rng), test)
    with nn.parameter_scope("basicblock_s"):
        s = _shortcut(x, channels, stride, kind, test, rng)
    return F.relu(F.add2(h, s))


def resnet(
    x: nn.Variable,
    classes: int = 10,
    *,
    test: bool = False,
    blocks: int = 3,
    widths: tuple[int, ...] = (16, 32, 64),
    shortcut_type: str = "",
    rng: np.random.RandomState | None = None,
) -> nn.Variable:
    """A residual network of three stages of basic blocks, after He et al.

    Args:
        x: images, shape (B, C, H, W); any H and W that survive two halvings.
        classes: number of classes.
        test: use the running statistics in batch normalization.
        blocks: basic blocks a stage; depth is 6 * blocks + 2.
        widths: channels of each stage; every stage but the first halves the map.
        shortcut_type: "" subsamples and pads channels with zeros, "b" convolves where the width changes, "c" always.
        rng: source of the initial weights; nnabla's own if None.

    Returns:
        Logits, shape (B, classes).

    Raises:
        ValueError: `shortcut_type` is not one of the three.

    Example:
        >>> resnet(nn.Variable((2, 3, 32, 32))).shape
        (2, 10)

    Source:
        He et al., "Deep Residual Learning for Image Recognition", section 4.2.
    """
    if shortcut_type not in SHORTCUTS:
        raise ValueError(f"shortcut_type {shortcut_type!r}: one of {SHORTCUTS} is needed")
    with nn.parameter_scope("conv1"):
        h = F.relu(normalised(_convolution(x, widths[0], 3, 1, rng), test))
    for stage, channels in enumerate(widths, start=1):
        for block in range(1, blocks + 1):
            stride = 2 if stage > 1 and block == 1 else 1
            with nn.parameter_scope(f"res{stage}/layer{block}"):
                h = _basic_block(h, channels, stride, shortcut_type, test, rng)
    return classifier(h, classes, rng)

"""The pre-activation ResNet-18 and 50 that EdMIPS and GMPQ search, as plain float nnabla graphs."""

from __future__ import annotations

from functools import partial

import nnabla as nn
import nnabla.functions as F
import numpy as np

from nnmpq.models.imagenet_resnet import BLOCKS, WIDTHS
from nnmpq.models.layers import STEMS, chosen, classifier, convolution, normalised, preactivated, scaled

LAYERS = (18, 50)


def _convolved(
    x: nn.Variable, scope: str, channels: int, kernel: int, stride: int, rng: np.random.RandomState | None
) -> nn.Variable:
    with nn.parameter_scope(scope):
        return convolution(x, channels, kernel, stride, rng)


def _preactivated(x: nn.Variable, scope: str, test: bool) -> nn.Variable:
    with nn.parameter_scope(scope):
        return preactivated(x, test)


def _normalised(x: nn.Variable, scope: str, test: bool) -> nn.Variable:
    with nn.parameter_scope(scope):
        return normalised(x, test)


def _basic(
    x: nn.Variable, width: int, stride: int, test: bool, rng: np.random.RandomState | None
) -> tuple[nn.Variable, nn.Variable]:
    activated = _preactivated(x, "conv1", test)
    h = _convolved(activated, "conv1", width, 3, stride, rng)
    h = _convolved(_preactivated(h, "conv2", test), "conv2", width, 3, 1, rng)
    return activated, h


def _bottleneck(
    x: nn.Variable, width: int, stride: int, test: bool, rng: np.random.RandomState | None
) -> tuple[nn.Variable, nn.Variable]:
    activated = _preactivated(x, "conv1", test)
    h = _convolved(activated, "conv1", width, 1, 1, rng)
    h = _convolved(_preactivated(h, "conv2", test), "conv2", width, 3, stride, rng)
    h = _convolved(_preactivated(h, "conv3", test), "conv3", 4 * width, 1, 1, rng)
    return activated, h


def _block(
    x: nn.Variable, width: int, layers: int, stride: int, test: bool, rng: np.random.RandomState | None
) -> nn.Variable:
    activated, h = (_basic if layers == 18 else _bottleneck)(x, width, stride, test, rng)
    h = _normalised(h, "last", test)
    if stride == 1 and x.shape[1] == h.shape[1]:
        return F.add2(h, x)
    # The projection reads what the first convolution reads, which is stored once.
    projected = _convolved(activated, "shortcut", h.shape[1], 1, stride, rng)
    return F.add2(h, _normalised(projected, "shortcut", test))


def edmips_resnet(
    num_layers: int,
    x: nn.Variable,
    classes: int = 1000,
    *,
    test: bool = False,
    stem: str = "imagenet",
    width_multiplier: float = 1.0,
    rng: np.random.RandomState | None = None,
) -> nn.Variable:
    """A residual network of four stages with batch normalization and ReLU before each convolution.

    A block also normalises its result before the sum. The published code has no ReLU: its activation quantizer clips
    at zero in the same place, as a quantizer of the ReLU does here.

    Args:
        num_layers: 18 or 50.
        x: images, shape (B, C, H, W); any H and W.
        classes: number of classes.
        test: use the running statistics in batch normalization.
        stem: "imagenet", 7x7 of stride 2, pooled and normalized; "cifar" as in GMPQ, 3x3 of stride 1, normalized and
            rectified; "cifar_pooled", which is pooled.
        width_multiplier: scales the channels of all layers, rounded down; above 0.
        rng: source of the initial weights; nnabla's own if None.

    Returns:
        Logits, shape (B, classes).

    Raises:
        ValueError: `num_layers`, `stem` or `width_multiplier` is neither.

    Example:
        >>> edmips_resnet(18, nn.Variable((2, 3, 32, 32)), 10, stem="cifar").shape
        (2, 10)

    Source:
        Cai and Vasconcelos, "Rethinking Differentiable Search for Mixed-Precision Neural Networks", section 5; Wang et
        al., "Generalizable Mixed-Precision Quantization via Attribution Rank Preservation", section 4.
    """
    if num_layers not in LAYERS:
        raise ValueError(f"num_layers {num_layers}: one of {list(LAYERS)} is needed")
    widths = [scaled(channels, width_multiplier) for channels in WIDTHS]
    form = chosen("stem", stem, STEMS)
    with nn.parameter_scope("conv1"):
        h = convolution(x, widths[0], form.kernel, form.stride, rng)
        # ImageNet's map alone is pooled before it is normalised, and has no ReLU.
        h = normalised(form.pool(h), test) if stem == "imagenet" else form.pool(preactivated(h, test))
    for stage, (width, blocks) in enumerate(zip(widths, BLOCKS[num_layers]), start=1):
        for number in range(1, blocks + 1):
            with nn.parameter_scope(f"res{stage}/block{number}"):
                h = _block(h, width, num_layers, 2 if stage > 1 and number == 1 else 1, test, rng)
    return classifier(F.relu(h), classes, rng)


edmips_resnet18 = partial(edmips_resnet, 18)
edmips_resnet50 = partial(edmips_resnet, 50)

"""GoogLeNet with batch normalization, as a plain float nnabla graph."""

from __future__ import annotations

import attrs
import nnabla as nn
import nnabla.functions as F
import numpy as np

from nnmpq.models.inception_units import Units
from nnmpq.models.pooling import average_pooling_to, max_pooling_ceil

# Channels of: the 1x1 branch; the 3x3 branch's reduction and result; the 5x5 branch's; the pooled branch.
BLOCKS = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}
POOL_BEFORE = {"4a": 3, "5a": 2}
AUXILIARY_AFTER = ("4a", "4d")


def _block(units: Units, x: nn.Variable, channels: tuple[int, ...], large: int) -> nn.Variable:
    one, reduced, three, reduced_large, five, pooled = channels
    h = units.shared(x)
    branches = [units.unit("branch1", h, one, first=True)]
    y = units.unit("branch2_reduce", h, reduced, first=True)
    branches.append(units.unit("branch2", y, three, (3, 3), pad=(1, 1)))
    y = units.unit("branch3_reduce", h, reduced_large, first=True)
    branches.append(units.unit("branch3", y, five, (large, large), pad=(large // 2, large // 2)))
    # The pool reads the block's input as it is, and has its own normalization.
    y = F.max_pooling(x, (3, 3), (1, 1), pad=(1, 1))
    branches.append(units.unit("branch4", y, pooled))
    return F.concatenate(*branches, axis=1)


def _auxiliary(units: Units, x: nn.Variable, classes: int) -> nn.Variable:
    # A head of its own, normalized after its convolution in either order.
    units = attrs.evolve(units, preactivation=False)
    h = units.unit("reduce", average_pooling_to(x, 4), 128)
    h = F.relu(units.affine("hidden", h, 1024))
    return units.affine("fc", h, classes)


def googlenet(
    x: nn.Variable,
    classes: int = 1000,
    *,
    test: bool = False,
    auxiliary: bool = False,
    preactivation: bool = True,
    large_kernel: int = 5,
    rng: np.random.RandomState | None = None,
) -> nn.Variable | tuple[nn.Variable, ...]:
    """GoogLeNet, by default in the order of EdMIPS: normalization, ReLU, convolution.

    The first convolution has no normalization then, the four branches share that of the block's input but for
    the pooled one, and one more stands before the classifier. There is no dropout.

    Args:
        x: images, shape (B, C, H, W); any H and W, 224 in the paper.
        classes: number of classes.
        test: use the running statistics in batch normalization.
        auxiliary: also return the logits of the two auxiliary heads, after blocks 4a and 4d.
        preactivation: False normalizes after each convolution, as torchvision does.
        large_kernel: side of the "5x5" kernels, odd; torchvision has 3.
        rng: source of the initial weights; nnabla's own if None.

    Returns:
        Logits, shape (B, classes); with `auxiliary` a tuple of three such, the network's own first.

    Raises:
        ValueError: `large_kernel` is even.

    Example:
        >>> googlenet(nn.Variable((1, 3, 64, 64)), 10).shape
        (1, 10)

    Source:
        Szegedy et al., "Going Deeper with Convolutions", table 1 and section 5; Cai and Vasconcelos, "Rethinking
        Differentiable Search for Mixed-Precision Neural Networks", for the order.
    """
    if large_kernel % 2 == 0:
        raise ValueError(f"large_kernel {large_kernel}: an odd number is needed, such as {large_kernel + 1}")
    units = Units(preactivation=preactivation, deviation=0.01, test=test, rng=rng)
    h = units.unit("conv1", x, 64, (7, 7), stride=2, pad=(3, 3), first=True)
    h = max_pooling_ceil(h, 3)
    h = units.unit("conv2_reduce", h, 64)
    h = units.unit("conv2", h, 192, (3, 3), pad=(1, 1))
    h = max_pooling_ceil(h, 3)
    heads = []
    for name, channels in BLOCKS.items():
        if name in POOL_BEFORE:
            h = max_pooling_ceil(h, POOL_BEFORE[name])
        with nn.parameter_scope(f"inception{name}"):
            h = _block(units, h, channels, large_kernel)
        if auxiliary and name in AUXILIARY_AFTER:
            with nn.parameter_scope(f"auxiliary{name}"):
                heads.append(_auxiliary(units, h, classes))
    y = units.classifier(h, classes)
    return (y, *heads) if auxiliary else y

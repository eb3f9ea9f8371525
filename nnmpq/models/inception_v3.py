"""Inception-V3, as a plain float nnabla graph."""

from __future__ import annotations

import attrs
import nnabla as nn
import nnabla.functions as F
import numpy as np

from nnmpq.models.inception_units import Units
from nnmpq.models.pooling import average_pooling_to, fitting_pad


def _max_pooling(x: nn.Variable) -> nn.Variable:
    return F.max_pooling(x, (3, 3), (2, 2), pad=fitting_pad(x, (3, 3)))


def _pooled(units: Units, x: nn.Variable, channels: int) -> nn.Variable:
    # The zeros at the edge count in the average, as in the published weights.
    h = F.average_pooling(x, (3, 3), (1, 1), pad=(1, 1), including_pad=True)
    return units.unit("branch_pool", h, channels)


def _block_a(units: Units, x: nn.Variable, pooled: int) -> nn.Variable:
    """35 pixels: 1x1, 5x5, two 3x3."""
    h = units.shared(x)
    one = units.unit("branch1x1", h, 64, first=True)
    five = units.unit("branch5x5_1", h, 48, first=True)
    five = units.unit("branch5x5_2", five, 64, (5, 5), pad=(2, 2))
    three = units.unit("branch3x3double_1", h, 64, first=True)
    three = units.unit("branch3x3double_2", three, 96, (3, 3), pad=(1, 1))
    three = units.unit("branch3x3double_3", three, 96, (3, 3), pad=(1, 1))
    return F.concatenate(one, five, three, _pooled(units, x, pooled), axis=1)


def _block_b(units: Units, x: nn.Variable) -> nn.Variable:
    """35 to 17 pixels."""
    h = units.shared(x)
    three = units.unit("branch3x3", h, 384, (3, 3), stride=2, first=True)
    double = units.unit("branch3x3double_1", h, 64, first=True)
    double = units.unit("branch3x3double_2", double, 96, (3, 3), pad=(1, 1))
    double = units.unit("branch3x3double_3", double, 96, (3, 3), stride=2)
    return F.concatenate(three, double, _max_pooling(x), axis=1)


def _line(units: Units, scope: str, x: nn.Variable, channels: int, *, tall: bool, first: bool = False) -> nn.Variable:
    """A convolution along one direction, of seven pixels."""
    kernel, pad = ((7, 1), (3, 0)) if tall else ((1, 7), (0, 3))
    return units.unit(scope, x, channels, kernel, pad=pad, first=first)


def _block_c(units: Units, x: nn.Variable, channels: int) -> nn.Variable:
    """17 pixels: 7x7 as 1x7 and 7x1, once and twice."""
    h = units.shared(x)
    one = units.unit("branch1x1", h, 192, first=True)
    seven = units.unit("branch7x7_1", h, channels, first=True)
    seven = _line(units, "branch7x7_2", seven, channels, tall=False)
    seven = _line(units, "branch7x7_3", seven, 192, tall=True)
    double = units.unit("branch7x7double_1", h, channels, first=True)
    double = _line(units, "branch7x7double_2", double, channels, tall=True)
    double = _line(units, "branch7x7double_3", double, channels, tall=False)
    double = _line(units, "branch7x7double_4", double, channels, tall=True)
    double = _line(units, "branch7x7double_5", double, 192, tall=False)
    return F.concatenate(one, seven, double, _pooled(units, x, 192), axis=1)


def _block_d(units: Units, x: nn.Variable) -> nn.Variable:
    """17 to 8 pixels."""
    h = units.shared(x)
    three = units.unit("branch3x3_1", h, 192, first=True)
    three = units.unit("branch3x3_2", three, 320, (3, 3), stride=2)
    seven = units.unit("branch7x7x3_1", h, 192, first=True)
    seven = _line(units, "branch7x7x3_2", seven, 192, tall=False)
    seven = _line(units, "branch7x7x3_3", seven, 192, tall=True)
    seven = units.unit("branch7x7x3_4", seven, 192, (3, 3), stride=2)
    return F.concatenate(three, seven, _max_pooling(x), axis=1)


def _fork(units: Units, scope: str, x: nn.Variable) -> list[nn.Variable]:
    """1x3 and 3x1 beside each other; both read one normalized map."""
    with nn.parameter_scope(scope):
        h = units.shared(x)
        wide = units.unit("wide", h, 384, (1, 3), pad=(0, 1), first=True)
        return [wide, units.unit("tall", h, 384, (3, 1), pad=(1, 0), first=True)]


def _block_e(units: Units, x: nn.Variable) -> nn.Variable:
    """8 pixels: branches that fork."""
    h = units.shared(x)
    one = units.unit("branch1x1", h, 320, first=True)
    three = units.unit("branch3x3_1", h, 384, first=True)
    double = units.unit("branch3x3double_1", h, 448, first=True)
    double = units.unit("branch3x3double_2", double, 384, (3, 3), pad=(1, 1))
    forks = [*_fork(units, "branch3x3_2", three), *_fork(units, "branch3x3double_3", double)]
    return F.concatenate(one, *forks, _pooled(units, x, 192), axis=1)


def _auxiliary(units: Units, x: nn.Variable, classes: int) -> nn.Variable:
    # A head of its own, normalized after its convolutions in either order.
    units = attrs.evolve(units, preactivation=False, deviation=0.01)
    h = units.unit("conv1", average_pooling_to(x, 5), 128)
    h = units.unit("conv2", h, 768, (5, 5))
    return attrs.evolve(units, deviation=0.001).classifier(h, classes)


def inception_v3(
    x: nn.Variable,
    classes: int = 1000,
    *,
    test: bool = False,
    auxiliary: bool = False,
    preactivation: bool = True,
    rng: np.random.RandomState | None = None,
) -> nn.Variable | tuple[nn.Variable, ...]:
    """Inception-V3, by default in the order of EdMIPS: normalization, ReLU, convolution.

    The first convolution has no normalization then, the branches of a block share that of its input but for the
    pooled one, and one more stands before the classifier. There is no dropout.

    Args:
        x: images, shape (B, C, H, W), 299 pixels in the paper. Below 75, a map that is smaller than an unpadded
            window is padded to its size.
        classes: number of classes.
        test: use the running statistics in batch normalization.
        auxiliary: also return the logits of the auxiliary head, after the last block of 17 pixels.
        preactivation: False normalizes after each convolution, as the paper and torchvision do.
        rng: source of the initial weights; nnabla's own if None.

    Returns:
        Logits, shape (B, classes); with `auxiliary` a tuple of two such, the network's own first.

    Example:
        >>> inception_v3(nn.Variable((1, 3, 75, 75)), 10).shape
        (1, 10)

    Source:
        Szegedy et al., "Rethinking the Inception Architecture for Computer Vision", table 1 and section 6; Cai and
        Vasconcelos, "Rethinking Differentiable Search for Mixed-Precision Neural Networks", for the order.
    """
    units = Units(preactivation=preactivation, deviation=0.1, test=test, rng=rng)
    h = units.unit("conv1", x, 32, (3, 3), stride=2, first=True)
    h = units.unit("conv2", h, 32, (3, 3))
    h = _max_pooling(units.unit("conv3", h, 64, (3, 3), pad=(1, 1)))
    h = units.unit("conv4", h, 80)
    h = _max_pooling(units.unit("conv5", h, 192, (3, 3)))
    for number, pooled in enumerate((32, 64, 64), start=1):
        with nn.parameter_scope(f"block_a{number}"):
            h = _block_a(units, h, pooled)
    with nn.parameter_scope("block_b"):
        h = _block_b(units, h)
    for number, channels in enumerate((128, 160, 160, 192), start=1):
        with nn.parameter_scope(f"block_c{number}"):
            h = _block_c(units, h, channels)
    heads = []
    if auxiliary:
        with nn.parameter_scope("auxiliary"):
            heads.append(_auxiliary(units, h, classes))
    with nn.parameter_scope("block_d"):
        h = _block_d(units, h)
    for number in (1, 2):
        with nn.parameter_scope(f"block_e{number}"):
            h = _block_e(units, h)
    y = units.classifier(h, classes)
    return (y, *heads) if auxiliary else y

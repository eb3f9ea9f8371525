"""Convolution, batch normalization and ReLU in the two orders that the Inception networks come in."""

from __future__ import annotations

import attrs
import nnabla as nn
import nnabla.functions as F
import nnabla.parametric_functions as PF
import numpy as np

from nnmpq.models.pooling import fitting_pad
from nnmpq.models.truncated_normal import TruncatedNormalInitializer

EPSILON = 1e-3


@attrs.frozen
class Units:
    """Builds the layers of an Inception network, all alike.

    Args:
        preactivation: normalization, ReLU, convolution, as EdMIPS has it; else convolution, normalization, ReLU.
        deviation: of the truncated normal distribution of the initial weights, > 0.
        test: batch normalization uses its running statistics.
        rng: source of the initial weights; nnabla's own if None.

    Example:
        >>> units = Units(preactivation=True, deviation=0.1)
        >>> units.unit("reduce", nn.Variable((1, 8, 9, 9)), 16, (3, 3), stride=2).shape
        (1, 16, 4, 4)
        >>> sorted(nn.get_parameters())
        ['reduce/bn/beta', 'reduce/bn/gamma', 'reduce/conv/W']
    """

    preactivation: bool
    deviation: float
    test: bool = False
    rng: np.random.RandomState | None = None

    def initializer(self) -> TruncatedNormalInitializer:
        """Return what makes the initial weights."""
        return TruncatedNormalInitializer(self.deviation, rng=self.rng)

    def activated(self, x: nn.Variable) -> nn.Variable:
        """Return the ReLU of the batch-normalized map."""
        return F.relu(PF.batch_normalization(x, eps=EPSILON, batch_stat=not self.test))

    def shared(self, x: nn.Variable) -> nn.Variable:
        """Return what all first convolutions of a block read, in the current scope: one normalization, one ReLU."""
        return self.activated(x) if self.preactivation else x

    def convolution(
        self,
        x: nn.Variable,
        channels: int,
        kernel: tuple[int, int] = (1, 1),
        stride: int = 1,
        pad: tuple[int, int] = (0, 0),
    ) -> nn.Variable:
        """Return a convolution without bias; a map smaller than the kernel is padded to its size."""
        return PF.convolution(
            x,
            channels,
            kernel,
            pad=fitting_pad(x, kernel, pad),
            stride=(stride, stride),
            with_bias=False,
            w_init=self.initializer(),
        )

    def unit(
        self,
        scope: str,
        x: nn.Variable,
        channels: int,
        kernel: tuple[int, int] = (1, 1),
        *,
        stride: int = 1,
        pad: tuple[int, int] = (0, 0),
        first: bool = False,
    ) -> nn.Variable:
        """Return a convolution with its normalization and ReLU, before it or after it.

        Args:
            scope: parameter scope, relative to the current one.
            x: map, shape (B, C, H, W).
            channels: channels of the result.
            kernel: height and width of the kernel, pixels.
            stride: of both directions.
            pad: padding on each side, pixels; more where the map is smaller than the kernel.
            first: `x` is the image, or comes from `shared`: pre-activation normalizes it no more.
        """
        with nn.parameter_scope(scope):
            if not self.preactivation:
                return self.activated(self.convolution(x, channels, kernel, stride, pad))
            return self.convolution(x if first else self.activated(x), channels, kernel, stride, pad)

    def affine(self, scope: str, x: nn.Variable, outputs: int) -> nn.Variable:
        """Return a fully connected layer of all that is in the map."""
        with nn.parameter_scope(scope):
            return PF.affine(x, outputs, w_init=self.initializer())

    def classifier(self, x: nn.Variable, classes: int) -> nn.Variable:
        """Return logits of a map of any size, from its average."""
        if self.preactivation:
            with nn.parameter_scope("last"):
                x = self.activated(x)
        return self.affine("fc", F.global_average_pooling(x), classes)

"""The layers that the networks are built from."""

from __future__ import annotations

from typing import Any

import attrs
import nnabla as nn
import nnabla.functions as F
import nnabla.initializer as I
import nnabla.parametric_functions as PF
import numpy as np

from nnmpq.files import nearest


def he_normal(fan: int, rng: np.random.RandomState | None) -> I.NormalInitializer:
    """Weights of a normal distribution with the deviation sqrt(2 / fan).

    Args:
        fan: number of inputs, or outputs, that a weight's neuron has; at least 1.
        rng: source of the numbers; nnabla's own if None.

    Example:
        >>> he_normal(8, None).sigma
        0.5

    Source:
        He et al., "Delving Deep into Rectifiers", section 2.2.
    """
    return I.NormalInitializer(float(np.sqrt(2.0 / fan)), rng=rng)


def convolution(
    x: nn.Variable,
    channels: int,
    kernel: int,
    stride: int = 1,
    rng: np.random.RandomState | None = None,
    *,
    weights: I.BaseInitializer | None = None,
    with_bias: bool = False,
) -> nn.Variable:
    """A square convolution that keeps the map's size but for its stride.

    Args:
        x: shape (B, C, H, W).
        channels: output channels.
        kernel: side of the kernel, odd.
        stride: step in both directions.
        rng: source of the initial weights, of deviation sqrt(2 / (kernel^2 * channels)).
        weights: makes other initial weights; `rng` counts no more.
        with_bias: add a bias, at first zero.

    Returns:
        Shape (B, channels, ceil(H / stride), ceil(W / stride)).

    Example:
        >>> convolution(nn.Variable((1, 3, 7, 8)), 4, 3, stride=2).shape
        (1, 4, 4, 4)
    """
    return PF.convolution(
        x,
        channels,
        (kernel, kernel),
        pad=(kernel // 2, kernel // 2),
        stride=(stride, stride),
        with_bias=with_bias,
        w_init=he_normal(kernel * kernel * channels, rng) if weights is None else weights,
        b_init=I.ConstantInitializer(0),
    )


def depthwise(
    x: nn.Variable, kernel: int = 3, stride: int = 1, rng: np.random.RandomState | None = None
) -> nn.Variable:
    """A square depthwise convolution without bias that keeps the map's size but for its stride.

    Args:
        x: shape (B, C, H, W).
        kernel: side of the kernel, odd.
        stride: step in both directions.
        rng: source of the initial weights, of deviation sqrt(2 / kernel^2).

    Returns:
        Shape (B, C, ceil(H / stride), ceil(W / stride)).

    Example:
        >>> depthwise(nn.Variable((1, 3, 7, 8)), stride=2).shape
        (1, 3, 4, 4)
    """
    return PF.depthwise_convolution(
        x,
        (kernel, kernel),
        pad=(kernel // 2, kernel // 2),
        stride=(stride, stride),
        with_bias=False,
        w_init=he_normal(kernel * kernel, rng),
    )


def normalised(x: nn.Variable, test: bool) -> nn.Variable:
    """Batch normalization over all but the channels; by the running statistics in a test graph."""
    return PF.batch_normalization(x, batch_stat=not test)


def preactivated(x: nn.Variable, test: bool) -> nn.Variable:
    """Batch normalization and a ReLU, which a convolution follows."""
    return F.relu(normalised(x, test))


def classifier(
    x: nn.Variable, classes: int, rng: np.random.RandomState | None = None, deviation: float | None = None
) -> nn.Variable:
    """Global average pooling over whatever map is left, and an affine layer in the scope "fc".

    Args:
        x: features, shape (B, C, H, W).
        classes: number of classes.
        rng: source of the initial weights.
        deviation: weights are normal with this deviation and biases zero; if None, both are uniform on +-1/sqrt(C).

    Returns:
        Logits, shape (B, classes).

    Example:
        >>> classifier(nn.Variable((2, 8, 3, 5)), 4).shape
        (2, 4)
    """
    h = F.global_average_pooling(x)
    with nn.parameter_scope("fc"):
        if deviation is not None:
            return PF.affine(
                h, classes, w_init=I.NormalInitializer(deviation, rng=rng), b_init=I.ConstantInitializer(0)
            )
        limit = 1.0 / float(np.sqrt(h.shape[1]))
        uniform = I.UniformInitializer((-limit, limit), rng=rng)
        return PF.affine(h, classes, w_init=uniform, b_init=uniform)


def scaled(channels: int, width_multiplier: float, least: int = 1) -> int:
    """Return the channels of a layer in a wider or narrower network, rounded down.

    Args:
        channels: in the network of the paper.
        width_multiplier: above 0.
        least: never fewer.

    Raises:
        ValueError: the multiplier is not above 0.

    Example:
        >>> scaled(512, 0.25), scaled(32, 0.1, least=8)
        (128, 8)
    """
    if not width_multiplier > 0:
        raise ValueError(f"width_multiplier {width_multiplier}: more than 0 is needed")
    return max(int(channels * width_multiplier), least)


@attrs.frozen
class Stem:
    """The form of a network's first layers.

    Args:
        kernel: side of the first convolution's kernel, odd.
        stride: of the first convolution.
        pools: 3x3 max pooling of stride 2 after it.
    """

    kernel: int
    stride: int
    pools: bool

    def pool(self, x: nn.Variable) -> nn.Variable:
        """Return the pooled map, or the map where the stem does not pool; a map of odd side keeps its border."""
        return F.max_pooling(x, (3, 3), (2, 2), pad=(1, 1)) if self.pools else x


# ProQHA's ResNet-18 for CIFAR keeps the pooling of ImageNet's.
STEMS = {"imagenet": Stem(7, 2, True), "cifar": Stem(3, 1, False), "cifar_pooled": Stem(3, 1, True)}


def chosen(option: str, value: Any, choices: dict[str, Any]) -> Any:
    """Return what a choice of an option stands for.

    Args:
        option: its name, for the message.
        value: the choice.
        choices: all there are, and what each stands for.

    Raises:
        ValueError: it is none of them.

    Example:
        >>> chosen("stem", "cifar", STEMS).kernel
        3
    """
    if value not in choices:
        near = nearest(str(value), choices)
        raise ValueError(f"{option} {value!r}: one of {list(choices)} is needed; the nearest is {near!r}")
    return choices[value]

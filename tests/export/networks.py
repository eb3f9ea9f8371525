"""Networks with every operation that has an integer form, and numbers in them that are hard to round."""

from __future__ import annotations

import nnabla as nn
import nnabla.functions as F
import nnabla.parametric_functions as PF
import numpy as np

from nnmpq.export.trained import Trained
from nnmpq.graph.quantize import QuantizedNetwork, quantize
from nnmpq.graph.schemes import Parametric, SiteSettings

KINDS = ("input", "relu", "sum", "branch", "pool", "linear")
SHAPE = (3, 12, 12)
BATCH = 16


def normalised(h: nn.Variable, name: str) -> nn.Variable:
    return PF.batch_normalization(h, batch_stat=False, name=name)


def everything(x: nn.Variable) -> nn.Variable:
    """Stride, pad, dilation, groups, depthwise, ReLU6, bottleneck, sums, concatenation, all poolings, two affines."""
    h = F.relu(normalised(PF.convolution(x, 8, (3, 3), pad=(1, 1), with_bias=False, name="stem"), "stem"))
    d = F.relu6(normalised(PF.depthwise_convolution(h, (3, 3), pad=(1, 1), name="depth"), "depth"))
    h = F.add2(h, normalised(PF.convolution(d, 8, (1, 1), name="project"), "project"))
    wide = F.relu(normalised(PF.convolution(h, 8, (3, 3), pad=(2, 2), dilation=(2, 2), group=2, name="wide"), "wide"))
    tall = F.relu(PF.convolution(h, 6, (3, 1), pad=(1, 0), name="tall"))
    pooled = F.max_pooling(h, (3, 3), (1, 1), pad=(1, 1))
    h = F.concatenate(wide, tall, pooled, axis=1)
    h = F.relu(normalised(PF.convolution(h, 12, (3, 3), pad=(1, 1), stride=(2, 2), name="merge"), "merge"))
    s = F.pad(F.average_pooling(h, (1, 1), (2, 2)), (1, 3, 0, 0, 0, 0))
    b = normalised(PF.convolution(h, 16, (3, 3), pad=(1, 1), stride=(2, 2), name="down"), "down")
    h = F.relu(F.add2(s, b))
    h = F.average_pooling(h, (3, 3))
    h = F.relu(PF.affine(h, 9, name="hidden"))
    return PF.affine(h, 5, name="head")


def small(x: nn.Variable) -> nn.Variable:
    """A residual block and a global pooling."""
    h = F.relu(normalised(PF.convolution(x, 6, (3, 3), pad=(1, 1), stride=(2, 2), with_bias=False, name="a"), "a"))
    h = F.relu(F.add2(h, normalised(PF.convolution(h, 6, (3, 3), pad=(1, 1), with_bias=False, name="b"), "b")))
    return PF.affine(F.global_average_pooling(h), 4, name="c")


def stir(seed: int = 0) -> None:
    """Give batch normalization statistics and gains: negative, tiny, zero and large ones."""
    rng = np.random.RandomState(seed)
    for name, variable in nn.get_parameters(grad_only=False).items():
        if name.endswith("bn/gamma"):
            gains = rng.randn(*variable.shape)
            gains.flat[0], gains.flat[1], gains.flat[2] = 1e-6, 0.0, -0.7
            variable.d = gains
        elif name.endswith("bn/beta"):
            variable.d = 0.3 * rng.randn(*variable.shape)
        elif name.endswith("bn/mean"):
            variable.d = 0.2 * rng.randn(*variable.shape)
        elif name.endswith("bn/var"):
            variable.d = 0.05 + rng.rand(*variable.shape) ** 2
        elif name.endswith("/b"):
            variable.d = 0.2 * rng.randn(*variable.shape)


def pixels(count: int, shape: tuple[int, ...] = SHAPE, seed: int = 0) -> np.ndarray:
    """Images with smooth parts and extremes, uint8 (N, C, H, W)."""
    rng = np.random.RandomState(seed)
    images = rng.randint(0, 256, (count, *shape))
    images[:, :, ::2] = images[:, :, :1] // 2
    images[0], images[-1] = 0, 255
    return images.astype(np.uint8)


def prepare(images: np.ndarray) -> np.ndarray:
    """A mean and a scale of each colour, as ImageNet's."""
    mean = np.array([124, 116, 104], np.float32)[: images.shape[1], None, None]
    return (images.astype(np.float32) - mean) * np.float32(1 / 58)


def quantized(
    build=everything,
    weight: str = "uniform_delta_xmax",
    weight_bits: int = 4,
    activation: str = "uniform_delta_xmax",
    activation_bits: int = 4,
    *,
    batch: int = BATCH,
    kinds: tuple[str, ...] = KINDS,
    keep: tuple[str, ...] = ("input:8",),
    per_channel: bool = False,
) -> QuantizedNetwork:
    """A quantized network with stirred parameters, in the current scope, which is cleared."""
    nn.clear_parameters()
    np.random.seed(1)
    nn.random.prng = np.random.RandomState(1)
    y = build(nn.Variable((batch, *SHAPE)))
    stir()
    scheme = Parametric(
        weight=SiteSettings(weight, weight_bits, per_channel=per_channel),
        activation=SiteSettings(activation, activation_bits, step=4.0 / 2**activation_bits),
        kinds=kinds,
        keep=keep,
    )
    return quantize(y, scheme)


def trained(images: int = 40, **settings) -> Trained:
    """The same as the exporters take it."""
    network = quantized(**settings)
    return Trained("everything", network, network.policy(name="everything"), prepare, pixels(images))

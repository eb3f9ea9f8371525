"""The networks in PyTorch: ResNet-20 for small images and MobileNetV2, out of whatever layers a kind brings."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import nn


def relu(limit: float | None = None) -> nn.Module:
    """Return a rectifier that works in place, as nothing else reads its input; `limit` 6 gives ReLU6."""
    return nn.ReLU(inplace=True) if limit is None else nn.Hardtanh(0.0, limit, inplace=True)


@dataclasses.dataclass(frozen=True)
class Layers:
    """What a network is built of.

    Args:
        convolution: takes the arguments of `torch.nn.Conv2d`.
        first_convolution: the same, for the one that reads the images.
        affine: takes the numbers of inputs and outputs.
        activation: takes the upper limit of the rectifier, None for none.
        last_activation: the same, for the one activation that no convolution reads.
    """

    convolution: Callable[..., nn.Module] = nn.Conv2d
    first_convolution: Callable[..., nn.Module] = nn.Conv2d
    affine: Callable[[int, int], nn.Module] = nn.Linear
    activation: Callable[[float | None], nn.Module] = relu
    last_activation: Callable[[float | None], nn.Module] = relu


FLOAT = Layers()


def normalised(
    layers: Layers, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1, first: bool = False
) -> list[nn.Module]:
    """Return a convolution that keeps the size, or divides it by `stride`, and its batch normalization."""
    make = layers.first_convolution if first else layers.convolution
    convolution = make(inputs, outputs, kernel, stride=stride, padding=kernel // 2, groups=groups, bias=False)
    return [convolution, nn.BatchNorm2d(outputs)]


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut that subsamples and pads channels with zeros (option A)."""

    def __init__(self, layers: Layers, inputs: int, outputs: int, stride: int, last: bool) -> None:
        super().__init__()
        self.stride, self.added_channels = stride, outputs - inputs
        self.branch = nn.Sequential(
            *normalised(layers, inputs, outputs, 3, stride),
            layers.activation(None),
            *normalised(layers, outputs, outputs, 3),
        )
        self.activation = (layers.last_activation if last else layers.activation)(None)

    def forward(self, x: Any) -> Any:
        """Add the branch to the shortcut."""
        shortcut = x[:, :, :: self.stride, :: self.stride] if self.stride > 1 else x
        if self.added_channels:
            shortcut = nn.functional.pad(shortcut, (0, 0, 0, 0, 0, self.added_channels))
        return self.activation(self.branch(x).add_(shortcut))


def head(layers: Layers, features: int, classes: int) -> list[nn.Module]:
    """Return global average pooling and the classifier."""
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), layers.affine(features, classes)]


def resnet20(layers: Layers = FLOAT, classes: int = 10) -> nn.Module:
    """Return ResNet-20: three stages of three blocks with 16, 32 and 64 channels, as `nnmpq.models.resnet`.

    Source:
        He et al., "Deep Residual Learning for Image Recognition", section 4.2.
    """
    modules = [*normalised(layers, 3, 16, 3, first=True), layers.activation(None)]
    inputs = 16
    for stage, outputs in enumerate((16, 32, 64)):
        for block in range(3):
            stride = 2 if stage and not block else 1
            modules.append(BasicBlock(layers, inputs, outputs, stride, last=(stage, block) == (2, 2)))
            inputs = outputs
    return initialised(nn.Sequential(*modules, *head(layers, 64, classes)))


class InvertedResidual(nn.Module):
    """1x1 expansion, 3x3 depthwise, 1x1 linear projection; a sum where shape and stride allow it."""

    def __init__(self, layers: Layers, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        self.adds = stride == 1 and inputs == outputs
        hidden = inputs * expansion
        modules: list[nn.Module] = []
        if expansion != 1:
            modules += [*normalised(layers, inputs, hidden, 1), layers.activation(6.0)]
        modules += [*normalised(layers, hidden, hidden, 3, stride, groups=hidden), layers.activation(6.0)]
        self.branch = nn.Sequential(*modules, *normalised(layers, hidden, outputs, 1))

    def forward(self, x: Any) -> Any:
        """Run the branch, and add the input where it fits."""
        y = self.branch(x)
        return y.add_(x) if self.adds else y


# Expansion, channels, blocks, stride of the first block.
MOBILENET_STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


def mobilenet_v2(layers: Layers = FLOAT, classes: int = 1000) -> nn.Module:
    """Return MobileNetV2 of width 1 with ImageNet's strides (32 in all), without dropout.

    Source:
        Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", table 2.
    """
    modules = [*normalised(layers, 3, 32, 3, 2, first=True), layers.activation(6.0)]
    inputs = 32
    for expansion, outputs, blocks, stride in MOBILENET_STAGES:
        for block in range(blocks):
            modules.append(InvertedResidual(layers, inputs, outputs, 1 if block else stride, expansion))
            inputs = outputs
    modules += [*normalised(layers, inputs, 1280, 1), layers.last_activation(6.0)]
    return initialised(nn.Sequential(*modules, *head(layers, 1280, classes)))


def initialised(network: nn.Module) -> nn.Module:
    """Give the convolutions Glorot's uniform weights; affine layers keep PyTorch's +-1/sqrt(inputs)."""
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.xavier_uniform_(module.weight)
    return network


NETWORKS = {"resnet20": resnet20, "mobilenet_v2": mobilenet_v2}

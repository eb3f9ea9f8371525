"""Networks as plain float nnabla graphs; ``build`` makes one by name."""

from __future__ import annotations

from typing import Any, Callable, Union

import nnabla as nn
import nnabla.functions as F
import nnabla.initializer as I
import numpy as np

from nnmpq.files import nearest
from nnmpq.models.densenet import densenet40
from nnmpq.models.edmips_resnet import edmips_resnet18, edmips_resnet50
from nnmpq.models.googlenet import googlenet
from nnmpq.models.imagenet_resnet import resnet18, resnet34, resnet50
from nnmpq.models.inception_v3 import inception_v3
from nnmpq.models.mobilenet_v1 import mobilenet_v1
from nnmpq.models.mobilenet_v2 import mobilenet_v2
from nnmpq.models.preact_resnet import preact_resnet
from nnmpq.models.resnet import BLOCKS, SHORTCUTS, resnet
from nnmpq.models.vgg import vgg11, vgg16, vgg19


def _resnet_cifar(x: nn.Variable, classes: int, *, num_layers: int = 20, **options: Any) -> nn.Variable:
    if num_layers not in BLOCKS:
        raise ValueError(f"num_layers {num_layers}: one of {sorted(BLOCKS)} is needed")
    return resnet(x, classes, blocks=BLOCKS[num_layers], **options)


def _resnet_digits(x: nn.Variable, classes: int, **options: Any) -> nn.Variable:
    return resnet(x, classes, blocks=1, **options)


Logits = Union[nn.Variable, "tuple[nn.Variable, ...]"]

MODELS: dict[str, Callable[..., Logits]] = {
    "resnet": _resnet_cifar,
    "resnet_digits": _resnet_digits,
    "resnet18": resnet18,
    "resnet34": resnet34,
    "resnet50": resnet50,
    "edmips_resnet18": edmips_resnet18,
    "edmips_resnet50": edmips_resnet50,
    "preact_resnet": preact_resnet,
    "mobilenet_v1": mobilenet_v1,
    "mobilenet_v2": mobilenet_v2,
    "googlenet": googlenet,
    "inception_v3": inception_v3,
    "vgg11": vgg11,
    "vgg16": vgg16,
    "vgg19": vgg19,
    "densenet40": densenet40,
}


def build(
    name: str,
    x: nn.Variable,
    classes: int,
    *,
    test: bool = False,
    seed: int | None = None,
    scale_layer: bool = False,
    **options: Any,
) -> Logits:
    """Build a network by name in the current parameter scope.

    Args:
        name: a key of `MODELS`.
        x: images, shape (B, C, H, W).
        classes: number of classes.
        test: evaluation graph: batch normalization uses its running statistics.
        seed: seed of the initial weights; nnabla's own random numbers if None.
        scale_layer: multiply the logits by one learned scalar, "fc/scale_layer", at first 1.
        options: the model's own, such as ``num_layers`` and ``shortcut_type``.

    Returns:
        Logits, shape (B, classes); with ``auxiliary=True`` a tuple, those of the auxiliary heads after them.

    Raises:
        ValueError: no model has that name.

    Example:
        >>> build("resnet", nn.Variable((1, 3, 32, 32)), 10, num_layers=20).shape
        (1, 10)
    """
    if name not in MODELS:
        raise ValueError(f"no model {name!r}; the nearest is {nearest(name, MODELS)!r}, all are {sorted(MODELS)}")
    rng = None if seed is None else np.random.RandomState(seed)
    built = MODELS[name](x, classes, test=test, rng=rng, **options)
    if not scale_layer:
        return built
    return (_scaled(built[0]), *built[1:]) if isinstance(built, tuple) else _scaled(built)


def _scaled(y: nn.Variable) -> nn.Variable:
    with nn.parameter_scope("fc"):
        scale = nn.parameter.get_parameter_or_create("scale_layer", (1, 1), I.ConstantInitializer(1))
        return F.mul2(y, scale)


__all__ = ["BLOCKS", "MODELS", "SHORTCUTS", "build", "resnet"]

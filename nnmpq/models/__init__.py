"""Networks as plain float nnabla graphs; ``build`` makes one by name."""

from __future__ import annotations

import difflib
from typing import Any, Callable

import nnabla as nn
import numpy as np

from nnmpq.models.resnet import BLOCKS, SHORTCUTS, resnet


def _resnet_cifar(x: nn.Variable, classes: int, *, num_layers: int = 20, **options: Any) -> nn.Variable:
    if num_layers not in BLOCKS:
        raise ValueError(f"num_layers {num_layers}: one of {sorted(BLOCKS)} is needed")
    return resnet(x, classes, blocks=BLOCKS[num_layers], **options)


def _resnet_digits(x: nn.Variable, classes: int, *, num_layers: int = 8, **options: Any) -> nn.Variable:
    del num_layers  # the digits network has one depth
    return resnet(x, classes, blocks=1, **options)


MODELS: dict[str, Callable[..., nn.Variable]] = {
    "resnet": _resnet_cifar,
    "resnet_digits": _resnet_digits,
}


def build(
    name: str, x: nn.Variable, classes: int, *, test: bool = False, seed: int | None = None, **options: Any
) -> nn.Variable:
    """Build a network by name in the current parameter scope.

    Args:
        name: a key of `MODELS`.
        x: images, shape (B, C, H, W).
        classes: number of classes.
        test: evaluation graph: batch normalization uses its running statistics.
        seed: seed of the initial weights; nnabla's own random numbers if None.
        options: the model's own, such as ``num_layers`` and ``shortcut_type``.

    Returns:
        Logits, shape (B, classes).

    Raises:
        ValueError: no model has that name.

    Example:
        >>> build("resnet", nn.Variable((1, 3, 32, 32)), 10, num_layers=20).shape
        (1, 10)
    """
    if name not in MODELS:
        nearest = difflib.get_close_matches(name, MODELS, 1, 0)
        raise ValueError(f"no model {name!r}; the nearest is {nearest[0]!r}, all are {sorted(MODELS)}")
    rng = None if seed is None else np.random.RandomState(seed)
    return MODELS[name](x, classes, test=test, rng=rng, **options)


__all__ = ["BLOCKS", "MODELS", "SHORTCUTS", "build", "resnet"]

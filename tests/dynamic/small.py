"""A network with gates that is small enough for tests: a PreAct-ResNet-20 of 2 to 8 channels on small images."""

from __future__ import annotations

from typing import Any

import nnabla as nn
import nnabla.functions as F
import numpy as np

from nnmpq.dynamic.decide import greedy
from nnmpq.dynamic.network import Decide, DynamicNetwork, DynamicSettings, build_dynamic
from nnmpq.graph.schemes import Parametric, SiteSettings
from nnmpq.models import build

COSTS = np.array([0.0, 1.0])


def published_scheme(keep: tuple[str, ...] = ()) -> Parametric:
    """DoReFa weights, activations clipped to [0, 1]."""
    fixed = SiteSettings("pact", 4, 1 / 15, options={"xmax_limits": (1.0, 1.0)})
    return Parametric(weight=SiteSettings("dorefa"), activation=fixed, keep=keep)


def at_price(price: float = 0.0) -> Decide:
    """Greedy gates."""
    return lambda block, logits: greedy(logits, COSTS, F.constant(price, (1, 1)))


def network(
    batch: int = 6, *, decide: Decide | None = None, test: bool = True, seed: int = 0, **options: Any
) -> DynamicNetwork:
    """Build one in the current scope, cleared first; gates are random enough to choose differently by sample."""
    nn.clear_parameters()
    images = nn.Variable((batch, 1, 8, 8))
    images.d = np.random.RandomState(seed).randn(*images.shape)
    y = build("preact_resnet", images, 4, test=test, num_layers=20, width_multiplier=0.25, seed=seed)
    settings = DynamicSettings(published_scheme(options.pop("keep", ())), **options)
    made = build_dynamic(y, settings, decide or at_price(), test=test, rng=np.random.RandomState(seed))
    rng = np.random.RandomState(seed)
    for name, parameter in nn.get_parameters(grad_only=False).items():
        if "/decide/" in name and name.endswith("/W"):
            parameter.d = 5 * rng.randn(*parameter.shape)
    return made


def choices(made: DynamicNetwork) -> np.ndarray:
    """What the gates decide for the images, shape (B, N)."""
    every = [block.decision.chosen for block in made.blocks]
    F.sink(*every).forward()
    return np.stack([chosen.d.argmax(axis=1) for chosen in every], axis=1)

"""The keys of a search: method, widths, limits, and how mixtures of widths are steered."""

from __future__ import annotations

from typing import Any

from nnmpq.config import checks
from nnmpq.config.choices import ACTIVATION_CANDIDATES, OPTIMIZERS, WEIGHT_CANDIDATES
from nnmpq.config.keys import group
from nnmpq.config.values import BOOLEAN, INTEGER, INTEGERS, NUMBER, TEXT, optional

WIDTHS = (2, 3, 4, 5, 6, 7, 8)

_search = group("search")
_limit = group("limits of a search")
_mixture = group("mixtures of widths")


def _ascending(values: tuple[int, ...]) -> str | None:
    if values and list(values) == sorted(set(values)) and 1 <= values[0] and values[-1] <= 16:
        return None
    near = ", ".join(str(bits) for bits in sorted({min(max(bits, 1), 16) for bits in values})) or "2, 4, 8"
    return f"must be ascending widths from 1 to 16 bits; nearest valid: {near}"


def _limited(meaning: str) -> Any:
    return _limit(None, optional(NUMBER), f"{meaning}; none: no limit", checks.above(0))


METHOD = _search(None, optional(TEXT), "how search.py finds a policy: uniform, learned, edmips, sensitivity, ...")
WEIGHT_WIDTHS = _search(WIDTHS, INTEGERS, "widths that weights and biases may get, in bits", _ascending)
ACTIVATION_WIDTHS = _search(WIDTHS, INTEGERS, "widths that activations may get, in bits", _ascending)
NEAREST_UNIFORM = _search(
    False, BOOLEAN, "uniform: as many tensors as the limits allow get the next width, instead of all the same"
)
SCORE = _search(
    "kl", TEXT, "sensitivity: what harm is measured by: snr, kl, gradient, fisher, hutchinson, learned_step"
)
SCORE_IMAGES = _search(512, INTEGER, "sensitivity: training images that it is measured on", checks.at_least(1))

WEIGHTS_KIB = _limited("all weights and biases, KiB")
ACTIVATIONS_SUM_KIB = _limited("all counted activations together, KiB per image")
ACTIVATIONS_MAX_KIB = _limited("the largest counted activation, KiB per image")
BITOPS = _limited("sum over all layers of MACs * weight bits * activation bits, per image")
MEAN_BITS = _limited("sqrt(BitOps / MACs), all layers")

WEIGHT_CANDIDATE = _mixture(
    "uniform_b_xmax",
    TEXT,
    f"quantizer of a weight at each width: {', '.join(WEIGHT_CANDIDATES)}",
    checks.one_of(WEIGHT_CANDIDATES),
)
ACTIVATION_CANDIDATE = _mixture(
    "uniform_b_xmax",
    TEXT,
    f"quantizer of an activation at each width: {', '.join(ACTIVATION_CANDIDATES)}",
    checks.one_of(ACTIVATION_CANDIDATES),
)
COMPLEXITY_WEIGHT = _mixture(
    0.047,
    NUMBER,
    "weight of the expected BitOps a MAC in the loss; without limits it decides what the policy costs",
    checks.at_least(0),
)
CD = _mixture(
    None,
    optional(NUMBER),
    "the published weight, of complexity in units of the first quantized layer's; instead of complexity_weight",
    checks.at_least(0),
)
MULTIPLIER_RATE = _mixture(
    0.2,
    NUMBER,
    "with limits: step of the logarithm of each limit's multiplier, per update and relative excess",
    checks.at_least(0),
)
ENTROPY_WEIGHT = _mixture(
    0.1,
    NUMBER,
    "weight of the shares' entropy at the end of the search; it rises from 0 in the second half",
    checks.at_least(0),
)
ALPHA_OPTIMIZER = _mixture(
    "adam",
    TEXT,
    "optimizer of the shares: adam, or momentum as published, which needs some ten thousand updates",
    checks.one_of(OPTIMIZERS),
)
ALPHA_LEARNING_RATE = _mixture(0.01, NUMBER, "first learning rate of the shares", checks.above(0))
ALPHA_LEARNING_RATE_DECAY = _mixture(
    1.0, NUMBER, "factor on it at each milestone; 0.1 as published", checks.between(0, 1)
)
ALPHA_WEIGHT_DECAY = _mixture(0.0, NUMBER, "weight decay of the shares; 1e-4 as published", checks.at_least(0))

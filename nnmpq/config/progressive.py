"""The keys of a progressive search and of its baselines, by their published names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nnmpq.config import checks
from nnmpq.config.errors import InvalidValue
from nnmpq.config.keys import group
from nnmpq.config.values import INTEGER, NUMBER, TEXT, optional

if TYPE_CHECKING:
    from nnmpq.config.experiment import Experiment

ARCHTYPES = ("origin", "quant")
INFOS = ("hession", "acc", "loss")

_progressive = group("progressive search")

ARCHTYPE = _progressive(
    None,
    optional(TEXT),
    "ProQHA's baselines: origin (float) or quant (DoReFa weights, PACT activations, both of k_bits); "
    "none: w_quantize and a_quantize decide",
    checks.one_of(ARCHTYPES),
)
K_BITS = _progressive(8, INTEGER, "bits of every quantizer at the start, and of archtype = quant", checks.between(2, 8))
RATIO = _progressive(
    0.5, NUMBER, "share of the quantizers that a candidate lowers", checks.between(0, 1), checks.above(0)
)
INTERVAL = _progressive(1, INTEGER, "bits that they are lowered by: published are 1, 2 and 4", checks.between(1, 6))
LAM = _progressive(32, INTEGER, "candidates a step; 500 as published", checks.at_least(1))
STEP = _progressive(25, INTEGER, "most steps", checks.at_least(1))
SEARCH_EPOCHS = _progressive(2, INTEGER, "epochs of training after each step; 30 as published", checks.at_least(0))
INFO = _progressive(
    "hession",
    TEXT,
    "what chooses among candidates: hession (so published; it is the gradient's L1 norm), acc (validation accuracy) or "
    "loss (cross entropy on the calibration batch)",
    checks.one_of(INFOS),
)


def check_archtype(experiment: Experiment) -> None:
    """Check that nothing else decides what ``archtype`` decides.

    Raises:
        InvalidValue: naming the key to change.
    """
    for key in ("w_quantize", "a_quantize"):
        value = getattr(experiment, key)
        if experiment.archtype is not None and value is not None:
            reason = f"archtype = {experiment.archtype} already decides this; leave one of the two out"
            raise InvalidValue(key, value, reason)

"""The keys of GMPQ, by their published names: the teacher, what its attribution counts, calibrated ranges."""

from __future__ import annotations

from nnmpq.config import checks
from nnmpq.config.keys import group
from nnmpq.config.values import BOOLEAN, NUMBER, TEXT, optional

_gmpq = group("gmpq")

TEACHER = _gmpq(
    None,
    optional(TEXT),
    "float network whose attribution the search keeps: an .h5, or NAME/best.h5 for experiment NAME, its config.cfg "
    "beside it; none: one of the same network is trained first",
)
AUX_WEIGHT = _gmpq(40.0, NUMBER, "weight of the attribution's distance in the loss", checks.at_least(0))
PNORM = _gmpq(
    0.0, NUMBER, "power of the teacher's attribution; 0: by the capacity of the expected bits", checks.at_least(0)
)
PRODUCT = _gmpq(24.0, NUMBER, "weight bits times activation bits at which the power by capacity is 1", checks.above(0))
CALIBRATE = _gmpq(
    False,
    BOOLEAN,
    "with a weightfile and a policy: ranges at the start by the KL divergence of histograms below 5 bits, by the "
    "largest magnitude above",
)

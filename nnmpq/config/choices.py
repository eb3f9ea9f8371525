"""The names that a ``.cfg`` may use, and what they stand for."""

from __future__ import annotations

import attrs


@attrs.frozen
class Choice:
    """What a value of ``w_quantize`` or ``a_quantize`` stands for.

    Args:
        quantizer: its name in `nnmpq.quantizers.QUANTIZERS`.
        learn: whether its parameters are learned.
        family: "uniform", "pow2", "midrise", "dorefa", "pact" or "sign"; decides which bits are possible.
    """

    quantizer: str
    learn: bool
    family: str

    @property
    def learns_bits(self) -> bool:
        """Whether the number of bits can change while training."""
        return self.learn and self.family in ("uniform", "pow2")


_STATIC_AND_PARAMETRIC = {
    "fp": Choice("uniform_b_xmax", False, "uniform"),
    "pow2": Choice("pow2_b_xmax", False, "pow2"),
    "parametric_fp_b_xmax": Choice("uniform_b_xmax", True, "uniform"),
    "parametric_fp_d_xmax": Choice("uniform_delta_xmax", True, "uniform"),
    "parametric_fp_d_b": Choice("uniform_delta_b", True, "uniform"),
    "parametric_pow2_b_xmax": Choice("pow2_b_xmax", True, "pow2"),
    "parametric_pow2_b_xmin": Choice("pow2_b_xmin", True, "pow2"),
    "parametric_pow2_xmin_xmax": Choice("pow2_xmin_xmax", True, "pow2"),
}

WEIGHT_QUANTIZERS: dict[str, Choice] = {
    **_STATIC_AND_PARAMETRIC,
    "gaussian": Choice("gaussian", False, "midrise"),
    "dorefa": Choice("dorefa", False, "dorefa"),
    "sign_mean": Choice("sign_mean", False, "sign"),
}

ACTIVATION_QUANTIZERS: dict[str, Choice] = {
    **{f"{name}_relu": choice for name, choice in _STATIC_AND_PARAMETRIC.items()},
    "half_wave_gaussian": Choice("half_wave_gaussian", False, "uniform"),
    "pact": Choice("pact", True, "pact"),
}

ARCHITECTURES = ("resnet", "resnet_digits")
RESNET_DEPTHS = (20, 32, 44, 56, 110)
DATASETS = ("cifar10", "digits")
SHORTCUT_TYPES = ("", "b", "c")
OPTIMIZERS = ("momentum", "adam")
AUGMENTATIONS = ("crop_flip", "none")
ACTIVATION_TARGETS = ("max", "sum")
ACTIVATION_SITES = ("input", "relu", "sum", "branch", "pool", "linear", "nonlinearity")

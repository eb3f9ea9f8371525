"""The names that a ``.cfg`` may use, and what they stand for."""

from __future__ import annotations

from typing import Any

import attrs


@attrs.frozen
class Choice:
    """What a value of ``w_quantize`` or ``a_quantize`` stands for.

    Args:
        quantizer: its name in `nnmpq.quantizers.QUANTIZERS`.
        learn: whether its parameters are learned.
        family: "uniform", "pow2", "midrise", "dorefa", "pact", "sign" or "symmetric"; decides which bits are possible.
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
    "haq": Choice("haq", False, "symmetric"),
}

ACTIVATION_QUANTIZERS: dict[str, Choice] = {
    **{f"{name}_relu": choice for name, choice in _STATIC_AND_PARAMETRIC.items()},
    "half_wave_gaussian": Choice("half_wave_gaussian", False, "uniform"),
    "pact": Choice("pact", True, "pact"),
}

_SCALE: dict[str, tuple[Any, ...]] = {"scale_layer": ()}
_WIDTH: dict[str, tuple[Any, ...]] = {"width_multiplier": (), **_SCALE}
_FOUR_STAGES: dict[str, tuple[Any, ...]] = {"stem": ("imagenet", "cifar", "cifar_pooled"), **_WIDTH}
_MOBILE: dict[str, tuple[Any, ...]] = {"stem": ("imagenet", "cifar"), **_WIDTH}
_INCEPTION: dict[str, tuple[Any, ...]] = {"preactivation": (), "auxiliary": (), **_SCALE}
_VGG: dict[str, tuple[Any, ...]] = {"hidden": (), **_WIDTH}

# Of each architecture the keys that it takes, and their values; without any, whatever the key allows.
ARCHITECTURES: dict[str, dict[str, tuple[Any, ...]]] = {
    "resnet": {"num_layers": (20, 32, 44, 56, 110), "shortcut_type": ("", "b", "c"), **_SCALE},
    "resnet_digits": {"shortcut_type": ("", "b", "c"), **_SCALE},
    "resnet18": _FOUR_STAGES,
    "resnet34": _FOUR_STAGES,
    "resnet50": _FOUR_STAGES,
    "edmips_resnet18": _FOUR_STAGES,
    "edmips_resnet50": _FOUR_STAGES,
    "preact_resnet": {
        "num_layers": (20, 32, 44, 56, 110, 182),
        "shortcut_type": ("", "subsample", "conv"),
        **_WIDTH,
    },
    "mobilenet_v1": _MOBILE,
    "mobilenet_v2": _MOBILE,
    "googlenet": _INCEPTION,
    "inception_v3": _INCEPTION,
    "vgg11": _VGG,
    "vgg16": _VGG,
    "vgg19": _VGG,
    "densenet40": _SCALE,
}
DATASETS = (
    *("cifar10", "cifar100", "digits", "mnist", "fashion_mnist"),
    *("imagenet", "imagenette", "tiny_imagenet", "flowers102", "oxford_iiit_pet", "stanford_cars", "fgvc_aircraft"),
    *("food101", "image_folder"),
)
# Their images stay in files, and are brought to the network's size as they are read.
FILE_DATASETS = DATASETS[DATASETS.index("imagenet") :]
BOX_DATASETS = ("stanford_cars", "fgvc_aircraft")
COLOURS = ("cars", "cifar10", "half", "imagenet")
OPTIMIZERS = ("momentum", "adam")
AUGMENTATIONS = ("crop_flip", "none", "random_resized_crop")
ACTIVATION_TARGETS = ("max", "sum")
# Quantizers that the candidates of a mixture can be.
WEIGHT_CANDIDATES = ("uniform_b_xmax", "gaussian", "haq")
ACTIVATION_CANDIDATES = ("uniform_b_xmax", "half_wave_gaussian", "pact")
ACTIVATION_SITES = ("input", "relu", "sum", "branch", "pool", "linear", "nonlinearity")

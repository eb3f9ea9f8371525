"""An experiment: everything that decides what a run computes, checked."""

from __future__ import annotations

from typing import Any

import attrs

from nnmpq.config import checks, dynamic, gmpq, progressive, search
from nnmpq.config.choices import (
    ACTIVATION_SITES,
    ACTIVATION_TARGETS,
    ARCHITECTURES,
    AUGMENTATIONS,
    COLOURS,
    DATASETS,
    OPTIMIZERS,
)
from nnmpq.config.errors import InvalidValue
from nnmpq.config.keys import group, scale_milestones
from nnmpq.config.values import BOOLEAN, INTEGER, INTEGERS, NUMBER, TEXT, WORDS, optional

PUBLISHED_EPOCHS = 160
PUBLISHED_MILESTONES = (80, 120)
BITS = checks.between(1, 16)
POSITIVE = checks.above(0)

_network = group("network")
_data = group("data")
_start = group("start")
_training = group("training")
_quantizers = group("quantizers")
_weights = group("weight quantizer")
_activations = group("activation quantizer")
_budget = group("budget")


def _name(instance: Any, attribute: attrs.Attribute, value: Any) -> None:
    reason = checks.folder_name(value)
    if reason is not None:
        raise InvalidValue(attribute.name, value, reason)


def _default_milestones(experiment: Experiment) -> tuple[int, ...]:
    # Called before the validators: a bad `epochs` is theirs to report.
    if not INTEGER.accepts(experiment.epochs):
        return PUBLISHED_MILESTONES
    return scale_milestones(PUBLISHED_MILESTONES, PUBLISHED_EPOCHS, experiment.epochs)


@attrs.frozen(field_transformer=dynamic.own_first)
class Experiment(dynamic.GateKeys):
    """One experiment: a section of a ``.cfg`` with everything that it leaves at its default.

    Args:
        name: the section; also the name of the run folder.
        **keys: the keys of the ``.cfg``, by their names; `nnmpq.config.document.describe_keys` explains each.

    Raises:
        InvalidValue: a key has a value that it cannot have, or that another key rules out.

    Example:
        >>> Experiment("SHORT", epochs=40).milestones
        (20, 30)
    """

    name: str = attrs.field(validator=_name)
    arch: str = _network(
        "resnet",
        TEXT,
        f"architecture: {', '.join(ARCHITECTURES)}; resnet is CIFAR's, resnet_digits is for 8x8 images",
        checks.one_of(ARCHITECTURES),
    )
    num_layers: int = _network(
        20, INTEGER, "layers of resnet and preact_resnet: 20, 32, 44, 56, 110; or 182 of the latter"
    )
    shortcut_type: str = _network(
        "",
        TEXT,
        "shortcuts: empty = without parameters, padded with zeros; resnet: b = 1x1 convolution where channels change, "
        "c = always; preact_resnet: subsample or conv",
    )
    stem: str = _network(
        "imagenet",
        TEXT,
        "form of the first layers, and in MobileNets strides, of networks for ImageNet: imagenet, cifar (images of "
        "32 pixels) or, ResNets alone, cifar_pooled",
    )
    width_multiplier: float = _network(
        1.0,
        NUMBER,
        "factor on the channels, 4 in the preact_resnet for CIFAR-100; no option of resnet, Inceptions and densenet40",
        POSITIVE,
    )
    preactivation: bool = _network(
        True, BOOLEAN, "googlenet, inception_v3: normalization before each convolution, as EdMIPS has it; else after it"
    )
    auxiliary: bool = _network(
        False, BOOLEAN, "googlenet, inception_v3: train with the auxiliary heads; cost and policy leave them out"
    )
    hidden: tuple[int, ...] = _network(
        (4096, 4096),
        INTEGERS,
        "vgg11, vgg16, vgg19: outputs of each hidden fully connected layer; empty: none, as usual for CIFAR",
        checks.each(checks.at_least(1)),
    )
    scale_layer: bool = _network(False, BOOLEAN, "multiply the logits by one learned factor")

    dataset: str = _data("cifar10", TEXT, f"data set: {', '.join(DATASETS)}", checks.one_of(DATASETS))
    data_dir: str | None = _data(
        None, optional(TEXT), "folder of the data set; none: the environment variable NNMPQ_DATA"
    )
    augmentation: str = _data(
        "crop_flip",
        TEXT,
        "crop_flip (pad 4, random crop, mirror), none or, for images in files, random_resized_crop",
        checks.one_of(AUGMENTATIONS),
    )
    image_size: int | None = _data(
        None,
        optional(INTEGER),
        "height and width that images in files are brought to; none: the set's usual, mostly 224",
        checks.at_least(8),
    )
    resize: int | None = _data(
        None,
        optional(INTEGER),
        "short side of images in files before a window is cut out; none: the set's usual, mostly image_size * 256/224",
        checks.at_least(8),
    )
    colour: str | None = _data(
        None,
        optional(TEXT),
        "mean and deviation of the pixels: cars, cifar10, half (-1 to 1) or imagenet; none: the set's usual",
        checks.one_of(COLOURS),
    )
    crop_to_box: bool = _data(False, BOOLEAN, "cut to the publisher's boxes first; for stanford_cars and fgvc_aircraft")
    corrupt_share: float = _data(
        0.01,
        NUMBER,
        "share of the training images in files that may be unreadable and are skipped",
        checks.between(0, 1),
    )
    validation_images: int = _data(
        5000, INTEGER, "training images set aside; they pick the best epoch", checks.at_least(1)
    )
    train_images: int | None = _data(None, optional(INTEGER), "use only so many training images", checks.at_least(1))
    test_images: int | None = _data(None, optional(INTEGER), "use only so many test images", checks.at_least(1))

    weightfile: str | None = _start(
        None,
        optional(TEXT),
        ".h5 loaded before training: a path, or NAME/params_best.h5 for the best of experiment NAME",
    )
    policy: str | None = _start(
        None, optional(TEXT), ".yaml that gives every tensor its bits; instead of w_quantize and a_quantize"
    )
    seed: int = _start(313, INTEGER, "seed of everything random", checks.between(0, 2**31 - 1))

    epochs: int = _training(PUBLISHED_EPOCHS, INTEGER, "epochs of training", checks.at_least(1))
    batch_size: int = _training(128, INTEGER, "images per update", checks.at_least(1))
    optimizer: str | None = _training(
        None, optional(TEXT), "momentum or adam; none: momentum", checks.one_of(OPTIMIZERS)
    )
    initial_learning_rate: float = _training(0.1, NUMBER, "learning rate of the first epoch", POSITIVE)
    milestones: tuple[int, ...] = _training(
        attrs.Factory(_default_milestones, takes_self=True),
        INTEGERS,
        "epochs after which the learning rate falls",
        default_text="1/2 and 3/4 of epochs: 80, 120 of 160",
    )
    learning_rate_decay: float = _training(
        0.1, NUMBER, "factor on the learning rate at each milestone", checks.between(0, 1)
    )
    momentum: float = _training(0.9, NUMBER, "momentum of the optimizer momentum", checks.below_one)
    weight_decay: float = _training(2e-4, NUMBER, "weight decay of everything but the quantizers", checks.at_least(0))
    quantizer_learning_rate: float | None = _training(
        None,
        optional(NUMBER),
        "first learning rate of the quantizer parameters; none: initial_learning_rate",
        POSITIVE,
    )
    quantizer_weight_decay: float = _training(
        0.0, NUMBER, "weight decay of the quantizer parameters", checks.at_least(0)
    )
    finetune_epochs: int | None = _training(
        None,
        optional(INTEGER),
        "last epochs, with bits, steps and ranges fixed; none: 10 with a target, else 0",
        checks.at_least(0),
    )
    finetune_learning_rate: float | None = _training(
        None, optional(NUMBER), "its learning rate; none: that of the last epoch before", POSITIVE
    )

    faithful: bool = _quantizers(
        False,
        BOOLEAN,
        "the published code's arithmetic, to float precision; false: the grid that is exported",
    )
    per_channel: bool = _quantizers(False, BOOLEAN, "one grid per output channel of each weight")
    activation_sites: tuple[str, ...] = _quantizers(
        ("relu",),
        WORDS,
        "which activations a_quantize covers: input, relu, sum, branch, pool, linear, nonlinearity",
        checks.each(checks.one_of(ACTIVATION_SITES)),
    )
    keep: tuple[str, ...] = _quantizers(
        (),
        WORDS,
        "patterns of layers or tensors kept in float, or at so many bits with PATTERN:BITS",
        checks.each(checks.keep_pattern),
    )

    w_quantize: str | None = _weights(
        None, optional(TEXT), "quantizer of the weights; none: float", checks.weight_quantizer
    )
    w_bitwidth: int = _weights(4, INTEGER, "bits at the start, or throughout where they are not learned", BITS)
    w_bitwidth_min: int = _weights(2, INTEGER, "fewest bits", BITS)
    w_bitwidth_max: int = _weights(8, INTEGER, "most bits, where bits are a parameter", BITS)
    w_stepsize: float = _weights(
        2**-3, NUMBER, "step at the start; with a weightfile it follows from the weights", POSITIVE
    )
    w_stepsize_min: float = _weights(2**-8, NUMBER, "smallest step", POSITIVE)
    w_stepsize_max: float = _weights(1.0, NUMBER, "largest step", POSITIVE)
    w_xmin_min: float = _weights(2**-16, NUMBER, "smallest least magnitude (power of two)", POSITIVE)
    w_xmin_max: float = _weights(127.0, NUMBER, "largest least magnitude (power of two)", POSITIVE)
    w_xmax_min: float = _weights(2**-8, NUMBER, "smallest range", POSITIVE)
    w_xmax_max: float = _weights(127.0, NUMBER, "largest range", POSITIVE)

    a_quantize: str | None = _activations(
        None, optional(TEXT), "quantizer of the activations; none: float", checks.activation_quantizer
    )
    a_bitwidth: int = _activations(4, INTEGER, "bits at the start, or throughout where they are not learned", BITS)
    a_bitwidth_min: int = _activations(1, INTEGER, "fewest bits", BITS)
    a_bitwidth_max: int = _activations(8, INTEGER, "most bits, where bits are a parameter", BITS)
    a_stepsize: float = _activations(2**-3, NUMBER, "step at the start", POSITIVE)
    a_stepsize_min: float = _activations(2**-8, NUMBER, "smallest step", POSITIVE)
    a_stepsize_max: float = _activations(1.0, NUMBER, "largest step", POSITIVE)
    a_xmin_min: float = _activations(2**-14, NUMBER, "smallest least magnitude (power of two)", POSITIVE)
    a_xmin_max: float = _activations(255.0, NUMBER, "largest least magnitude (power of two)", POSITIVE)
    a_xmax_min: float = _activations(2**-8, NUMBER, "smallest range", POSITIVE)
    a_xmax_max: float = _activations(255.0, NUMBER, "largest range", POSITIVE)

    target_weight_kbytes: float = _budget(-1.0, NUMBER, "limit for all weights and biases, KiB; -1: none", checks.limit)
    target_activation_kbytes: float = _budget(
        -1.0, NUMBER, "limit for the activations, KiB per image; -1: none", checks.limit
    )
    target_activation_type: str = _budget(
        "max",
        TEXT,
        "what that limit counts: the largest activation (max) or all of them (sum)",
        checks.one_of(ACTIVATION_TARGETS),
    )
    initial_cost_lambda2: float = _budget(
        0.1, NUMBER, "weight of the squared excess of the weights, per KiB^2", checks.at_least(0)
    )
    initial_cost_lambda3: float = _budget(
        0.1, NUMBER, "weight of the squared excess of the activations, per KiB^2", checks.at_least(0)
    )

    method: str | None = search.METHOD
    weight_widths: tuple[int, ...] = search.WEIGHT_WIDTHS
    activation_widths: tuple[int, ...] = search.ACTIVATION_WIDTHS
    nearest_uniform: bool = search.NEAREST_UNIFORM
    score: str = search.SCORE
    score_images: int = search.SCORE_IMAGES
    weights_kib: float | None = search.WEIGHTS_KIB
    activations_sum_kib: float | None = search.ACTIVATIONS_SUM_KIB
    activations_max_kib: float | None = search.ACTIVATIONS_MAX_KIB
    bitops: float | None = search.BITOPS
    mean_bits: float | None = search.MEAN_BITS
    weight_candidate: str = search.WEIGHT_CANDIDATE
    activation_candidate: str = search.ACTIVATION_CANDIDATE
    complexity_weight: float = search.COMPLEXITY_WEIGHT
    cd: float | None = search.CD
    multiplier_rate: float = search.MULTIPLIER_RATE
    entropy_weight: float = search.ENTROPY_WEIGHT
    alpha_optimizer: str = search.ALPHA_OPTIMIZER
    alpha_learning_rate: float = search.ALPHA_LEARNING_RATE
    alpha_learning_rate_decay: float = search.ALPHA_LEARNING_RATE_DECAY
    alpha_weight_decay: float = search.ALPHA_WEIGHT_DECAY

    archtype: str | None = progressive.ARCHTYPE
    k_bits: int = progressive.K_BITS
    ratio: float = progressive.RATIO
    interval: int = progressive.INTERVAL
    lam: int = progressive.LAM
    step: int = progressive.STEP
    search_epochs: int = progressive.SEARCH_EPOCHS
    info: str = progressive.INFO

    teacher: str | None = gmpq.TEACHER
    aux_weight: float = gmpq.AUX_WEIGHT
    pnorm: float = gmpq.PNORM
    product: float = gmpq.PRODUCT
    calibrate: bool = gmpq.CALIBRATE

    def __attrs_post_init__(self) -> None:
        checks.check_relations(self)

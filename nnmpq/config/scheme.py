"""From an experiment to the scheme that quantizes its network and the budget that it must meet."""

from __future__ import annotations

from typing import Any

from nnmpq.budget import Budget
from nnmpq.config.choices import ACTIVATION_QUANTIZERS, WEIGHT_QUANTIZERS, Choice
from nnmpq.config.errors import InvalidValue
from nnmpq.config.experiment import Experiment
from nnmpq.graph.schemes import FromPolicy, Parametric, SiteSettings
from nnmpq.graph.settings import start_step
from nnmpq.policy import Policy, PolicyError

# Where PACT's clip starts in ProQHA's code.
FIRST_CLIP = 10.0


def build_scheme(experiment: Experiment, *, fused: bool = True) -> FromPolicy | Parametric:
    """Return the scheme that an experiment describes.

    Args:
        experiment: ``policy``, or ``w_quantize`` and ``a_quantize`` with their limits.
        fused: use the fused quantizer cores, else standard functions.

    Returns:
        The policy's scheme where there is a policy; else one with learned, static or no quantizers.

    Raises:
        InvalidValue: the policy cannot be read.

    Example:
        >>> scheme = build_scheme(Experiment("X", w_quantize="parametric_fp_d_xmax"))
        >>> scheme.weight_settings.quantizer, scheme.activation_settings
        ('uniform_delta_xmax', None)
    """
    if experiment.policy is not None:
        try:
            policy = Policy.load(experiment.policy)
        except PolicyError as error:
            raise InvalidValue("policy", experiment.policy, str(error)) from error
        return FromPolicy(policy, step=experiment.a_stepsize, fused=fused, faithful=experiment.faithful)
    weight = activation = None
    if experiment.archtype == "quant":
        weight, activation = (published_settings(name, experiment.k_bits) for name in ("dorefa", "pact"))
    if experiment.w_quantize is not None:
        weight = _settings(experiment, "w", WEIGHT_QUANTIZERS[experiment.w_quantize])
    if experiment.a_quantize is not None:
        activation = _settings(experiment, "a", ACTIVATION_QUANTIZERS[experiment.a_quantize])
    return Parametric(
        weight=weight,
        activation=activation,
        kinds=experiment.activation_sites,
        keep=experiment.keep,
        fused=fused,
    )


def published_settings(quantizer: str, bits: int, least: int | None = None) -> SiteSettings:
    """Return how ProQHA's quantizers start: PACT's clip at 10, with the gradient of automatic differentiation.

    Args:
        quantizer: "dorefa", "pact", or any other, which starts with the grid to about 2.
        bits: at the start, and most.
        least: fewest bits, where they change at run time; None pins them.
    """
    step = FIRST_CLIP / (2**bits - 1) if quantizer == "pact" else start_step(bits)
    limits = (float(bits if least is None else least), float(bits))
    return SiteSettings(quantizer, bits, step, options={"bits_limits": limits, "residual_gradient": True})


def budget_of(experiment: Experiment) -> Budget:
    """Return the limits of an experiment, in KiB = 1024 bytes.

    Example:
        >>> budget_of(Experiment("X", w_quantize="fp", target_weight_kbytes=70.1)).limits()
        {'weights_kib': 70.1}
    """
    activations = _limit(experiment.target_activation_kbytes)
    largest = experiment.target_activation_type == "max"
    return Budget(
        weights_kib=_limit(experiment.target_weight_kbytes),
        activations_max_kib=activations if largest else None,
        activations_sum_kib=None if largest else activations,
    )


def _limit(target: float) -> float | None:
    return target if target > 0 else None


def _settings(experiment: Experiment, prefix: str, choice: Choice) -> SiteSettings:
    """Return what one role's keys say; a quantizer takes of the options those that it has."""

    def key(name: str) -> Any:
        return getattr(experiment, f"{prefix}_{name}")

    def limits(name: str) -> tuple[float, float]:
        return (float(key(f"{name}_min")), float(key(f"{name}_max")))

    bits = key("bitwidth")
    options = {
        # What is not learned keeps the bits it is given, whatever the limits for learning are.
        "bits_limits": limits("bitwidth") if choice.learns_bits else (float(bits), float(bits)),
        "step_limits": limits("stepsize"),
        "xmin_limits": limits("xmin"),
        "xmax_limits": limits("xmax"),
        "faithful": experiment.faithful,
        "learn": choice.learn,
        # Power-of-two weights have no zero; activations are cut off at it.
        "with_zero": prefix == "a",
    }
    return SiteSettings(
        quantizer=choice.quantizer,
        bits=bits,
        step=key("stepsize"),
        # The published rule: only weights that were trained before say what step suits them.
        step_from_data=experiment.weightfile is not None,
        options=options,
        per_channel=experiment.per_channel,
    )

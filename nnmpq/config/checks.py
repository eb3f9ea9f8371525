"""Rules for one key, and rules between the keys of an experiment."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Callable

import attrs

from nnmpq.config.choices import ACTIVATION_QUANTIZERS, ARCHITECTURES, WEIGHT_QUANTIZERS, Choice
from nnmpq.config.data_checks import check_data
from nnmpq.config.errors import InvalidValue, did_you_mean

if TYPE_CHECKING:
    from nnmpq.config.experiment import Experiment

Rule = Callable[[Any], "str | None"]
_NAME = re.compile(r"[A-Za-z0-9_][\w.+-]*", re.ASCII)


def at_least(lowest: float) -> Rule:
    """Return the rule value >= lowest."""
    return lambda value: None if value >= lowest else f"must be at least {lowest:g}; nearest valid: {lowest:g}"


def above(lowest: float) -> Rule:
    """Return the rule value > lowest."""
    return lambda value: None if value > lowest else f"must be greater than {lowest:g}"


def between(lowest: float, highest: float) -> Rule:
    """Return the rule lowest <= value <= highest."""

    def check(value: float) -> str | None:
        if lowest <= value <= highest:
            return None
        near = min(max(value, lowest), highest)
        return f"must be between {lowest:g} and {highest:g}; nearest valid: {near:g}"

    return check


def below_one(value: float) -> str | None:
    """Check 0 <= value < 1."""
    return None if 0 <= value < 1 else "must be at least 0 and less than 1"


def limit(value: float) -> str | None:
    """Check a limit of the budget: above zero, or -1 for none."""
    return None if value > 0 or value == -1 else "must be greater than 0, or -1 for no limit; nearest valid: -1"


def one_of(choices: Iterable[str]) -> Rule:
    """Return the rule that a word is one of the choices."""
    known = tuple(choices)

    def check(value: str) -> str | None:
        if value in known:
            return None
        return f"must be one of {', '.join(word or '(empty)' for word in known)}{did_you_mean(value, known)}"

    return check


def each(rule: Rule) -> Rule:
    """Return the rule that every item of a tuple keeps a rule."""
    return lambda values: next((reason for reason in map(rule, values) if reason is not None), None)


def factor(value: str) -> str | None:
    """Accept a number above 0 as a word."""
    try:
        good = 0 < float(value) < float("inf")
    except ValueError:
        good = False
    return None if good else f"{value} is no number above 0; nearest valid: 0.1"


def folder_name(value: str) -> str | None:
    """Check the name of an experiment, which is also the name of its run folder."""
    if _NAME.fullmatch(value):
        return None
    return "also names a folder: only letters, digits and _ . + -, beginning with a letter, digit or _"


def keep_pattern(value: str) -> str | None:
    """Check PATTERN or PATTERN:BITS."""
    pattern, colon, bits = value.partition(":")
    if pattern and (not colon or bits.isascii() and bits.isdigit() and 2 <= int(bits) <= 16):
        return None
    return f"write PATTERN or PATTERN:BITS with 2 to 16 bits; nearest valid: {pattern or '*'}:8"


def weight_quantizer(value: str) -> str | None:
    """Check a name for ``w_quantize``."""
    if value in ACTIVATION_QUANTIZERS and value not in WEIGHT_QUANTIZERS:
        twin = value[: -len("_relu")] if value.endswith("_relu") else "gaussian"
        return f"quantizes activations, not weights; nearest valid: {twin}"
    return one_of(WEIGHT_QUANTIZERS)(value)


def activation_quantizer(value: str) -> str | None:
    """Check a name for ``a_quantize``."""
    if value in WEIGHT_QUANTIZERS and value not in ACTIVATION_QUANTIZERS:
        twin = f"{value}_relu" if f"{value}_relu" in ACTIVATION_QUANTIZERS else "half_wave_gaussian"
        return f"quantizes weights, not activations; nearest valid: {twin}"
    return one_of(ACTIVATION_QUANTIZERS)(value)


def check_relations(experiment: Experiment) -> None:
    """Check what the keys of an experiment ask of each other.

    Raises:
        InvalidValue: naming the key to change.
    """
    for relation in (_architecture, _limits, _bits, _exclusive, _targets, _milestones, check_data, _archtype, _gates):
        relation(experiment)


def _archtype(experiment: Experiment) -> None:
    # Its keys are declared with the rules of this module.
    from nnmpq.config.progressive import check_archtype

    check_archtype(experiment)


def _gates(experiment: Experiment) -> None:
    from nnmpq.config.dynamic import check_gates

    check_gates(experiment)


def _architecture(experiment: Experiment) -> None:
    """Check that the network takes what is asked of it; what another takes must be at its default."""
    taken = ARCHITECTURES[experiment.arch]
    defaults = {field.name: field.default for field in attrs.fields(type(experiment))}
    for key in dict.fromkeys(key for keys in ARCHITECTURES.values() for key in keys):
        value = getattr(experiment, key)
        if key not in taken and value != defaults[key]:
            others = ", ".join(arch for arch, keys in ARCHITECTURES.items() if key in keys)
            reason = f"arch = {experiment.arch} does not take it; leave it out, or take one of {others}"
            raise InvalidValue(key, _shown(value), reason)
        if taken.get(key) and value not in taken[key]:
            raise InvalidValue(key, value, f"{_nearest_of(value, taken[key])} (arch = {experiment.arch})")


def _shown(value: Any) -> Any:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else value


def _nearest_of(value: Any, known: tuple[Any, ...]) -> str:
    """Say which of some words or numbers a value must be."""
    if isinstance(value, str):
        return str(one_of(known)(value))
    near = min(known, key=lambda number: abs(number - value))
    return f"must be one of {', '.join(map(str, known))}; nearest valid: {near}"


def _limits(experiment: Experiment) -> None:
    for prefix in ("w", "a"):
        for stem in ("stepsize", "xmin", "xmax", "bitwidth"):
            low, high = (
                getattr(experiment, f"{prefix}_{stem}_min"),
                getattr(experiment, f"{prefix}_{stem}_max"),
            )
            if low > high:
                reason = f"greater than {prefix}_{stem}_max = {high:g}; nearest valid: {high:g}"
                raise InvalidValue(f"{prefix}_{stem}_min", low, reason)
        _inside(experiment, f"{prefix}_stepsize")


def _inside(experiment: Experiment, key: str) -> None:
    """Check that a start value lies within its limits."""
    value, low, high = (getattr(experiment, key + suffix) for suffix in ("", "_min", "_max"))
    reason = between(low, high)(value)
    if reason is not None:
        raise InvalidValue(key, value, f"{reason} (the limits are {key}_min and {key}_max)")


def _bits(experiment: Experiment) -> None:
    for prefix, name, choices in (
        ("w", experiment.w_quantize, WEIGHT_QUANTIZERS),
        ("a", experiment.a_quantize, ACTIVATION_QUANTIZERS),
    ):
        if name is not None:
            _bits_of(experiment, prefix, name, choices[name])


def _bits_of(experiment: Experiment, prefix: str, name: str, choice: Choice) -> None:
    key = f"{prefix}_bitwidth"
    bits = getattr(experiment, key)
    if choice.family == "sign" and bits != 1:
        raise InvalidValue(key, bits, f"{prefix}_quantize = {name} has 1 bit; nearest valid: 1")
    if choice.family in ("uniform", "symmetric") and prefix == "w":
        for which in (key, f"{key}_min") if choice.learn else (key,):
            value = getattr(experiment, which)
            if value < 2:
                reason = f"{prefix}_quantize = {name} is signed and uniform and needs 2 bits; nearest valid: 2"
                raise InvalidValue(which, value, reason)
    if choice.family == "pow2" and bits > 8:
        raise InvalidValue(key, bits, f"{prefix}_quantize = {name} has at most 8 bits; nearest valid: 8")
    if choice.learns_bits:
        _inside(experiment, key)


def _exclusive(experiment: Experiment) -> None:
    if experiment.policy is None:
        return
    if experiment.auxiliary:
        reason = f"policy = {experiment.policy} knows no auxiliary heads; nearest valid: False"
        raise InvalidValue("auxiliary", True, reason)
    for key in ("w_quantize", "a_quantize"):
        value = getattr(experiment, key)
        if value is not None:
            reason = f"policy = {experiment.policy} already decides this; leave one of the two out"
            raise InvalidValue(key, value, reason)


def _targets(experiment: Experiment) -> None:
    for key, prefix in (("target_weight_kbytes", "w"), ("target_activation_kbytes", "a")):
        value = getattr(experiment, key)
        if value <= 0:
            continue
        what = "weights" if prefix == "w" else "activations"
        if experiment.policy is not None:
            raise InvalidValue(key, value, f"policy = {experiment.policy} fixes the bits; nearest valid: -1")
        if getattr(experiment, f"{prefix}_quantize") is None:
            near = "parametric_fp_d_xmax" + ("" if prefix == "w" else "_relu")
            reason = f"the {what} are not quantized: set {prefix}_quantize (nearest valid: {near}) or -1 here"
            raise InvalidValue(key, value, reason)


def _milestones(experiment: Experiment) -> None:
    milestones, epochs = experiment.milestones, experiment.epochs
    text = ", ".join(map(str, milestones))
    if any(milestone < 1 for milestone in milestones) or list(milestones) != sorted(set(milestones)):
        near = ", ".join(str(milestone) for milestone in sorted(set(milestones)) if milestone >= 1)
        raise InvalidValue("milestones", text, f"must be epochs from 1 on, increasing; nearest valid: {near}")
    if milestones and milestones[-1] >= epochs:
        near = ", ".join(str(milestone) for milestone in milestones if milestone < epochs)
        reason = f"{milestones[-1]} never comes in epochs = {epochs}; nearest valid: {near or '(empty)'}"
        raise InvalidValue("milestones", text, reason)

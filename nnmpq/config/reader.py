"""From a section of a ``.cfg`` file and the command line to a checked experiment, and back to text."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nnmpq.config.errors import ConfigError, InvalidValue, did_you_mean
from nnmpq.config.experiment import PUBLISHED_EPOCHS, PUBLISHED_MILESTONES, Experiment
from nnmpq.config.keys import INHERIT, keys_of, scale_milestones
from nnmpq.config.sections import Raw, Sections, read_sections
from nnmpq.config.weightfile import resolve_weightfile

__all__ = [
    "ConfigError",
    "list_experiments",
    "read_experiment",
    "resolve_weightfile",
    "to_cfg",
]

logger = logging.getLogger("nnmpq")
_OVERRIDE = "--set"


def read_experiment(path: str | Path, name: str, overrides: Sequence[str] = ()) -> Experiment:
    """Read one experiment.

    The first of these that has a key decides: ``overrides``, the section, what it inherits, ``[DEFAULT]``.
    Where ``overrides`` change ``epochs`` and not ``milestones``, the milestones move in proportion.

    Args:
        path: the ``.cfg`` file.
        name: its section; ``DEFAULT`` is one.
        overrides: ``"key=value"`` from the command line; of several for one key the last counts.

    Returns:
        The experiment, complete.

    Raises:
        ConfigError: naming file, section, key, value and the nearest valid choice.
    """
    sections = read_sections(path)
    raw = sections.raw_values(name)
    given = _parse_overrides(overrides)
    file_values = {key: _parse(sections, name, key, value) for key, value in raw.items()}
    values = {**file_values, **{key: _parse(sections, name, key, value) for key, value in given.items()}}
    if "epochs" in given and "milestones" not in given:
        values["milestones"] = _scaled_milestones(name, file_values, values["epochs"])
    origins = {**raw, **given}
    try:
        if values.get("policy") is not None:
            values["policy"] = _find_policy(sections.path, values["policy"])
        return Experiment(name, **values)
    except InvalidValue as error:
        raise _located(sections, name, error, origins) from error


def list_experiments(path: str | Path) -> str:
    """Return the text of ``--list``: every section of a file with what it quantizes, and its limits.

    Raises:
        ConfigError: the file cannot be read.
    """
    names = read_sections(path).names()
    width = max(map(len, names))
    return "\n".join(f"{name:<{width}}  {_summary(path, name)}" for name in names)


def to_cfg(experiment: Experiment) -> str:
    """Write an experiment as a ``.cfg`` that needs no other section and reads back equal.

    Args:
        experiment: what to write.

    Returns:
        The text, every key in it.

    Example:
        >>> to_cfg(Experiment("SHORT")).splitlines()[:3]
        ['[SHORT]', 'arch = resnet', 'num_layers = 20']
    """
    lines = [f"[{experiment.name}]"]
    for key in keys_of(Experiment):
        if key is not INHERIT:
            lines.append(f"{key.name} = {key.kind.write(getattr(experiment, key.name))}".rstrip())
    return "\n".join(lines) + "\n"


def _parse_overrides(overrides: Sequence[str]) -> dict[str, Raw]:
    given: dict[str, Raw] = {}
    for override in overrides:
        key, equals, text = override.partition("=")
        key = key.strip().lower()
        if not equals or not key:
            raise ConfigError(f"{_OVERRIDE} {override}: write {_OVERRIDE} KEY=VALUE, for instance epochs=20")
        if key == INHERIT.name:
            raise ConfigError(f"{_OVERRIDE} {override}: {INHERIT.name} works in a file only")
        given[key] = Raw(text.strip(), _OVERRIDE)
    return given


def _parse(sections: Sections, name: str, key: str, raw: Raw) -> Any:
    known = {known.name: known for known in keys_of(Experiment)}
    if key not in known:
        near = did_you_mean(key, known)
        raise _error(sections, name, raw.section, key, raw.text, f"no such key{near} (--help-keys explains all)")
    try:
        return known[key].kind.parse(raw.text)
    except ValueError as error:
        raise _error(sections, name, raw.section, key, raw.text, str(error)) from error


def _error(sections: Sections, name: str, section: str, key: str, value: object, reason: str) -> ConfigError:
    if section == _OVERRIDE:
        return ConfigError(f"{_OVERRIDE} {key} = {value}: {reason}")
    taken = "" if section == name else f" (taken by [{name}])"
    return ConfigError(f"{sections.path}: [{section}]{taken} {key} = {value}: {reason}")


def _located(sections: Sections, name: str, error: InvalidValue, origins: Mapping[str, Raw]) -> ConfigError:
    """Say of an invalid value where it was written."""
    origin = origins.get(error.key)
    if origin is None:
        default = "" if error.key == "name" else " (the default)"
        return _error(sections, name, name, error.key, f"{error.value}{default}", error.reason)
    return _error(sections, name, origin.section, error.key, origin.text, error.reason)


def _scaled_milestones(name: str, file_values: Mapping[str, Any], epochs: int) -> tuple[int, ...]:
    """Move the milestones of the file, or the published ones, to a run of another length."""
    milestones = file_values.get("milestones", PUBLISHED_MILESTONES)
    file_epochs = file_values.get("epochs", PUBLISHED_EPOCHS)
    if "milestones" not in file_values:
        milestones, file_epochs = PUBLISHED_MILESTONES, PUBLISHED_EPOCHS
    moved = scale_milestones(milestones, max(file_epochs, 1), epochs)
    if epochs != file_epochs:
        text = ", ".join(map(str, moved)) or "none"
        logger.info("%s: epochs = %d, so the learning rate falls after epochs: %s", name, epochs, text)
    return moved


def _policy_path(cfg: Path, value: str) -> Path | None:
    return next((path for path in (Path(value), cfg.parent / value) if path.is_file()), None)


def _find_policy(cfg: Path, value: str) -> str:
    path = _policy_path(cfg, value)
    if path is None:
        raise InvalidValue("policy", value, f"no such file, neither from here nor beside {cfg}")
    return str(path)


def _summary(path: str | Path, name: str) -> str:
    # A policy that has yet to be searched makes nothing wrong.
    waits = ""
    try:
        sections = read_sections(path)
        policy = sections.raw_values(name).get("policy")
        if policy is not None and policy.text and _policy_path(sections.path, policy.text) is None:
            waits = policy.text
        experiment = read_experiment(path, name, ["policy="] if waits else [])
    except ConfigError as error:
        return f"error: {error}"
    parts = [f"{experiment.arch} lr {experiment.initial_learning_rate:g}"]
    for letter, quantizer, bits in (
        ("W", experiment.w_quantize, experiment.w_bitwidth),
        ("A", experiment.a_quantize, experiment.a_bitwidth),
    ):
        parts += [] if quantizer is None else [f"{letter} {quantizer} {bits} bit"]
    if experiment.policy is not None:
        parts.append(f"policy {experiment.policy}")
    if waits:
        parts.append(f"waits for policy {waits}")
    if experiment.target_weight_kbytes > 0:
        parts.append(f"weights <= {experiment.target_weight_kbytes:g} KiB")
    if experiment.target_activation_kbytes > 0:
        kind = experiment.target_activation_type
        parts.append(f"activations ({kind}) <= {experiment.target_activation_kbytes:g} KiB")
    return ", ".join(parts)

"""How a key of the ``.cfg`` is declared."""

from __future__ import annotations

import functools
import math
from typing import Any, Callable

import attrs

from nnmpq.config.checks import Rule
from nnmpq.config.errors import InvalidValue
from nnmpq.config.values import NUMBER, TEXT, Kind, optional


def scale_milestones(milestones: tuple[int, ...], epochs: int, new_epochs: int) -> tuple[int, ...]:
    """Move milestones in proportion to the length of the run.

    m' = max(floor(m * new_epochs / epochs + 1/2), 1); those that coincide or lie past the end are dropped.

    Args:
        milestones: epochs after which the learning rate falls.
        epochs: length of the run that they belong to.
        new_epochs: length of the new run.

    Returns:
        The moved milestones, increasing, each below ``new_epochs``.

    Example:
        >>> scale_milestones((80, 120), 160, 6)
        (3, 5)
    """
    moved = {max(math.floor(milestone * new_epochs / epochs + 0.5), 1) for milestone in milestones}
    return tuple(sorted(milestone for milestone in moved if milestone < new_epochs))


def group(name: str) -> Callable[..., Any]:
    """Return what declares the keys of one group: ``declare(default, kind, meaning, *rules)``.

    Args:
        name: title of the group in the documentation.
    """
    return functools.partial(_declare, name)


def _declare(
    group_name: str, default: Any, kind: Kind, meaning: str, *rules: Rule, default_text: str | None = None
) -> Any:
    def validate(instance: Any, attribute: attrs.Attribute, value: Any) -> None:
        if not kind.accepts(value):
            raise InvalidValue(attribute.name, value, f"not a {kind.name}")
        if value is None:
            return
        for rule in rules:
            reason = rule(value)
            if reason is not None:
                shown = ", ".join(map(str, value)) if isinstance(value, tuple) else value
                raise InvalidValue(attribute.name, shown, reason)

    return attrs.field(
        default=default,
        validator=validate,
        converter=_whole_to_float if kind is NUMBER else None,
        metadata={
            "kind": kind,
            "group": group_name,
            "meaning": meaning,
            "default": _shown(default, kind) if default_text is None else default_text,
        },
    )


def _whole_to_float(value: Any) -> Any:
    return float(value) if type(value) is int else value


def _shown(default: Any, kind: Kind) -> str:
    """Write a default as a person would: 2**-8, not 0.00390625."""
    if kind is NUMBER and 0 < default < 0.2 and math.frexp(default)[0] == 0.5:
        return f"2**{math.frexp(default)[1] - 1}"
    if kind is NUMBER and default == int(default):
        return str(int(default))
    return "none" if default is None else kind.write(default) or "empty"


@attrs.frozen
class Key:
    """One key of the ``.cfg`` as the documentation shows it.

    Args:
        name: the key.
        group: title of the group that it belongs to.
        kind: how its value is read and written.
        default: its default, as text.
        meaning: what it does.
    """

    name: str
    group: str
    kind: Kind
    default: str
    meaning: str


INHERIT = Key(
    "inherit",
    "section",
    optional(TEXT),
    "none",
    "another section of the same file, whose keys are taken first",
)


def keys_of(experiment_class: type) -> tuple[Key, ...]:
    """Return every key of the ``.cfg``, in the order of the documentation.

    Args:
        experiment_class: `nnmpq.config.experiment.Experiment`.
    """
    declared = [
        Key(field.name, *(field.metadata[part] for part in ("group", "kind", "default", "meaning")))
        for field in attrs.fields(experiment_class)
        if field.metadata
    ]
    return (INHERIT, *declared)

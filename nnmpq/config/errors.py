"""What is said when a configuration is wrong: where, which key, which value, what would be right."""

from __future__ import annotations

from collections.abc import Iterable

from nnmpq.files import nearest


class ConfigError(Exception):
    """Something in a configuration, on the command line or in a file that it names is wrong."""


class InvalidValue(ConfigError):
    """A key of an experiment has a value that it cannot have.

    Args:
        key: name of the key.
        value: its value, as the user wrote it.
        reason: what is wrong and what would be right.
    """

    def __init__(self, key: str, value: object, reason: str) -> None:
        super().__init__(f"{key} = {value}: {reason}")
        self.key = key
        self.value = value
        self.reason = reason


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """Return ``'; nearest valid: CHOICE'``, or nothing when there is no choice at all.

    Example:
        >>> did_you_mean("cifar", ["cifar10", "digits"])
        '; nearest valid: cifar10'
    """
    known = list(choices)
    return f"; nearest valid: {nearest(word, known) or '(empty)'}" if known else ""

"""What can go wrong in training, told to the user in one line."""

from __future__ import annotations


class TrainingError(RuntimeError):
    """A run that cannot go on."""

"""What can go wrong in training, told to the user in one line."""

from __future__ import annotations


class TrainingError(RuntimeError):
    """A run cannot start or go on; the message says why and what to do."""


class CheckpointError(TrainingError):
    """A checkpoint is damaged, or belongs to another experiment or other data."""


class BudgetError(TrainingError):
    """No narrowing of the bits meets the budget."""


class NonFiniteLoss(TrainingError):
    """The loss became infinite or not a number."""

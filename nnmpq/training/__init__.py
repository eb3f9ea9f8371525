"""Training: the loop, solvers, projection onto a budget, checkpoints."""

from nnmpq.training.errors import BudgetError, CheckpointError, NonFiniteLoss, TrainingError
from nnmpq.training.loop import Result, train

__all__ = ["BudgetError", "CheckpointError", "NonFiniteLoss", "Result", "TrainingError", "train"]
